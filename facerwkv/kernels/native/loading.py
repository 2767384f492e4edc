"""The library of C kernels: one file with each kernel in a form per level, of which the processor gets the highest."""

import ctypes
import json
import logging
import multiprocessing
import os
import shlex
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from facerwkv.core.errors import InputError
from facerwkv.core.packages import has_pytorch
from facerwkv.kernels.native.sources import digest

PATH = Path(__file__).parent / "_native.so"
PLAIN_IS_FASTER = {"toeplitz": ("baseline", "v2")}
"""Kernel → the levels at which PyTorch's forms are faster: there "auto" does not take it."""


class Library:
    """The C functions by their name without the level. AttributeError for one that the library lacks."""

    def __init__(self, handle: ctypes.CDLL, level: str):
        self.handle, self.level = handle, level

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.handle, f"{name}_{self.level}")
        setattr(self, name, found)
        return found

    @property
    def threaded(self) -> bool:
        """Whether it was compiled with OpenMP."""
        return bool(self.handle.facerwkv_threaded())


def load(level: str | None = None, path: Path = PATH) -> Library:
    """The library at the highest level that this processor and system run, or at another that they run.

    Levels are "baseline", "v2" (SSE4.2), "v3" (AVX2, FMA) and "v4" (AVX-512) on x86-64, else "plain". InputError, with
    what to do, for another level, and where there is no library, it cannot be loaded, or the sources beside it, in a
    checkout, are others than it was built from.
    """
    if not path.is_file():
        raise InputError(f"The C kernels were not built, so slower PyTorch forms run: there is no {path}. {_again()}")
    try:
        if has_pytorch():
            import torch  # noqa: F401  the library takes its OpenMP
        handle = ctypes.CDLL(str(path))
        handle.facerwkv_levels.restype = ctypes.c_char_p
        levels = handle.facerwkv_levels().decode().split()
    except (OSError, AttributeError) as error:
        raise InputError(f"The C kernels cannot be loaded, so slower PyTorch forms run: {error}. {_again()}") from error
    if _is_of_others(handle, path.parent):
        raise InputError(
            f"The C kernels are not used, so slower PyTorch forms run: {path} was built from other sources than those "
            f"beside it. {_again()}"
        )
    if level not in (None, *levels):
        raise InputError(f"This processor runs the C kernels at the levels {', '.join(levels)}, not {level!r}.")
    return Library(handle, level or levels[-1])


def _is_of_others(handle: ctypes.CDLL, folder: Path) -> bool:
    """Whether a library says that it was built from other sources than those in the folder."""
    ask = getattr(handle, "facerwkv_sources", None)
    if ask is None:
        return False
    ask.restype = ctypes.c_char_p
    built_from, here = ask().decode(), digest(folder)
    return "" not in (built_from, here) and built_from != here


@cache
def loaded() -> Library | InputError:
    """`load()`, or why not: then it is also logged, once per process, but not again by the processes of a loader."""
    try:
        return load()
    except InputError as error:
        if multiprocessing.parent_process() is None:
            logging.getLogger("facerwkv").warning(str(error))
        return error


def _again() -> str:
    """What to type: what pip keeps in its cache may be what failed."""
    if os.name == "nt":
        return "There are none for Windows; inside WSL 2 there are."
    checkout = PATH.parents[3]
    what = ["--editable", str(checkout)] if (checkout / "setup.py").is_file() else _origin()
    return (
        "Install GCC (on Debian: apt install gcc libc6-dev) and then facerwkv again "
        f"(pip install --force-reinstall --no-deps --no-cache-dir {shlex.join(what)})."
    )


def _origin() -> list[str]:
    """How pip finds the sources that this package came from: a folder, a repository, or an index."""
    try:
        found = json.loads(metadata.distribution("facerwkv").read_text("direct_url.json") or "{}")
    except (metadata.PackageNotFoundError, ValueError):
        found = {}
    url, version_control = found.get("url", ""), found.get("vcs_info", {}).get("vcs")
    if not url or url.endswith(".whl"):
        return ["--no-binary", "facerwkv", "facerwkv"]
    return [f"{version_control}+{url}" if version_control else url]
