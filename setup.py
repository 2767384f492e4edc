"""The optional C kernels; everything else stands in pyproject.toml."""

import os
import runpy
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

FOLDER = Path("facerwkv/kernels/native")
CHOOSER = FOLDER / "levels.c"  # says which of the levels a processor runs
DIGEST = runpy.run_path(str(FOLDER / "sources.py"))["digest"](FOLDER)
FLAGS = ["-O3", "-g0", "-std=c11", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi"]
BASELINE = ["-march=x86-64", "-mtune=generic"]  # the last word: what CFLAGS ask for may run on this processor only
V2 = [*BASELINE, "-msse4.2", "-mpopcnt"]
V3 = [*V2, "-mavx2", "-mfma", "-mbmi", "-mbmi2"]
V4 = [*V3, "-mavx512f", "-mavx512bw", "-mavx512cd", "-mavx512dq", "-mavx512vl"]
X86 = {"baseline": BASELINE, "v2": V2, "v3": V3, "v4": V4}
AT_ONCE = 4  # compilers: each takes up to 230 MB


class BuildKernels(build_ext):
    """Every source, compiled once per level, in one library without Python's interface, which ctypes loads."""

    def get_ext_filename(self, name: str) -> str:
        return os.path.join(*name.split(".")) + ".so"

    def build_extension(self, extension: Extension) -> None:
        machine = os.environ.get("_PYTHON_HOST_PLATFORM", sysconfig.get_platform())  # the former: built for another
        levels = X86 if machine.endswith("x86_64") else {"plain": []}
        common = [*FLAGS, *self._threads()]
        macros = [("SOURCES", f'"{DIGEST}"'), *([("LEVELS", None)] if levels is X86 else [])]
        jobs = [(str(CHOOSER), "", macros, common + levels.get("baseline", []))]
        for source in extension.sources:
            jobs += [(source, level, [("LEVEL", level)], common + flags) for level, flags in levels.items()]

        def compiled(job: tuple) -> list[str]:
            source, level, macros, flags = job
            folder = os.path.join(self.build_temp, level)
            return self.compiler.compile([source], folder, macros, extra_postargs=flags)

        with ThreadPoolExecutor(min(AT_ONCE, os.cpu_count() or 1)) as pool:
            objects = [name for names in pool.map(compiled, jobs) for name in names]
        self.compiler.link_shared_object(objects, self.get_ext_fullpath(extension.name), libraries=["m"])

    def _threads(self) -> list[str]:
        """OpenMP, where its calls are those of the runtime that torch has loaded. They are left unresolved, so that
        both share one pool of threads and torch.set_num_threads holds for both; Clang would call another runtime.
        """
        if self.compiler.compiler_type != "unix":
            raise CompileError("the C kernels need GCC or Clang; without them PyTorch's forms run")
        ask = [*self.compiler.compiler_so, "-dM", "-E", "-x", "c", os.devnull]
        try:
            macros = subprocess.run(ask, capture_output=True, text=True, check=True).stdout
        except (OSError, subprocess.CalledProcessError) as error:
            raise CompileError(f"no C compiler runs ({error}); without one PyTorch's forms run") from error
        threads = sys.platform == "linux" and "__clang__" not in macros
        return ["-fopenmp"] if threads else ["-Wno-unknown-pragmas"]


class PlatformWheel(bdist_wheel):
    """One wheel for every Python."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


sources = [str(path) for path in sorted(FOLDER.glob("*.c")) if path != CHOOSER]
headers = [str(path) for path in sorted(FOLDER.glob("*.h"))]
kernels = Extension(  # optional: without a compiler the install succeeds
    "facerwkv.kernels.native._native", sources, depends=[str(CHOOSER), *headers], optional=True
)
setup(ext_modules=[kernels], cmdclass={"build_ext": BuildKernels, "bdist_wheel": PlatformWheel})
