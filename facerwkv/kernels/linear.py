"""Products with a matrix, by the library that is faster here: torch's own choice, or oneDNN.

For float32 torch calls MKL, which uses vectors of 512 bits on Intel's processors only; oneDNN, which torch holds too,
uses them on all that have them. On a Zen 5 it multiplies 2.2 times as fast (docs/log.md).
"""

import math
import platform
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from facerwkv.errors import InputError
from facerwkv.kernels import choose
from facerwkv.kernels.native import traced

FEWEST = 64  # rows and columns from which oneDNN pays: it packs the matrix at every call


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, implementation: str = "auto") -> Tensor:
    """x (..., D) times a matrix (F, D), plus a bias (F,): (..., F).

    implementation: "reference" (torch.nn.functional.linear) or "onednn" (CPU, float32); "auto" is onednn where it pays
    and nothing traces the call, else the reference.
    """
    inputs = [x, weight] if bias is None else [x, weight, bias]
    return choose(IMPLEMENTATIONS, implementation, "onednn" if _suits(*inputs) else "reference")(x, weight, bias)


class Linear(nn.Linear):
    """torch.nn.Linear by `linear`."""

    implementation = "auto"

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias, self.implementation)


@cache
def onednn_pays() -> bool:
    """Whether oneDNN's vectors are wider here than MKL's."""
    both = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()
    return both and torch.backends.cpu.get_cpu_capability() == "AVX512" and "GenuineIntel" not in _processor()


def _suits(*inputs: Tensor) -> bool:
    if torch.compiler.is_compiling():  # to an exporter, comparing the batch's size would limit it
        return False
    x, weight = inputs[:2]
    large = math.prod(x.shape[:-1]) >= FEWEST and min(weight.shape) >= FEWEST
    if not (large and onednn_pays() and _fits(*inputs)):
        return False
    return not torch.is_autocast_enabled("cpu") and not traced(*inputs)


def _fits(*inputs: Tensor) -> bool:
    return all(tensor.device.type == "cpu" and tensor.dtype == torch.float32 for tensor in inputs)


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    inputs = [x, weight] if bias is None else [x, weight, bias]
    if not (_fits(*inputs) and torch.backends.mkldnn.is_available()):
        raise InputError(
            f"oneDNN multiplies on the CPU in float32, not on {x.device} in {x.dtype}, or torch here does without it; "
            "use implementation='reference'."
        )
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs):
        return _Linear.apply(x, weight, bias)
    return _product(x, weight, bias)


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        of_x = linear(grad, weight.mT) if wanted[0] else None
        of_weight = outer(grad, x) if wanted[1] else None
        return of_x, of_weight, grad.flatten(0, -2).sum(0) if wanted[2] else None


def outer(grad: Tensor, x: Tensor) -> Tensor:
    """The gradient of a matrix: that of the product (..., F) and what was multiplied (..., D) → (F, D)."""
    return linear(grad.flatten(0, -2).mT, x.flatten(0, -2).mT)


def _processor() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor()


IMPLEMENTATIONS: dict[str, Callable[..., Tensor]] = {"reference": functional.linear, "onednn": _onednn}
