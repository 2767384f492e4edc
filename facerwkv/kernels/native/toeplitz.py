"""toeplitz.c as operators for torch.compile and torch.export.

`toeplitz` is whole; the others are steps that kernels/toeplitz.py joins.
"""

import ctypes
from typing import Any

import torch
from torch import Tensor

from facerwkv.kernels.native import library, pointer


@torch.library.custom_op("facerwkv::toeplitz", mutates_args=(), device_types="cpu")
def toeplitz(c: Tensor, alpha: Tensor, beta: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """float32, without transforms: weights by lag c, alpha, beta (H, T), k, v (B, T, H, S) → y, sums of e, y / beta."""
    outputs = [k.new_empty(k.shape) for _ in range(3)]
    _call("toeplitz_forward", k.shape, (c, alpha, beta, k, v, *outputs))
    y, total, mean = outputs
    return y, total, mean


@torch.library.custom_op("facerwkv::toeplitz_backward", mutates_args=(), device_types="cpu")
def toeplitz_backward(
    c: Tensor, alpha: Tensor, beta: Tensor, k: Tensor, v: Tensor, total: Tensor, mean: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of c, alpha, beta, k and v."""
    tables = [k.new_zeros(len(k), *c.shape) for _ in range(3)]
    grad_k, grad_v = k.new_empty(k.shape), v.new_empty(v.shape)
    _call("toeplitz_backward", k.shape, (c, alpha, beta, k, v, total, mean, grad, *tables, grad_k, grad_v))
    grad_c, grad_alpha, grad_beta = (table[0] if len(k) == 1 else table.sum(0) for table in tables)
    return grad_c, grad_alpha, grad_beta, grad_k, grad_v


@torch.library.custom_op("facerwkv::toeplitz_product", mutates_args=(), device_types="cpu")
def product(c: Tensor, x: Tensor, backwards: bool) -> Tensor:
    """float32: c (H, L), x (H, R, L) → y_t = sum_{u<=t} c[t-u] x_u; backwards, sum_{u>=t} c[u-t] x_u."""
    y = x.new_empty(x.shape)
    _call("toeplitz_product", (*x.shape, int(backwards)), (c, x, y))
    return y


@torch.library.custom_op("facerwkv::toeplitz_weights", mutates_args=(), device_types="cpu")
def weights(x: Tensor, grad: Tensor) -> Tensor:
    """float32: x and the gradient of y, (H, R, L) → the gradient of c, (H, L)."""
    grad_c = x.new_empty(x.shape[0], x.shape[2])
    _call("toeplitz_weights", x.shape, (x, grad, grad_c))
    return grad_c


@torch.library.custom_op("facerwkv::toeplitz_enter", mutates_args=(), device_types="cpu")
def enter(k: Tensor, v: Tensor, alpha: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """float32: k, v (B, T, H, S), alpha (H, T) → columns (H, B S, length) and sums of e, of k's shape."""
    x, total = _columns(k, length), k.new_empty(k.shape)
    _call("toeplitz_enter", (*k.shape, length), (k, v, alpha, x, total))
    return x, total


@torch.library.custom_op("facerwkv::toeplitz_leave", mutates_args=(), device_types="cpu")
def leave(sums: Tensor, total: Tensor, beta: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """float32: columns, sums of e, beta (H, T), `like` (B, T, H, S) → y and the columns over the sums, of its shape."""
    y, mean = like.new_empty(like.shape), like.new_empty(like.shape)
    _call("toeplitz_leave", (*like.shape, sums.shape[-1]), (sums, total, beta, y, mean))
    return y, mean


@torch.library.custom_op("facerwkv::toeplitz_leave_back", mutates_args=(), device_types="cpu")
def leave_back(grad: Tensor, total: Tensor, mean: Tensor, beta: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """The gradients of `leave`'s columns, as if the sums of e were constant, and of beta."""
    grad_sums, grad_beta = _columns(grad, length), grad.new_zeros(len(grad), *beta.shape)
    _call("toeplitz_leave_back", (*grad.shape, length), (grad, total, mean, beta, grad_sums, grad_beta))
    return grad_sums, grad_beta.sum(0)


@torch.library.custom_op("facerwkv::toeplitz_enter_back", mutates_args=(), device_types="cpu")
def enter_back(
    grad_x: Tensor, grad_sums: Tensor, mean: Tensor, k: Tensor, v: Tensor, alpha: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of k, v and alpha, those through the sums of e included."""
    grad_k, grad_v, grad_alpha = k.new_empty(k.shape), v.new_empty(v.shape), k.new_zeros(len(k), *alpha.shape)
    tensors = (grad_x, grad_sums, mean, k, v, alpha, grad_k, grad_v, grad_alpha)
    _call("toeplitz_enter_back", (*k.shape, grad_x.shape[-1]), tensors)
    return grad_k, grad_v, grad_alpha.sum(0)


@toeplitz.register_fake
def _(c: Tensor, alpha: Tensor, beta: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return k.new_empty(k.shape), k.new_empty(k.shape), k.new_empty(k.shape)


@toeplitz_backward.register_fake
def _(
    c: Tensor, alpha: Tensor, beta: Tensor, k: Tensor, v: Tensor, total: Tensor, mean: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    tables = (c.new_empty(c.shape) for _ in range(3))
    grad_c, grad_alpha, grad_beta = tables
    return grad_c, grad_alpha, grad_beta, k.new_empty(k.shape), v.new_empty(v.shape)


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs, *output[1:])
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad: Tensor, *_: None) -> tuple[Tensor, ...]:
    return toeplitz_backward(*ctx.saved_tensors, grad)


toeplitz.register_autograd(_backward, setup_context=_keep)


@product.register_fake
def _(c: Tensor, x: Tensor, backwards: bool) -> Tensor:
    return x.new_empty(x.shape)


@weights.register_fake
def _(x: Tensor, grad: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], x.shape[2])


@enter.register_fake
def _(k: Tensor, v: Tensor, alpha: Tensor, length: int) -> tuple[Tensor, Tensor]:
    return _columns(k, length), k.new_empty(k.shape)


@leave.register_fake
def _(sums: Tensor, total: Tensor, beta: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    return like.new_empty(like.shape), like.new_empty(like.shape)


@leave_back.register_fake
def _(grad: Tensor, total: Tensor, mean: Tensor, beta: Tensor, length: int) -> tuple[Tensor, Tensor]:
    return _columns(grad, length), beta.new_empty(beta.shape)


@enter_back.register_fake
def _(
    grad_x: Tensor, grad_sums: Tensor, mean: Tensor, k: Tensor, v: Tensor, alpha: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return k.new_empty(k.shape), v.new_empty(v.shape), alpha.new_empty(alpha.shape)


def _columns(tokens: Tensor, length: int) -> Tensor:
    """Room for (H, B S, length)."""
    batch, _, heads, size = tokens.shape
    return tokens.new_empty(heads, batch * size, length)


def _call(name: str, numbers: tuple[int, ...], tensors: tuple[Tensor, ...]) -> None:
    tensors = tuple(tensor.contiguous() for tensor in tensors)  # outputs are, so they stay themselves
    if getattr(library(), name)(*map(ctypes.c_long, numbers), *map(pointer, tensors)):
        raise MemoryError(f"{name} found no memory for its rows.")
