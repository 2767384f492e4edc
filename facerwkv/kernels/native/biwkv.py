"""biwkv.c as one operator for autograd, torch.compile and torch.export."""

import ctypes
from typing import Any

import torch
from torch import Tensor

from facerwkv.kernels.native import library, pointer


@torch.library.custom_op("facerwkv::biwkv", mutates_args=(), device_types="cpu")
def biwkv(w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """float32: w, u (C,), k, v (B, T, C) → y (B, T, C)."""
    y = torch.empty(v.shape)
    _call("biwkv_forward", k.shape, w, u, k, v, y)
    return y


@biwkv.register_fake
def _(w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.empty_like(v, memory_format=torch.contiguous_format)


@torch.library.custom_op("facerwkv::biwkv_backward", mutates_args=(), device_types="cpu")
def biwkv_backward(w: Tensor, u: Tensor, k: Tensor, v: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of w, u, k, v for the gradient (B, T, C) of y."""
    grad_w, grad_u = torch.zeros(2, k.shape[0], k.shape[2])
    grad_k, grad_v = torch.empty(k.shape), torch.empty(v.shape)
    _call("biwkv_backward", k.shape, w, u, k, v, grad, grad_w, grad_u, grad_k, grad_v)
    return grad_w.sum(0), grad_u.sum(0), grad_k, grad_v


@biwkv_backward.register_fake
def _(w: Tensor, u: Tensor, k: Tensor, v: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return tuple(torch.empty_like(x, memory_format=torch.contiguous_format) for x in (w, u, k, v))  # type: ignore


def _setup(ctx: Any, inputs: tuple, output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return biwkv_backward(*ctx.saved_tensors, grad)


biwkv.register_autograd(_backward, setup_context=_setup)


def _call(name: str, shape: torch.Size, *tensors: Tensor) -> None:
    """Outputs among the tensors are contiguous, so that `contiguous` hands on their own memory."""
    held = [tensor.contiguous() for tensor in tensors]
    if getattr(library(), name)(*(ctypes.c_long(size) for size in shape), *(pointer(tensor) for tensor in held)):
        raise MemoryError(f"{name} found no memory for its saved states.")
