"""The CUDA kernels, in Triton: imported, and then compiled, only when a CUDA tensor asks for them."""

from importlib.util import find_spec

import torch
from torch import Tensor

from facerwkv.core.errors import InputError

TYPES = (torch.float32, torch.float16, torch.bfloat16)


def runs(k: Tensor) -> bool:
    """Whether the kernels take keys like k: on CUDA, in float32 or less, and Triton is installed."""
    return k.device.type == "cuda" and k.dtype in TYPES and _installed()


def check(name: str, w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> None:
    """InputError unless the operator called `name` can run. Triton's interpreter takes the CPU's tensors, too."""
    if refused := _refused(k):
        raise InputError(f"The Triton {name} {refused}; use implementation='chunked'.")
    if k.ndim != 3 or v.shape != k.shape or w.shape != k.shape[2:] or u.shape != w.shape:
        shapes = ", ".join(str(tuple(x.shape)) for x in (w, u, k, v))
        raise InputError(f"{name} takes w and u (C,), k and v (B, T, C), not {shapes}.")


def _refused(k: Tensor) -> str | None:
    if not _installed():
        return "needs triton, which PyTorch for CUDA brings along on Linux (elsewhere: pip install triton-windows)"
    if k.device.type != "cuda" and not _interprets():
        return f"runs on CUDA, not on {k.device}"
    if k.dtype not in TYPES:
        return f"runs in float32, float16 and bfloat16, not in {k.dtype}"
    return None


@torch.compiler.assume_constant_result
def _installed() -> bool:
    return find_spec("triton") is not None


@torch.compiler.assume_constant_result
def _interprets() -> bool:
    import triton

    return triton.knobs.runtime.interpret
