"""toeplitz.c as operators for torch.compile and torch.export.

`toeplitz` is whole; the others are steps that kernels/toeplitz.py joins.
"""

from typing import Any

from torch import Tensor

from facerwkv.kernels.native import like, operator, run_checked


@operator("toeplitz")
def toeplitz(c: Tensor, alpha: Tensor, beta: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """float32, without transforms: weights by lag c, alpha, beta (H, T), k, v (B, T, H, S) → y, sums of e, y / beta."""
    y, total, mean = (k.new_empty(k.shape) for _ in range(3))
    run_checked("toeplitz_forward", k.shape, c, alpha, beta, k, v, y, total, mean)
    return y, total, mean


@operator("toeplitz_backward")
def toeplitz_backward(
    c: Tensor, alpha: Tensor, beta: Tensor, k: Tensor, v: Tensor, total: Tensor, mean: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of c, alpha, beta, k and v."""
    tables = [k.new_zeros(len(k), *c.shape) for _ in range(3)]
    grad_k, grad_v = k.new_empty(k.shape), v.new_empty(v.shape)
    run_checked("toeplitz_backward", k.shape, c, alpha, beta, k, v, total, mean, grad, *tables, grad_k, grad_v)
    grad_c, grad_alpha, grad_beta = (table[0] if len(k) == 1 else table.sum(0) for table in tables)
    return grad_c, grad_alpha, grad_beta, grad_k, grad_v


@operator("toeplitz_product")
def product(c: Tensor, x: Tensor, backwards: bool) -> Tensor:
    """float32: c (H, L), x (H, R, L) → y_t = sum_{u<=t} c[t-u] x_u; backwards, sum_{u>=t} c[u-t] x_u."""
    y = x.new_empty(x.shape)
    run_checked("toeplitz_product", (*x.shape, int(backwards)), c, x, y)
    return y


@operator("toeplitz_weights")
def weights(x: Tensor, grad: Tensor) -> Tensor:
    """float32: x and the gradient of y, (H, R, L) → the gradient of c, (H, L)."""
    grad_c = x.new_empty(x.shape[0], x.shape[2])
    run_checked("toeplitz_weights", x.shape, x, grad, grad_c)
    return grad_c


@operator("toeplitz_enter")
def enter(k: Tensor, v: Tensor, alpha: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """float32: k, v (B, T, H, S), alpha (H, T) → columns (H, B S, length) and sums of e, of k's shape."""
    x, total = _columns(k, length), k.new_empty(k.shape)
    run_checked("toeplitz_enter", (*k.shape, length), k, v, alpha, x, total)
    return x, total


@operator("toeplitz_leave")
def leave(sums: Tensor, total: Tensor, beta: Tensor, shaped: Tensor) -> tuple[Tensor, Tensor]:
    """float32: columns, sums of e, beta (H, T), `shaped` (B, T, H, S) → y and columns / sums, of its shape."""
    y, mean = shaped.new_empty(shaped.shape), shaped.new_empty(shaped.shape)
    run_checked("toeplitz_leave", (*shaped.shape, sums.shape[-1]), sums, total, beta, y, mean)
    return y, mean


@operator("toeplitz_leave_back")
def leave_back(grad: Tensor, total: Tensor, mean: Tensor, beta: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """The gradients of `leave`'s columns, as if the sums of e were constant, and of beta."""
    grad_sums, grad_beta = _columns(grad, length), grad.new_zeros(len(grad), *beta.shape)
    run_checked("toeplitz_leave_back", (*grad.shape, length), grad, total, mean, beta, grad_sums, grad_beta)
    return grad_sums, grad_beta.sum(0)


@operator("toeplitz_enter_back")
def enter_back(
    grad_x: Tensor, grad_sums: Tensor, mean: Tensor, k: Tensor, v: Tensor, alpha: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of k, v and alpha, those through the sums of e included."""
    grad_k, grad_v, grad_alpha = k.new_empty(k.shape), v.new_empty(v.shape), k.new_zeros(len(k), *alpha.shape)
    inputs, grads = (grad_x, grad_sums, mean, k, v, alpha), (grad_k, grad_v, grad_alpha)
    run_checked("toeplitz_enter_back", (*k.shape, grad_x.shape[-1]), *inputs, *grads)
    return grad_k, grad_v, grad_alpha.sum(0)


def _columns(tokens: Tensor, length: int) -> Tensor:
    """Memory for (H, B S, length)."""
    batch, _, heads, size = tokens.shape
    return tokens.new_empty(heads, batch * size, length)


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


toeplitz.register_autograd(lambda ctx, grad, *_: toeplitz_backward(*ctx.saved_tensors, grad), setup_context=_keep)
