"""wkv4.c as one operator for autograd, torch.compile and torch.export."""

import ctypes
from typing import Any

import torch
from torch import Tensor

from facerwkv.errors import InputError
from facerwkv.kernels.native import library, operator, pointer


@operator("wkv4")
def wkv4(w: Tensor, u: Tensor, k: Tensor, v: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """float32: w, u (C,), k, v (B, T, C), state (B, 3, C) → y (B, T, C) and the state after the last token."""
    w, u, k, v = (tensor.contiguous() for tensor in (w, u, k, v))
    y, state = torch.empty_like(v), state.contiguous().clone()
    _library().wkv4_forward(*_sizes(k), *(pointer(tensor) for tensor in (w, u, k, v, state, y)))
    return y, state


@wkv4.register_fake
def _(w: Tensor, u: Tensor, k: Tensor, v: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(v, memory_format=torch.contiguous_format), torch.empty_like(state)


@operator("wkv4_backward")
def wkv4_backward(w: Tensor, u: Tensor, k: Tensor, v: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of w, u, k, v for the gradient (B, T, C) of y, from an empty state."""
    w, u, k, v, grad = (tensor.contiguous() for tensor in (w, u, k, v, grad))
    grad_w, grad_u = k.new_zeros(2, k.shape[0], k.shape[2])
    grad_k, grad_v = torch.empty_like(k), torch.empty_like(v)
    tensors = (w, u, k, v, grad, grad_w, grad_u, grad_k, grad_v)
    if _library().wkv4_backward(*_sizes(k), *(pointer(tensor) for tensor in tensors)):
        raise MemoryError("wkv4's backward pass found no memory for its saved states.")
    return grad_w.sum(0), grad_u.sum(0), grad_k, grad_v


@wkv4_backward.register_fake
def _(w: Tensor, u: Tensor, k: Tensor, v: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return torch.empty_like(w), torch.empty_like(u), torch.empty_like(k), torch.empty_like(v)


def _setup(ctx: Any, inputs: tuple, output: tuple) -> None:
    ctx.save_for_backward(*inputs[:4])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad: Tensor | None, grad_state: Tensor | None) -> tuple:
    if grad_state is not None:
        raise InputError("The native wkv4 gives no gradient of its state; use implementation='chunked' for that.")
    return (*wkv4_backward(*ctx.saved_tensors, grad), None) if grad is not None else (None,) * 5


wkv4.register_autograd(_backward, setup_context=_setup)


def _library() -> ctypes.CDLL:
    found = library()
    assert found is not None, "the caller asks `library()` first"
    return found


def _sizes(k: Tensor) -> tuple[ctypes.c_long, ...]:
    return tuple(ctypes.c_long(size) for size in k.shape)
