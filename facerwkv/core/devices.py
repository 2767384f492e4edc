"""Which device computes, and on how many cores."""

import os
from typing import TYPE_CHECKING

from facerwkv.core.errors import InputError

if TYPE_CHECKING:
    import torch


def cores() -> int:
    """The number of cores that this process may use: not all of them in a container or under taskset."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def choose_device(name: str) -> "torch.device":
    """The device called `name`, or InputError: never another one. "auto" is the first of cuda, mps and cpu there is."""
    import torch

    count = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available()), "cpu": 1}
    there = [f"{kind}:{i}" if kind == "cuda" else kind for kind, number in count.items() for i in range(number)]
    if name == "auto":
        return torch.device(there[0])
    if name not in there and not (name == "cuda" and count["cuda"]):
        raise InputError(f"There is no device {name!r} here. Choose auto or one of: {', '.join(there)}.")
    return torch.device(name)
