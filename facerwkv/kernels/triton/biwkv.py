"""Bidirectional WKV in Triton as one operator for autograd, torch.compile and torch.export.

The formula is in kernels/biwkv.py.
"""

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


def biwkv(w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """w, of any sign, and u (C,), k, v (B, T, C), float32 or less → y in v's dtype.

    The caller checks shapes, and what `facerwkv.kernels.triton.check` checks. Every input has its gradient.
    """
    return operator(w.float(), u.float(), k, v)[0]


@torch.library.custom_op("facerwkv::biwkv_triton", mutates_args=())
def operator(w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """y, and the sums (B, N, 4, C) before and after each block, which the gradients need."""
    w, u, k, v = (x.contiguous() for x in (w, u, k, v))
    y, past, future = torch.empty_like(v), block_sums(k, 4), block_sums(k, 4)
    rows, first = past.shape[0] * past.shape[1], empty_sums(k, 4)
    launch(summarise, rows, k, w, k, v, past, future, BOTH=True)
    launch(carry, k.shape[0], k, w, past, first, torch.empty_like(first), PARTS=4, REVERSE=False)
    launch(carry, k.shape[0], k, w, future, first, torch.empty_like(first), PARTS=4, REVERSE=True)
    launch(average, rows, k, w, u, k, v, past, future, y, BOTH=True)
    return y, past, future


@torch.library.custom_op("facerwkv::biwkv_triton_backward", mutates_args=())
def backward(
    w: Tensor, u: Tensor, k: Tensor, v: Tensor, past: Tensor, future: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of w, u, k and v for the gradient (B, T, C) of y."""
    w, u, k, v, past, future, grad = (x.contiguous() for x in (w, u, k, v, past, future, grad))
    later, earlier, first = block_sums(k, 6), block_sums(k, 6), empty_sums(k, 6)
    rows = past.shape[0] * past.shape[1]
    grad_w, grad_u = past.new_empty(2, *past.shape[:2], past.shape[3])
    gradients = (grad_w, grad_u, torch.empty_like(k), torch.empty_like(v))
    launch(summarise_gradients, rows, k, w, u, k, v, past, future, grad, later, earlier, BOTH=True)
    launch(carry, k.shape[0], k, w, later, first, torch.empty_like(first), PARTS=6, REVERSE=True)
    launch(carry, k.shape[0], k, w, earlier, first, torch.empty_like(first), PARTS=6, REVERSE=False)
    launch(differentiate, rows, k, w, u, k, v, past, future, grad, later, earlier, *gradients, BOTH=True)
    return grad_w.sum((0, 1)), grad_u.sum((0, 1)), *gradients[2:]


def _setup(ctx: Any, inputs: tuple, output: tuple) -> None:
    ctx.save_for_backward(*inputs, *output[1:])
    ctx.set_materialize_grads(False)


operator.register_fake(lambda w, u, k, v: (*like(v), block_sums(k, 4), block_sums(k, 4)))
backward.register_fake(lambda w, u, k, v, past, future, grad: like(w, u, k, v))
operator.register_autograd(
    lambda ctx, grad, *_: backward(*ctx.saved_tensors, grad) if grad is not None else (None,) * 4,
    setup_context=_setup,
)
