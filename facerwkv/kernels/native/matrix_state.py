"""wkv6.c and wkv7.c, each as one operator for autograd, torch.compile and torch.export.

Their gradients, that of the state included, are those of the chunked form, which runs again in the backward pass.
"""

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from facerwkv.kernels.chunks import Recurrence
from facerwkv.kernels.native import library, pointer
from facerwkv.kernels.wkv6 import IMPLEMENTATIONS as WKV6
from facerwkv.kernels.wkv7 import IMPLEMENTATIONS as WKV7


@torch.library.custom_op("facerwkv::wkv6", mutates_args=(), device_types="cpu")
def wkv6(r: Tensor, k: Tensor, v: Tensor, w: Tensor, u: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """float32; as kernels.wkv6.wkv6, with every shape written out."""
    return _run("wkv6", (r, k, v, w.exp(), u), state)


@torch.library.custom_op("facerwkv::wkv7", mutates_args=(), device_types="cpu")
def wkv7(r: Tensor, w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """float32; as kernels.wkv7.wkv7, with every shape written out."""
    return _run("wkv7", (r, w.exp(), k, v, a, b), state)


def _run(operator: str, inputs: Sequence[Tensor], state: Tensor) -> tuple[Tensor, Tensor]:
    inputs, state = [x.contiguous() for x in inputs], state.clone(memory_format=torch.contiguous_format)
    y = torch.empty_like(inputs[0])
    sizes = (ctypes.c_long(size) for size in y.shape)
    getattr(library(), f"{operator}_forward")(*sizes, *(pointer(x) for x in (*inputs, state, y)))
    return y, state


def _register(operator: Any, chunked: Recurrence) -> None:
    def fake(first: Tensor, *others: Tensor) -> tuple[Tensor, Tensor]:
        return torch.empty_like(first, memory_format=torch.contiguous_format), torch.empty_like(others[-1])

    def setup(ctx: Any, inputs: tuple, output: tuple) -> None:
        ctx.save_for_backward(*inputs)

    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        with torch.enable_grad():
            inputs = [x.detach().requires_grad_() for x in ctx.saved_tensors]
            return torch.autograd.grad(chunked(*inputs), inputs, grads)

    operator.register_fake(fake)
    operator.register_autograd(backward, setup_context=setup)


_register(wkv6, WKV6["chunked"])
_register(wkv7, WKV7["chunked"])
