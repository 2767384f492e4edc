"""The CUDA kernels, in Triton: imported, and then compiled, only when a CUDA tensor asks for them."""

from importlib.util import find_spec

import torch
from torch import Tensor

from facerwkv.core.errors import InputError
from facerwkv.kernels.calls import constant, transformed

TYPES = (torch.float32, torch.float16, torch.bfloat16)


def runs(k: Tensor) -> bool:
    """Whether the kernels take keys like k: on CUDA, in float32 or less, and Triton is installed."""
    return k.device.type == "cuda" and k.dtype in TYPES and _installed() and not transformed()


def check(name: str, k: Tensor, v: Tensor) -> None:
    """InputError unless the operator called `name` takes keys and values like these.

    Triton's interpreter takes the CPU's, too.
    """
    refused = None
    if not _installed():
        refused = "needs triton, which PyTorch for CUDA brings along on Linux (elsewhere: pip install triton-windows)"
    elif k.device.type != "cuda" and not _interprets():
        refused = f"runs on CUDA, not on {k.device}"
    elif k.dtype not in TYPES or v.dtype not in TYPES:
        refused = f"runs in float32, float16 and bfloat16, not with keys in {k.dtype} and values in {v.dtype}"
    elif transformed():
        refused = "has no forward-mode derivative, nor torch.func's transforms"
    if refused:
        raise InputError(f"The Triton {name} {refused}; use implementation='chunked'.")


@constant
def _installed() -> bool:
    return find_spec("triton") is not None


@constant
def _interprets() -> bool:
    import triton

    return triton.knobs.runtime.interpret
