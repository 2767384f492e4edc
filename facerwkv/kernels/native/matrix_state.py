"""matrix_state.c as operators for autograd, torch.compile and torch.export: wkv6 and wkv7, with their gradients."""

import ctypes
from typing import Any

import torch
from torch import Tensor

from facerwkv.kernels.native import library, operator, pointer


@operator("wkv6")
def wkv6(r: Tensor, k: Tensor, v: Tensor, w: Tensor, u: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """float32: r, k, v, log decays w (B, T, H, N), u (H, N), state (B, H, N, N) → y and the state after them."""
    return _forward("wkv6", [r, k, v, w.exp(), u], state)


@operator("wkv7")
def wkv7(r: Tensor, w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """float32: r, log decays w, k, v, a, b (B, T, H, N), state (B, H, N, N) → y and the state after them."""
    return _forward("wkv7", [r, w.exp(), k, v, a, b], state)


@operator("wkv6_backward")
def wkv6_backward(
    r: Tensor, k: Tensor, v: Tensor, w: Tensor, u: Tensor, state: Tensor, grad: Tensor, grad_state: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of wkv6's inputs, in their order."""
    grads = [*(torch.empty(r.shape) for _ in range(4)), r.new_zeros(r.shape[0], *u.shape)]
    grad_state = _backward("wkv6", [r, k, v, w.exp(), u, state, grad], grad_state, grads)
    grad_r, grad_k, grad_v, grad_w, grad_u = grads
    return grad_r, grad_k, grad_v, grad_w, grad_u.sum(0), grad_state


@operator("wkv7_backward")
def wkv7_backward(
    r: Tensor, w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, state: Tensor, grad: Tensor, grad_state: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of wkv7's inputs, in their order."""
    grads = [torch.empty(r.shape) for _ in range(6)]
    grad_state = _backward("wkv7", [r, w.exp(), k, v, a, b, state, grad], grad_state, grads)
    grad_r, grad_w, grad_k, grad_v, grad_a, grad_b = grads
    return grad_r, grad_w, grad_k, grad_v, grad_a, grad_b, grad_state


def _forward(name: str, inputs: list[Tensor], state: Tensor) -> tuple[Tensor, Tensor]:
    y, state = torch.empty(inputs[0].shape), state.clone(memory_format=torch.contiguous_format)
    _call(f"{name}_forward", [x.contiguous() for x in inputs] + [state, y])
    return y, state


def _backward(name: str, inputs: list[Tensor], grad_state: Tensor, grads: list[Tensor]) -> Tensor:
    grad_state = grad_state.clone(memory_format=torch.contiguous_format)
    if _call(f"{name}_backward", [*(x.contiguous() for x in inputs), grad_state, *grads]):
        raise MemoryError(f"{name}'s backward pass found no memory for its saved states.")
    return grad_state


def _call(name: str, tensors: list[Tensor]) -> int:
    sizes = (ctypes.c_long(size) for size in tensors[0].shape)
    return getattr(library(), name)(*sizes, *(pointer(x) for x in tensors))


def _like(*inputs: Tensor) -> tuple[Tensor, ...]:
    return tuple(torch.empty_like(x, memory_format=torch.contiguous_format) for x in inputs)


def _register(operator: Any, backward: Any) -> None:
    operator.register_fake(lambda *inputs: _like(inputs[0], inputs[-1]))
    backward.register_fake(lambda *inputs: _like(*inputs[:-2]))
    operator.register_autograd(
        lambda ctx, *grads: backward(*ctx.saved_tensors, *grads),
        setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs),
    )


_register(wkv6, wkv6_backward)
_register(wkv7, wkv7_backward)
