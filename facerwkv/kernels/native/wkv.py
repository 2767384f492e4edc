"""wkv.c as operators for autograd, torch.compile and torch.export: RWKV-4's and Vision-RWKV's weighted key-value."""

import ctypes
from typing import Any

import torch
from torch import Tensor

from facerwkv.core.errors import InputError
from facerwkv.kernels.native import library, operator, pointer

Four = tuple[Tensor, Tensor, Tensor, Tensor]


@operator("wkv4")
def wkv4(w: Tensor, u: Tensor, k: Tensor, v: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """float32: w, u (C,), k, v (B, T, C), state (B, 3, C) → y (B, T, C) and the state after the last token."""
    y, state = torch.empty(v.shape), state.clone(memory_format=torch.contiguous_format)
    _call("wkv4_forward", k.shape, w, u, k, v, state, y)
    return y, state


@wkv4.register_fake
def _(w: Tensor, u: Tensor, k: Tensor, v: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    return _contiguous(v), _contiguous(state)


@operator("wkv4_backward")
def wkv4_backward(w: Tensor, u: Tensor, k: Tensor, v: Tensor, grad: Tensor) -> Four:
    """The gradients of w, u, k, v for the gradient (B, T, C) of y, from an empty state."""
    return _gradients("wkv4_backward", w, u, k, v, grad)


@operator("biwkv")
def biwkv(w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """float32: w, u (C,), k, v (B, T, C) → y (B, T, C)."""
    y = torch.empty(v.shape)
    _call("biwkv_forward", k.shape, w, u, k, v, y)
    return y


@biwkv.register_fake
def _(w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return _contiguous(v)


@operator("biwkv_backward")
def biwkv_backward(w: Tensor, u: Tensor, k: Tensor, v: Tensor, grad: Tensor) -> Four:
    """The gradients of w, u, k, v for the gradient (B, T, C) of y."""
    return _gradients("biwkv_backward", w, u, k, v, grad)


@wkv4_backward.register_fake
@biwkv_backward.register_fake
def _(w: Tensor, u: Tensor, k: Tensor, v: Tensor, grad: Tensor) -> Four:
    return _contiguous(w), _contiguous(u), _contiguous(k), _contiguous(v)


def _setup(ctx: Any, inputs: tuple, output: Any) -> None:
    ctx.save_for_backward(*inputs[:4])
    ctx.set_materialize_grads(False)


def _wkv4_gradients(ctx: Any, grad: Tensor | None, grad_state: Tensor | None) -> tuple:
    if grad_state is not None:
        raise InputError("The native wkv4 gives no gradient of its state; use implementation='chunked' for that.")
    return (*wkv4_backward(*ctx.saved_tensors, grad), None) if grad is not None else (None,) * 5


def _biwkv_gradients(ctx: Any, grad: Tensor | None) -> tuple:
    return biwkv_backward(*ctx.saved_tensors, grad) if grad is not None else (None,) * 4


wkv4.register_autograd(_wkv4_gradients, setup_context=_setup)
biwkv.register_autograd(_biwkv_gradients, setup_context=_setup)


def _contiguous(like: Tensor) -> Tensor:
    return torch.empty_like(like, memory_format=torch.contiguous_format)


def _gradients(name: str, w: Tensor, u: Tensor, k: Tensor, v: Tensor, grad: Tensor) -> Four:
    grad_w, grad_u = torch.zeros(2, k.shape[0], k.shape[2])
    grad_k, grad_v = torch.empty(k.shape), torch.empty(v.shape)
    _call(name, k.shape, w, u, k, v, grad, grad_w, grad_u, grad_k, grad_v)
    return grad_w.sum(0), grad_u.sum(0), grad_k, grad_v


def _call(name: str, shape: torch.Size, *tensors: Tensor) -> None:
    """Outputs among the tensors are contiguous, so that `contiguous` hands on their own memory."""
    held = [tensor.contiguous() for tensor in tensors]
    if getattr(library(), name)(*(ctypes.c_long(size) for size in shape), *(pointer(tensor) for tensor in held)):
        raise MemoryError(f"{name} found no memory for its saved states.")
