"""The optional C kernels; everything else stands in pyproject.toml."""

import sys
from pathlib import Path

from setuptools import Extension, setup

# OpenMP's calls are left unresolved: they are found in the runtime that torch has loaded, so that both share one pool
# of threads and torch.set_num_threads holds for both.
COMPILE = ["-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-std=c11", "-ffp-contract=fast"]
OPENMP = ["-fopenmp"] if sys.platform == "linux" else []

setup(
    ext_modules=[
        Extension(
            "facerwkv.kernels.native._native",
            sorted(map(str, Path("facerwkv/kernels/native").glob("*.c"))),
            depends=sorted(map(str, Path("facerwkv/kernels/native").glob("*.h"))),
            extra_compile_args=COMPILE + OPENMP,
            optional=True,  # without a compiler the install succeeds and the PyTorch forms run
        )
    ]
)
