"""The C kernels under the compiler's sanitizers: whatever these report ends the run with 1.

    python tools/sanitize_kernels.py address --seconds 600
    python tools/sanitize_kernels.py thread

"address" builds the sources with AddressSanitizer and UndefinedBehaviorSanitizer and runs the tests in tests/kernels
and tools/fuzz_kernels.py with them. "thread" builds them with ThreadSanitizer and tools/openmp.c, and calls every
function from several threads at once; Python alone runs there, without PyTorch. Needs GCC with its sanitizers.
"""

import argparse
import ctypes
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from math import prod
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SANITIZERS = {
    "address": ("address,undefined", ["asan", "ubsan"]),
    "thread": ("thread", ["tsan"]),
}
OPTIONS = {
    "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",  # Python and PyTorch keep memory to the end
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
    "TSAN_OPTIONS": "halt_on_error=0:exitcode=66",
}
WAVE = {
    name: " ".join(["BTHN"] * inputs + tables)
    for name, inputs, tables in (
        ("wkv6_forward", 4, ["HN", "BHNN", "BTHN"]),
        ("wkv7_forward", 6, ["BHNN", "BTHN"]),
        ("wkv6_backward", 4, ["HN", "BHNN", "BTHN", "BHNN", *["BTHN"] * 4, "BHN"]),
        ("wkv7_backward", 6, ["BHNN", "BTHN", "BHNN", *["BTHN"] * 6]),
    )
}
FUNCTIONS = {  # sizes, and how many numbers each pointer has
    "wkv4_forward": ("BTC", "C C BTC BTC BC3 BTC"),
    "wkv4_backward": ("BTC", "C C BTC BTC BTC BC BC BTC BTC"),
    "biwkv_forward": ("BTC", "C C BTC BTC BTC"),
    "biwkv_backward": ("BTC", "C C BTC BTC BTC BC BC BTC BTC"),
    **{name: ("BTHN", line) for name, line in WAVE.items()},
    "toeplitz_forward": ("BTHS", "HT HT HT BTHS BTHS BTHS BTHS BTHS"),
    "toeplitz_backward": ("BTHS", "HT HT HT BTHS BTHS BTHS BTHS BTHS BHT BHT BHT BTHS BTHS"),
    "toeplitz_product": ("HRT1", "HT HRT HRT"),
    "toeplitz_weights": ("HRT", "HRT HRT HT"),
    "toeplitz_enter": ("BTHSP", "BTHS BTHS HT HBSP BTHS"),
    "toeplitz_leave": ("BTHSP", "HBSP BTHS HT BTHS BTHS"),
    "toeplitz_leave_back": ("BTHSP", "BTHS BTHS BTHS HT HBSP BHT"),
    "toeplitz_enter_back": ("BTHSP", "HBSP HBSP BTHS BTHS BTHS HT BTHS BTHS BHT"),
    "mish_gate_forward": ("TFFF", "TF TF TF"),
    "mish_gate_backward": ("TFFF", "TF TF TF TF TF"),
    "sigmoid_gate_forward": ("TFFF", "TF TF TF"),
    "sigmoid_gate_backward": ("TFFF", "TF TF TF TF TF"),
    "squared_relu_forward": ("TFF", "TF TF"),
    "squared_relu_backward": ("TFF", "TF TF TF"),
    "token_mix_forward": ("RBTC", "BTC RC BC RBTC"),
    "token_mix_backward": ("RBTC", "BTC RC BC RBTC BTC BRC BC"),
    "pixels_forward": ("BT3", "BT3 Q BT3"),
}
LENGTHS = {"B": 3, "T": 70, "C": 200, "H": 2, "N": 32, "S": 20, "F": 300, "R": 9, "P": 80, "Q": 768, "1": 1, "3": 3}


def available(kind: str) -> str | None:
    """Why a sanitizer is not at hand here; None when it is."""
    compiler = os.environ.get("CC", "gcc")
    if platform.system() != "Linux" or not shutil.which(compiler):
        return "the sanitizers need GCC on Linux"
    missing = [name for name in _libraries(kind) if not Path(name).is_absolute()]
    return f"{compiler} has no {', '.join(missing)}" if missing else None


def _libraries(kind: str) -> list[str]:
    ask = [os.environ.get("CC", "gcc")]
    names = [f"-print-file-name=lib{name}.so" for name in SANITIZERS[kind][1]]
    return [subprocess.run([*ask, name], capture_output=True, text=True, check=True).stdout.strip() for name in names]


def build(kind: str, folder: Path, march: str = "native") -> Path:
    """A copy of the project in `folder`, with a library that the sanitizer watches; returns the library's path.

    It has one instruction set, `march`, in the place of the level that this processor takes.
    """
    from facerwkv.kernels import calls  # and with it PyTorch, which the threads' run does without

    here = calls.library()
    level = here.level if here else "plain"
    for name in ("facerwkv", "tests/kernels", "tools"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("weights", "__pycache__", "*.so"))
    for path in (ROOT / "pyproject.toml", *(ROOT / "tests").glob("*.py")):  # conftest.py and what it imports
        shutil.copy(path, folder / path.relative_to(ROOT))
    sources = sorted((folder / "facerwkv/kernels/native").glob("*.c"))
    if kind == "thread":
        sources.append(folder / "tools/openmp.c")
    flags = f"-fsanitize={SANITIZERS[kind][0]} -fno-sanitize-recover=all -fno-omit-frame-pointer -g1 -O3 -fPIC -shared"
    numbers = f"-std=gnu11 -march={march} -ffp-contract=fast -fno-math-errno -fno-trapping-math -fopenmp -Wno-psabi"
    macros = [f"-DLEVEL={level}", *(["-DLEVELS"] if level != "plain" else [])]
    library = folder / "facerwkv/kernels/native/_native.so"
    command = [os.environ.get("CC", "gcc"), *flags.split(), *numbers.split(), *macros]
    subprocess.run([*command, *map(str, sources), "-lm", "-o", str(library)], check=True)
    return library


def run(kind: str, folder: Path, command: list[str]) -> int:
    """Run Python with a sanitizer in the copy of the project; its exit code."""
    environment = {**os.environ, **OPTIONS, "LD_PRELOAD": " ".join(_libraries(kind)), "PYTHONPATH": str(folder)}
    fixed = ["setarch", "-R"] if shutil.which("setarch") else []  # ThreadSanitizer wants its addresses free
    print("$", " ".join(command), flush=True)
    start = time.monotonic()
    code = subprocess.run([*fixed, sys.executable, *command], cwd=folder, env=environment).returncode
    print(f"exit code {code} after {time.monotonic() - start:.0f} s", flush=True)
    return code


def drive(library: Path) -> None:
    """Call every function of a library from three threads at once."""
    loaded = ctypes.CDLL(str(library))
    loaded.facerwkv_levels.restype = ctypes.c_char_p
    level = loaded.facerwkv_levels().decode().split()[-1]
    for name, (sizes, pointers) in FUNCTIONS.items():
        function, longs = getattr(loaded, f"{name}_{level}"), [ctypes.c_long(LENGTHS[letter]) for letter in sizes]
        numbers = [prod(LENGTHS[letter] for letter in letters) for letters in pointers.split()]
        threads = [threading.Thread(target=_call, args=(function, longs, numbers)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    print(f"{len(FUNCTIONS)} functions, each in 3 threads that are 4 inside")


def _call(function: "ctypes._NamedFuncPointer", sizes: list[ctypes.c_long], numbers: list[int]) -> None:
    function(*sizes, *((ctypes.c_float * count)(*[0.5] * count) for count in numbers))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=[*SANITIZERS, "drive"])
    parser.add_argument("library", nargs="?", type=Path, help="for drive, which thread runs by itself")
    parser.add_argument("--march", default="native", help="the instruction set: x86-64, x86-64-v3, ...")
    parser.add_argument("--seconds", type=float, default=600, help="how long the fuzz runs")
    parser.add_argument("--seed", default="7", help="the fuzz's")
    options = parser.parse_args()
    if options.kind == "drive":
        return drive(options.library)
    if why := available(options.kind):
        sys.exit(f"Not run: {why}.")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        library = build(options.kind, folder, options.march)
        if options.kind == "thread":
            commands = [["tools/sanitize_kernels.py", "drive", str(library)]]
        else:
            fuzz = ["tools/fuzz_kernels.py", "--seconds", str(options.seconds), "--seed", options.seed]
            tests = ["-m", "pytest", "tests/kernels", "-m", "not slow", "--capture", "sys"]
            tests += ["--ignore", "tests/kernels/test_levels.py"]  # of all levels
            commands = [tests, fuzz]
        sys.exit(max(abs(run(options.kind, folder, command)) for command in commands))


if __name__ == "__main__":
    main()
