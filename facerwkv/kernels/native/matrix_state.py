"""matrix_state.c as operators for autograd, torch.compile and torch.export: wkv6 and wkv7, with their gradients."""

import torch
from torch import Tensor

from facerwkv.kernels.calls import like, require, run, run_checked
from facerwkv.kernels.chunks import heads_refusal
from facerwkv.kernels.native.operators import differentiate, operator
from facerwkv.kernels.wkv6 import IMPLEMENTATIONS as wkv6_forms
from facerwkv.kernels.wkv7 import IMPLEMENTATIONS as wkv7_forms

SIX = "r B T H N, k B T H N, v B T H N, w B T H N, u H N, state B H N N"
SEVEN = "r B T H N, w B T H N, k B T H N, v B T H N, a B T H N, b B T H N, state B H N N"
GRADS = "grad B T H N, grad_state B H N N"


@operator("wkv6", SIX)
def wkv6(r: Tensor, k: Tensor, v: Tensor, w: Tensor, u: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """float32: r, k, v, log decays w (B, T, H, N), u (H, N), state (B, H, N, N) → y and the state after them."""
    return _forward("wkv6", [r, k, v, w.exp(), u], state)


@operator("wkv7", SEVEN)
def wkv7(r: Tensor, w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """float32: r, log decays w, k, v, a, b (B, T, H, N), state (B, H, N, N) → y and the state after them."""
    return _forward("wkv7", [r, w.exp(), k, v, a, b], state)


def _forward(name: str, inputs: list[Tensor], state: Tensor) -> tuple[Tensor, Tensor]:
    require(heads_refusal(inputs[0]), "chunked")
    y, state = inputs[0].new_empty(inputs[0].shape), state.clone(memory_format=torch.contiguous_format)
    run(f"{name}_forward", y.shape, [*(x.contiguous() for x in inputs), state, y])
    return y, state


@operator("wkv6_backward", f"{SIX}, {GRADS}")
def wkv6_backward(
    r: Tensor, k: Tensor, v: Tensor, w: Tensor, u: Tensor, state: Tensor, grad: Tensor, grad_state: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of wkv6's inputs, in their order."""
    require(heads_refusal(r), "chunked")
    grad_r, grad_k, grad_v, grad_w = like(r, k, v, w)
    grad_u, grad_state = r.new_zeros(r.shape[0], *u.shape), grad_state.clone(memory_format=torch.contiguous_format)
    outputs = grad_state, grad_r, grad_k, grad_v, grad_w, grad_u
    run_checked("wkv6_backward", r.shape, r, k, v, w.exp(), u, state, grad, *outputs)
    return grad_r, grad_k, grad_v, grad_w, grad_u.sum(0), grad_state


@operator("wkv7_backward", f"{SEVEN}, {GRADS}")
def wkv7_backward(
    r: Tensor, w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, state: Tensor, grad: Tensor, grad_state: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of wkv7's inputs, in their order."""
    require(heads_refusal(r), "chunked")
    grad_r, grad_w, grad_k, grad_v, grad_a, grad_b = like(r, w, k, v, a, b)
    grad_state = grad_state.clone(memory_format=torch.contiguous_format)
    outputs = grad_state, grad_r, grad_w, grad_k, grad_v, grad_a, grad_b
    run_checked("wkv7_backward", r.shape, r, w.exp(), k, v, a, b, state, grad, *outputs)
    return grad_r, grad_w, grad_k, grad_v, grad_a, grad_b, grad_state


for _operator, _backward, _form in ((wkv6, wkv6_backward, wkv6_forms), (wkv7, wkv7_backward, wkv7_forms)):
    _operator.register_fake(lambda *inputs: like(inputs[0], inputs[-1]))
    _backward.register_fake(lambda *inputs: like(*inputs[:-2]))
    differentiate(_operator, _backward, _form["chunked"])
