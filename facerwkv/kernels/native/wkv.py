"""wkv.c as operators for autograd, torch.compile and torch.export: RWKV-4's and Vision-RWKV's weighted key-value."""

from typing import Any

import torch
from torch import Tensor

from facerwkv.kernels.biwkv import IMPLEMENTATIONS as biwkv_forms
from facerwkv.kernels.biwkv import INPUTS as BIWKV
from facerwkv.kernels.calls import gradients_again, like, run_checked
from facerwkv.kernels.native.operators import operator
from facerwkv.kernels.wkv4 import IMPLEMENTATIONS as wkv4_forms
from facerwkv.kernels.wkv4 import INPUTS as WKV4
from facerwkv.kernels.wkv4 import empty_state

Four = tuple[Tensor, Tensor, Tensor, Tensor]


@operator("wkv4", WKV4.line)
def wkv4(w: Tensor, u: Tensor, k: Tensor, v: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
    """float32: w, u (C,), k, v (B, T, C), state (B, 3, C) → y (B, T, C) and the state after the last token."""
    y, state = *like(v), empty_state(k) if state is None else state.clone(memory_format=torch.contiguous_format)
    run_checked("wkv4_forward", k.shape, w, u, k, v, state, y)
    return y, state


@operator("biwkv", BIWKV.line)
def biwkv(w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """float32: w, u (C,), k, v (B, T, C) → y (B, T, C)."""
    (y,) = like(v)
    run_checked("biwkv_forward", k.shape, w, u, k, v, y)
    return y


def _backward(name: str) -> Any:
    """The operator facerwkv::NAME: from w, u, k, v and the gradient (B, T, C) of y, wkv4's from an empty state."""

    def gradients(w: Tensor, u: Tensor, k: Tensor, v: Tensor, grad: Tensor) -> Four:
        grad_w, grad_u = k.new_zeros(2, k.shape[0], k.shape[2])
        grad_k, grad_v = like(k, v)
        run_checked(name, k.shape, w, u, k, v, grad, grad_w, grad_u, grad_k, grad_v)
        return grad_w.sum(0), grad_u.sum(0), grad_k, grad_v

    made = operator(name, f"{BIWKV.line}, grad B T C")(gradients)
    made.register_fake(lambda w, u, k, v, grad: like(w, u, k, v))
    return made


wkv4_backward, biwkv_backward = _backward("wkv4_backward"), _backward("biwkv_backward")


def _setup(ctx: Any, inputs: tuple, output: Any) -> None:
    ctx.save_for_backward(*inputs, *output[1:])
    ctx.set_materialize_grads(False)


def _wkv4_gradients(ctx: Any, grad: Tensor | None, grad_end: Tensor | None) -> tuple:
    *inputs, state, end = ctx.saved_tensors
    if grad is not None and state is None and grad_end is None and not torch.is_grad_enabled():
        return *wkv4_backward(*inputs, grad), None

    def form(*given: Tensor) -> tuple[Tensor, Tensor]:
        """The end's numerator and denominator divided by the e^p that the gradient knows."""
        y, state = wkv4_forms["chunked"](*given, *(None,) * (5 - len(given)))
        return y, state[:, :2] * (state[:, 2:] - end[:, 2:]).exp()

    given = inputs if state is None else [*inputs, state]
    found = gradients_again(form, given, [grad, None if grad_end is None else grad_end[:, :2]])
    return *found, *(None,) * (5 - len(found))


def _biwkv_gradients(ctx: Any, grad: Tensor | None) -> tuple:
    if grad is None:
        return (None,) * 4
    if torch.is_grad_enabled():
        return gradients_again(biwkv_forms["chunked"], ctx.saved_tensors, [grad])
    return tuple(biwkv_backward(*ctx.saved_tensors, grad))


wkv4.register_fake(lambda w, u, k, v, state: (*like(v), k.new_empty(k.shape[0], 3, k.shape[2])))
wkv4.register_autograd(_wkv4_gradients, setup_context=_setup)
biwkv.register_fake(lambda w, u, k, v: like(v)[0])
biwkv.register_autograd(_biwkv_gradients, setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs))
