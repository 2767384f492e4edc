"""WKV-4 in Triton, one operator for autograd, torch.compile and torch.export; the formula is in kernels/wkv4.py."""

from typing import Any

import torch
from torch import Tensor

from facerwkv.kernels.calls import like
from facerwkv.kernels.triton.sums import (
    average,
    block_sums,
    carry,
    differentiate,
    empty_sums,
    launch,
    summarise,
    summarise_gradients,
)


def wkv4(w: Tensor, u: Tensor, k: Tensor, v: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """w, u (C,), k, v (B, T, C), float32 or less, state (B, 3, C) → y in v's dtype, the state after in float32.

    The caller checks shapes, and what `facerwkv.kernels.triton.check` checks. Every input has its gradient; that of a
    state is right for functions of what it stands for, a e^p and b e^p, as a later call's outputs are.
    """
    y, end, _ = operator(w.float(), u.float(), k, v, state.float())
    return y, end


@torch.library.custom_op("facerwkv::wkv4_triton", mutates_args=())
def operator(w: Tensor, u: Tensor, k: Tensor, v: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """y, the state after the last token, and the sums (B, N, 4, C) before each block, which the gradients need."""
    w, u, k, v, state = (x.contiguous() for x in (w, u, k, v, state))
    y, past = torch.empty_like(v), block_sums(k, 4)
    first = torch.cat([state, torch.zeros_like(state[:, :1])], 1)
    last, rows = torch.empty_like(first), past.shape[0] * past.shape[1]
    launch(summarise, rows, k, w, k, v, past, past, BOTH=False)
    launch(carry, k.shape[0], k, w, past, first, last, PARTS=4, REVERSE=False)
    launch(average, rows, k, w, u, k, v, past, past, y, BOTH=False)
    last[:, 2] -= last[:, 3] * w
    return y, last[:, :3].contiguous(), past


@torch.library.custom_op("facerwkv::wkv4_triton_backward", mutates_args=())
def backward(
    w: Tensor, u: Tensor, k: Tensor, v: Tensor, past: Tensor, grad: Tensor, first: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of w, u, k and v, and the sums (B, 6, C) of gradients that the state reads.

    grad (B, T, C) is y's gradient; first (B, 6, C) the sums that what follows the last token adds.
    """
    w, u, k, v, past, grad, first = (x.contiguous() for x in (w, u, k, v, past, grad, first))
    later, last, rows = block_sums(k, 6), torch.empty_like(first), past.shape[0] * past.shape[1]
    grad_w, grad_u = past.new_empty(2, *past.shape[:2], past.shape[3])
    grad_k, grad_v = torch.empty_like(k), torch.empty_like(v)
    launch(summarise_gradients, rows, k, w, u, k, v, past, past, grad, later, later, BOTH=False)
    launch(carry, k.shape[0], k, w, later, first, last, PARTS=6, REVERSE=True)
    gradients = (grad_w, grad_u, grad_k, grad_v)
    launch(differentiate, rows, k, w, u, k, v, past, past, grad, later, later, *gradients, BOTH=False)
    return grad_w.sum((0, 1)), grad_u.sum((0, 1)), grad_k, grad_v, last


def _setup(ctx: Any, inputs: tuple, output: tuple) -> None:
    ctx.save_for_backward(*inputs, output[1], output[2])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad: Tensor | None, grad_end: Tensor | None, _: None) -> tuple:
    w, u, k, v, state, end, past = ctx.saved_tensors
    if grad is None and grad_end is None:
        return (None,) * 5
    grad = torch.zeros_like(v) if grad is None else grad
    first = empty_sums(k, 6)
    if grad_end is not None:  # that of a token after the last one, whose weights are 1 / e^p
        first[:, 0], first[:, 1] = grad_end[:, 0], -grad_end[:, 1]
        first[:, 2] = torch.where((grad_end[:, :2] != 0).any(1), -end[:, 2], -1e38)
    grad_w, grad_u, grad_k, grad_v, last = backward(w, u, k, v, past, grad, first)
    a, b, p = state.unbind(1)
    late_a, late_b, top, lag, slope_a, slope_b = last.unbind(1)
    weight = ((p + top) - lag * w).exp()
    grad_a, grad_b = weight * late_a, -weight * late_b
    grad_w = grad_w - (weight * (a * slope_a - b * slope_b)).sum(0)
    return grad_w, grad_u, grad_k, grad_v, torch.stack([grad_a, grad_b, a * grad_a + b * grad_b], 1)


operator.register_fake(lambda w, u, k, v, state: (*like(v, state), block_sums(k, 4)))
backward.register_fake(lambda w, u, k, v, past, grad, first: like(w, u, k, v, first))
operator.register_autograd(_backward, setup_context=_setup)
