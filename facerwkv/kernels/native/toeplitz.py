"""toeplitz.c as operators for torch.compile and torch.export.

`toeplitz` is whole; the others are steps that kernels/toeplitz.py joins.
"""

from typing import Any

import torch
from torch import Tensor

from facerwkv.core.errors import InputError
from facerwkv.kernels.calls import gradients_again, like, run_checked
from facerwkv.kernels.native.operators import operator
from facerwkv.kernels.toeplitz import IMPLEMENTATIONS as FORMS

SHAPES = "c H T, alpha H T, beta H T, k B T H S, v B T H S"


@operator("toeplitz", SHAPES)
def toeplitz(c: Tensor, alpha: Tensor, beta: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """float32, without transforms: weights by lag c, alpha, beta (H, T), k, v (B, T, H, S) → y, sums of e, y / beta."""
    y, total, mean = like(k, k, k)
    run_checked("toeplitz_forward", k.shape, c, alpha, beta, k, v, y, total, mean)
    return y, total, mean


@operator(
    "toeplitz_backward", "c H T, alpha H T, beta H T, k B T H S, v B T H S, total B T H S, mean B T H S, grad B T H S"
)
def toeplitz_backward(
    c: Tensor, alpha: Tensor, beta: Tensor, k: Tensor, v: Tensor, total: Tensor, mean: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of c, alpha, beta, k and v."""
    tables = [k.new_zeros(len(k), *c.shape) for _ in range(3)]
    grad_k, grad_v = like(k, v)
    run_checked("toeplitz_backward", k.shape, c, alpha, beta, k, v, total, mean, grad, *tables, grad_k, grad_v)
    grad_c, grad_alpha, grad_beta = (table[0] if len(k) == 1 else table.sum(0) for table in tables)
    return grad_c, grad_alpha, grad_beta, grad_k, grad_v


@operator("toeplitz_product", "c H L, x H R L")
def product(c: Tensor, x: Tensor, backwards: bool) -> Tensor:
    """float32: c (H, L), x (H, R, L) → y_t = sum_{u<=t} c[t-u] x_u; backwards, sum_{u>=t} c[u-t] x_u."""
    (y,) = like(x)
    run_checked("toeplitz_product", (*x.shape, int(backwards)), c, x, y)
    return y


@operator("toeplitz_weights", "x H R L, grad H R L")
def weights(x: Tensor, grad: Tensor) -> Tensor:
    """float32: x and the gradient of y, (H, R, L) → the gradient of c, (H, L)."""
    grad_c = x.new_empty(x.shape[0], x.shape[2])
    run_checked("toeplitz_weights", x.shape, x, grad, grad_c)
    return grad_c


@operator("toeplitz_enter", "k B T H S, v B T H S, alpha H T")
def enter(k: Tensor, v: Tensor, alpha: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """float32: k, v (B, T, H, S), alpha (H, T) → columns (H, B S, length) and sums of e, of k's shape."""
    x, total = _columns(k, length), *like(k)
    run_checked("toeplitz_enter", (*k.shape, length), k, v, alpha, x, total)
    return x, total


@operator("toeplitz_leave", "sums H R P, total B T H S, beta H T, shaped B T H S")
def leave(sums: Tensor, total: Tensor, beta: Tensor, shaped: Tensor) -> tuple[Tensor, Tensor]:
    """float32: columns, sums of e, beta (H, T), `shaped` (B, T, H, S) → y and columns / sums, of its shape."""
    _require_columns(shaped, sums)
    y, mean = like(shaped, shaped)
    run_checked("toeplitz_leave", (*shaped.shape, sums.shape[-1]), sums, total, beta, y, mean)
    return y, mean


@operator("toeplitz_leave_back", "grad B T H S, total B T H S, mean B T H S, beta H T")
def leave_back(grad: Tensor, total: Tensor, mean: Tensor, beta: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """The gradients of `leave`'s columns, as if the sums of e were constant, and of beta."""
    grad_sums, grad_beta = _columns(grad, length), grad.new_zeros(len(grad), *beta.shape)
    run_checked("toeplitz_leave_back", (*grad.shape, length), grad, total, mean, beta, grad_sums, grad_beta)
    return grad_sums, grad_beta.sum(0)


@operator("toeplitz_enter_back", "grad_x H R P, grad_sums H R P, mean B T H S, k B T H S, v B T H S, alpha H T")
def enter_back(
    grad_x: Tensor, grad_sums: Tensor, mean: Tensor, k: Tensor, v: Tensor, alpha: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of k, v and alpha, those through the sums of e included."""
    _require_columns(k, grad_x)
    grad_k, grad_v, grad_alpha = *like(k, v), k.new_zeros(len(k), *alpha.shape)
    inputs, grads = (grad_x, grad_sums, mean, k, v, alpha), (grad_k, grad_v, grad_alpha)
    run_checked("toeplitz_enter_back", (*k.shape, grad_x.shape[-1]), *inputs, *grads)
    return grad_k, grad_v, grad_alpha.sum(0)


def _columns(tokens: Tensor, length: int) -> Tensor:
    """Memory for (H, B S, length)."""
    batch, _, heads, size = tokens.shape
    columns = tokens.new_empty(heads, batch * size, length)
    _require_columns(tokens, columns)
    return columns


def _require_columns(tokens: Tensor, columns: Tensor) -> None:
    """InputError unless columns (H, B S, P) with P >= T belong to tokens (B, T, H, S)."""
    batch, length, heads, size = tokens.shape
    if columns.shape[:2] != (heads, batch * size) or columns.shape[2] < length:
        raise InputError(f"Columns {tuple(columns.shape)} do not belong to tokens {tuple(tokens.shape)}.")


toeplitz.register_fake(lambda c, alpha, beta, k, v: like(k, k, k))
toeplitz_backward.register_fake(lambda c, alpha, beta, k, v, total, mean, grad: like(c, c, c, k, v))
product.register_fake(lambda c, x, backwards: like(x)[0])
weights.register_fake(lambda x, grad: x.new_empty(x.shape[0], x.shape[2]))
enter.register_fake(lambda k, v, alpha, length: (_columns(k, length), *like(k)))
leave.register_fake(lambda sums, total, beta, shaped: like(shaped, shaped))
leave_back.register_fake(lambda grad, total, mean, beta, length: (_columns(grad, length), *like(beta)))
enter_back.register_fake(lambda grad_x, grad_sums, mean, k, v, alpha: like(k, v, alpha))


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs, *output[1:])
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, grad: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * 5
    if torch.is_grad_enabled():
        return gradients_again(lambda c, *others: FORMS["reference"](c.flip(1), *others), ctx.saved_tensors[:5], [grad])
    return toeplitz_backward(*ctx.saved_tensors, grad)


toeplitz.register_autograd(_gradients, setup_context=_keep)
