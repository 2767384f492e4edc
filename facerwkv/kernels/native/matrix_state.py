"""matrix_state.c as operators for autograd, torch.compile and torch.export: wkv6 and wkv7, with their gradients."""

import torch
from torch import Tensor

from facerwkv.kernels.native import differentiate, like, operator, run, run_checked


@operator("wkv6")
def wkv6(r: Tensor, k: Tensor, v: Tensor, w: Tensor, u: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """float32: r, k, v, log decays w (B, T, H, N), u (H, N), state (B, H, N, N) → y and the state after them."""
    return _forward("wkv6", [r, k, v, w.exp(), u], state)


@operator("wkv7")
def wkv7(r: Tensor, w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """float32: r, log decays w, k, v, a, b (B, T, H, N), state (B, H, N, N) → y and the state after them."""
    return _forward("wkv7", [r, w.exp(), k, v, a, b], state)


def _forward(name: str, inputs: list[Tensor], state: Tensor) -> tuple[Tensor, Tensor]:
    y, state = torch.empty(inputs[0].shape), state.clone(memory_format=torch.contiguous_format)
    run(f"{name}_forward", y.shape, [*(x.contiguous() for x in inputs), state, y])
    return y, state


@operator("wkv6_backward")
def wkv6_backward(
    r: Tensor, k: Tensor, v: Tensor, w: Tensor, u: Tensor, state: Tensor, grad: Tensor, grad_state: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of wkv6's inputs, in their order."""
    grad_r, grad_k, grad_v, grad_w = (torch.empty(r.shape) for _ in range(4))
    grad_u, grad_state = r.new_zeros(r.shape[0], *u.shape), grad_state.clone(memory_format=torch.contiguous_format)
    outputs = grad_state, grad_r, grad_k, grad_v, grad_w, grad_u
    run_checked("wkv6_backward", r.shape, r, k, v, w.exp(), u, state, grad, *outputs)
    return grad_r, grad_k, grad_v, grad_w, grad_u.sum(0), grad_state


@operator("wkv7_backward")
def wkv7_backward(
    r: Tensor, w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, state: Tensor, grad: Tensor, grad_state: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of wkv7's inputs, in their order."""
    grad_r, grad_w, grad_k, grad_v, grad_a, grad_b = (torch.empty(r.shape) for _ in range(6))
    grad_state = grad_state.clone(memory_format=torch.contiguous_format)
    outputs = grad_state, grad_r, grad_w, grad_k, grad_v, grad_a, grad_b
    run_checked("wkv7_backward", r.shape, r, w.exp(), k, v, a, b, state, grad, *outputs)
    return grad_r, grad_w, grad_k, grad_v, grad_a, grad_b, grad_state


for _operator, _backward in ((wkv6, wkv6_backward), (wkv7, wkv7_backward)):
    _operator.register_fake(lambda *inputs: like(inputs[0], inputs[-1]))
    _backward.register_fake(lambda *inputs: like(*inputs[:-2]))
    differentiate(_operator, _backward)
