"""toeplitz.c as operators for torch.compile and torch.export; kernels/toeplitz.py joins them for autograd."""

import ctypes

import torch
from torch import Tensor

from facerwkv.kernels.native import library, pointer


@torch.library.custom_op("facerwkv::toeplitz_product", mutates_args=(), device_types="cpu")
def product(c: Tensor, x: Tensor, backwards: bool) -> Tensor:
    """float32: c (H, L), x (H, R, L) → y_t = sum_{u<=t} c[t-u] x_u; backwards, sum_{u>=t} c[u-t] x_u."""
    c, x = c if c.stride(-1) == 1 else c.contiguous(), x.contiguous()
    y = torch.empty_like(x)
    _call("toeplitz_product", (*x.shape, c.stride(0), int(backwards)), (c, x, y))
    return y


@torch.library.custom_op("facerwkv::toeplitz_weights", mutates_args=(), device_types="cpu")
def weights(x: Tensor, grad: Tensor) -> Tensor:
    """float32: x and the gradient of y, (H, R, L) → the gradient of c, (H, L)."""
    x, grad = x.contiguous(), grad.contiguous()
    grad_c = x.new_empty(x.shape[0], x.shape[2])
    _call("toeplitz_weights", tuple(x.shape), (x, grad, grad_c))
    return grad_c


@product.register_fake
def _(c: Tensor, x: Tensor, backwards: bool) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@weights.register_fake
def _(x: Tensor, grad: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], x.shape[2])


def _call(name: str, numbers: tuple[int, ...], tensors: tuple[Tensor, ...]) -> None:
    if getattr(library(), name)(*map(ctypes.c_long, numbers), *map(pointer, tensors)):
        raise MemoryError(f"{name} found no memory for its rows.")
