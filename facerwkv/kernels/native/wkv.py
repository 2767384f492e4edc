"""wkv.c as operators for autograd, torch.compile and torch.export: RWKV-4's and Vision-RWKV's weighted key-value."""

from typing import Any

import torch
from torch import Tensor

from facerwkv.core.errors import InputError
from facerwkv.kernels.native import like, operator, run_checked

Four = tuple[Tensor, Tensor, Tensor, Tensor]


@operator("wkv4")
def wkv4(w: Tensor, u: Tensor, k: Tensor, v: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """float32: w, u (C,), k, v (B, T, C), state (B, 3, C) → y (B, T, C) and the state after the last token."""
    y, state = torch.empty(v.shape), state.clone(memory_format=torch.contiguous_format)
    run_checked("wkv4_forward", k.shape, w, u, k, v, state, y)
    return y, state


@operator("biwkv")
def biwkv(w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """float32: w, u (C,), k, v (B, T, C) → y (B, T, C)."""
    y = torch.empty(v.shape)
    run_checked("biwkv_forward", k.shape, w, u, k, v, y)
    return y


def _backward(name: str) -> Any:
    """The operator facerwkv::NAME: from w, u, k, v and the gradient (B, T, C) of y, wkv4's from an empty state."""

    def gradients(w: Tensor, u: Tensor, k: Tensor, v: Tensor, grad: Tensor) -> Four:
        grad_w, grad_u = torch.zeros(2, k.shape[0], k.shape[2])
        grad_k, grad_v = torch.empty(k.shape), torch.empty(v.shape)
        run_checked(name, k.shape, w, u, k, v, grad, grad_w, grad_u, grad_k, grad_v)
        return grad_w.sum(0), grad_u.sum(0), grad_k, grad_v

    made = operator(name)(gradients)
    made.register_fake(lambda w, u, k, v, grad: like(w, u, k, v))
    return made


wkv4_backward, biwkv_backward = _backward("wkv4_backward"), _backward("biwkv_backward")


def _setup(ctx: Any, inputs: tuple, output: Any) -> None:
    ctx.save_for_backward(*inputs[:4])
    ctx.set_materialize_grads(False)


def _wkv4_gradients(ctx: Any, grad: Tensor | None, grad_state: Tensor | None) -> tuple:
    if grad_state is not None:
        raise InputError("The native wkv4 gives no gradient of its state; use implementation='chunked' for that.")
    return (*wkv4_backward(*ctx.saved_tensors, grad), None) if grad is not None else (None,) * 5


wkv4.register_fake(lambda w, u, k, v, state: like(v, state))
wkv4.register_autograd(_wkv4_gradients, setup_context=_setup)
biwkv.register_fake(lambda w, u, k, v: like(v)[0])
biwkv.register_autograd(
    lambda ctx, grad: biwkv_backward(*ctx.saved_tensors, grad) if grad is not None else (None,) * 4,
    setup_context=_setup,
)
