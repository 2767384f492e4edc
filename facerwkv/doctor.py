"""What is installed, what is missing, and what to type."""

import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any, Literal

from facerwkv.core.errors import InputError

COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}
GIB = 2**30
LITTLE = 2 * GIB


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the examination: its subject, the result, and what to do where it is not "ok"."""

    name: str
    status: Literal["ok", "warn", "fail"]
    found: str
    next_step: str = ""

    def print(self) -> None:
        from rich.console import Console
        from rich.table import Column, Table
        from rich.text import Text

        columns = Column(width=4), Column(width=18), Column(overflow="fold")
        grid = Table(*columns, box=None, show_header=False, padding=(0, 2, 0, 0))
        found = Text(self.found)
        if self.next_step:
            found.append(f"\n→ {self.next_step}", style=COLOURS[self.status])
        grid.add_row(Text(self.status, style=COLOURS[self.status]), Text(self.name), found)
        Console(markup=False).print(grid)


@dataclass(frozen=True)
class Diagnosis:
    """All lines, in the order of CHECKS."""

    checks: list[Check]

    @property
    def ok(self) -> bool:
        return all(check.status != "fail" for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        return {"ok": self.ok, "checks": [asdict(check) for check in self.checks]}


def diagnose(show: Callable[[Check], object] | None = None) -> Diagnosis:
    """Examine this machine. What goes wrong becomes a line with status "fail"; nothing is raised.

    `show` gets each line at once: should a check end the process, those before it were seen.
    """
    checks: list[Check] = []
    for name, examine in CHECKS.items():
        for check in _examined(name, examine):
            checks.append(check)
            if show:
                show(check)
    return Diagnosis(checks)


def _examined(name: str, examine: Callable[[], Iterable[Check]]) -> Iterator[Check]:
    try:
        yield from examine()
    except InputError as error:
        yield Check(name, "fail", str(error))
    except Exception as error:
        step = "Repair the installation: pip install --force-reinstall facerwkv"
        yield Check(name, "fail", f"{type(error).__name__}: {error}", step)


def _packages() -> Iterator[Check]:
    """The program, and what its metadata ask for, with the extras, against what is installed."""
    from packaging.requirements import Requirement

    where = f"Python {platform.python_version()} at {sys.executable}, {platform.platform()}"
    yield Check("facerwkv", "ok", f"{metadata.version('facerwkv')}; {where}")
    found: list[str] = []
    extras: dict[str, list[str]] = {}
    for line in metadata.requires("facerwkv") or []:
        wanted = Requirement(line)
        version = _version(wanted.name)
        if wanted.marker and not wanted.marker.evaluate({"extra": ""}):
            for extra in metadata.metadata("facerwkv").get_all("Provides-Extra") or []:
                if wanted.marker.evaluate({"extra": extra}) and version is None:
                    extras.setdefault(extra, []).append(wanted.name)
        elif version is None or not wanted.specifier.contains(version, prereleases=True):
            fix = f"pip install '{wanted.name}{wanted.specifier}'"
            yield Check(wanted.name, "fail", f"{version or 'missing'}; {wanted.specifier or 'any'} is needed", fix)
        else:
            found.append(f"{wanted.name} {version}")
    yield Check("packages", "ok", ", ".join(found))
    for extra, names in extras.items():
        yield Check(f"optional: {extra}", "ok", f"not here: {', '.join(names)}", f"pip install 'facerwkv[{extra}]'")


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _kernels() -> Iterator[Check]:
    """The C kernels, and the form of them that this processor gets."""
    from facerwkv.core.packages import has_pytorch
    from facerwkv.kernels.native.loading import PATH, PLAIN_IS_FASTER, load

    if not has_pytorch():
        yield Check("C kernels", "ok", "not used: they are PyTorch's")
        return
    try:
        library = load()
    except InputError as error:
        reason, _, step = str(error).partition(". ")
        yield Check("C kernels", "warn", f"{reason}.", step)
        return
    plain = "".join(f"; {name} in PyTorch" for name, levels in PLAIN_IS_FASTER.items() if library.level in levels)
    threads = "" if library.threaded else "; one thread, without OpenMP"
    yield Check("C kernels", "ok", f"level {library.level}{plain}{threads}, {PATH}")


def _devices() -> Iterator[Check]:
    """The devices of PyTorch, and one image through a small model on the one that "auto" means."""
    from facerwkv.core.devices import choose_device
    from facerwkv.core.packages import INSTALL, has_pytorch, pytorch

    if not has_pytorch():
        yield Check("devices", "ok", "PyTorch is not here: onnxruntime predicts; to train,", INSTALL)
        return
    torch = pytorch("doctor")
    from facerwkv.models.zoo import create_model

    cards = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    names = [f"cuda:{i} ({card.name}, {card.total_memory / GIB:.0f} GiB)" for i, card in enumerate(cards)]
    names = ["mps"] * torch.backends.mps.is_available() + names + [f"cpu ({torch.get_num_threads()} threads)"]
    unused = shutil.which("nvidia-smi") is not None and not torch.cuda.is_available()
    step = "nvidia-smi is here, but PyTorch sees no GPU: install PyTorch's CUDA build for this driver" if unused else ""
    yield Check("devices", "warn" if unused else "ok", ", ".join(names), step)

    device = choose_device("auto")
    model = create_model("facerwkv4_small", num_classes=7, img_size=(48, 48), patch_size=8).eval().to(device)
    start = time.perf_counter()
    with torch.inference_mode():
        finite = bool(model(torch.zeros(1, 3, 48, 48, device=device)).isfinite().all())
    took = f"facerwkv4_small on {device}: {1000 * (time.perf_counter() - start):.0f} ms"
    step = "" if finite else "The device computes NaN: choose another, --device cpu"
    yield Check("forward pass", "ok" if finite else "fail", took, step)


def _detector() -> Iterator[Check]:
    import numpy as np

    from facerwkv.media.faces import FaceDetector

    detector = FaceDetector()
    detector(np.zeros((64, 64, 3), np.uint8))
    yield Check("face detector", "ok", f"{detector.model} ({detector.model.stat().st_size / 1024:.0f} KiB)")


def _onnxruntime() -> Iterator[Check]:
    from facerwkv.core.runtime import onnxruntime

    runtime = onnxruntime("Prediction")
    yield Check("onnxruntime", "ok", f"{runtime.__version__}: {', '.join(runtime.get_available_providers())}")


def _prediction() -> Iterator[Check]:
    """What runs the shipped models, why, and one image through it."""
    import numpy as np

    from facerwkv.core.devices import has_gpu
    from facerwkv.core.packages import has_pytorch
    from facerwkv.inference.predictor import load

    why = "PyTorch is not here" if not has_pytorch() else "PyTorch sees a GPU" if has_gpu() else "there is no GPU"
    predictor = load()
    start = time.perf_counter()
    predictor.predict(np.zeros((64, 64, 3), np.uint8), mode="scene")
    took = 1000 * (time.perf_counter() - start)
    yield Check("prediction", "ok", f"{predictor.name} on {predictor.model.runs_on}, as {why}: {took:.0f} ms")


def _openvino() -> Iterator[Check]:
    from facerwkv.models.openvino import EXTRA, openvino

    version = _version("openvino")
    if version is None:
        yield Check("openvino", "ok", "not here: for --engine openvino", EXTRA)
    else:
        yield Check("openvino", "ok", f"{version}: {', '.join(openvino('doctor').Core().available_devices)}")


def _video() -> Iterator[Check]:
    """PyAV, which reads and writes videos; images need none."""
    if _version("av") is None:
        yield Check("video", "ok", "PyAV is not here: images only", "pip install 'facerwkv[video]'")
        return
    from facerwkv.media.frames import pyav

    av = pyav()
    ffmpeg = ".".join(map(str, av.library_versions["libavcodec"]))
    encodes = "libx264" in av.codecs_available
    step = "" if encodes else "Drawn videos need H.264: pip install --force-reinstall --only-binary av av"
    yield Check("video", "ok" if encodes else "warn", f"PyAV {av.__version__}, libavcodec {ffmpeg}", step)


def _storage() -> Iterator[Check]:
    from facerwkv.core.files import cache_folder

    folder = cache_folder()
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    size = sum(file.lstat().st_size for file in folder.rglob("*") if file.is_file())
    step = "Choose a folder that you may write: export FACERWKV_HOME=FOLDER"
    writable = os.access(there, os.W_OK | os.X_OK) and there.is_dir()
    yield Check("cache", *(("ok", f"{folder}, {_size(size)}") if writable else ("fail", f"{folder}: read-only", step)))
    free = shutil.disk_usage(there).free
    low = free < LITTLE
    yield Check("disk", "warn" if low else "ok", f"{_size(free)} free beside the cache", step if low else "")


def _memory() -> Iterator[Check]:
    """Physical memory, from /proc where that exists (Linux)."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            kib = {key: int(rest.split()[0]) for key, rest in (line.split(":") for line in file)}
    except OSError:
        yield Check("memory", "ok", "unknown on this system")
        return
    free, total = kib["MemAvailable"] * 1024, kib["MemTotal"] * 1024
    step = "Close other programs, or use a smaller batch: data.batch_size=16" if free < LITTLE else ""
    yield Check("memory", "warn" if step else "ok", f"{_size(free)} free of {_size(total)}", step)


def _size(count: int) -> str:
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / 2**20:.1f} MiB"


CHECKS: dict[str, Callable[[], Iterable[Check]]] = {
    "packages": _packages,
    "C kernels": _kernels,
    "devices": _devices,
    "face detector": _detector,
    "video": _video,
    "onnxruntime": _onnxruntime,
    "prediction": _prediction,
    "openvino": _openvino,
    "cache": _storage,
    "memory": _memory,
}
