"""Which device computes, and on how many cores."""

import logging
import os
import sys
from typing import TYPE_CHECKING

from facerwkv.core.errors import InputError
from facerwkv.core.packages import has_pytorch, imported_pytorch, pytorch

if TYPE_CHECKING:
    import torch

_chosen: list[int] = []


def cores() -> int:
    """The number of cores that this process may use: not all of them in a container or under taskset."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads() -> int:
    """On how many threads one thing is computed: PyTorch's number where it is imported, else what `set_threads` or
    OMP_NUM_THREADS says, or all cores."""
    if torch := imported_pytorch():
        return int(torch.get_num_threads())
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return _chosen[0] if _chosen else int(asked) if asked.isdigit() and int(asked) else cores()


def set_threads(count: int) -> None:
    """For what is loaded from now on, and for PyTorch, also where it is imported later."""
    _chosen[:] = [count]
    if torch := imported_pytorch():
        torch.set_num_threads(count)


def has_gpu() -> bool:
    """Whether PyTorch computes on a GPU here. It is asked where the system shows one: its import takes seconds."""
    windows = os.path.join(os.environ.get("SYSTEMROOT", ""), "System32", "nvcuda.dll")
    signs = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg", windows)  # NVIDIA's, AMD's, and below WSL
    if not has_pytorch() or not (sys.platform == "darwin" or any(map(os.path.exists, signs))):
        return False
    try:
        return choose_device("auto").type != "cpu"
    except InputError as error:
        logging.getLogger("facerwkv").warning(f"Prediction uses no GPU. {error}")
        return False


def choose_device(name: str) -> "torch.device":
    """The device called `name`, or InputError: never another one. "auto" is the first of cuda, mps and cpu there is."""
    fresh, torch = "torch" not in sys.modules, pytorch(f"The device {name}")
    if fresh and _chosen:
        torch.set_num_threads(_chosen[0])
    count = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available()), "cpu": 1}
    there = [f"{kind}:{i}" if kind == "cuda" else kind for kind, number in count.items() for i in range(number)]
    if name == "auto":
        return torch.device(there[0])
    if name not in there and not (name == "cuda" and count["cuda"]):
        raise InputError(f"There is no device {name!r} here. Choose auto or one of: {', '.join(there)}.")
    return torch.device(name)
