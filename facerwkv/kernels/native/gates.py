"""gates.c as operators for autograd, torch.compile and torch.export."""

import ctypes
import math
from typing import Any

import torch
from torch import Tensor

from facerwkv.kernels.native import library, operator, pointer

SPARE = 1024  # numbers, a page


@operator("mish_gate")
def mish_gate(k: Tensor, v: Tensor) -> Tensor:
    """float32: k, v (..., F) → mish(k) v."""
    return _gate("mish_gate_forward", k, v)


@operator("mish_gate_backward")
def mish_gate_backward(k: Tensor, v: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of k and v."""
    grad_k, grad_v = _gate_backward("mish_gate_backward", grad, k, v)
    return grad_k, grad_v


@operator("sigmoid_gate")
def sigmoid_gate(r: Tensor, x: Tensor) -> Tensor:
    """float32: r, x (..., F) → sigmoid(r) x."""
    return _gate("sigmoid_gate_forward", r, x)


@operator("sigmoid_gate_backward")
def sigmoid_gate_backward(r: Tensor, x: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of r and x."""
    grad_r, grad_x = _gate_backward("sigmoid_gate_backward", grad, r, x)
    return grad_r, grad_x


@operator("squared_relu")
def squared_relu(k: Tensor) -> Tensor:
    """float32: k (..., F) → relu(k)^2."""
    return _gate("squared_relu_forward", k)


@operator("squared_relu_backward")
def squared_relu_backward(k: Tensor, grad: Tensor) -> Tensor:
    """The gradient of k."""
    return _gate_backward("squared_relu_backward", grad, k)[0]


@operator("token_mix")
def token_mix(x: Tensor, mixes: Tensor, last: Tensor) -> Tensor:
    """float32: x (B, T, D), mixes (N, D), last (B, D) → (N, B, T, D)."""
    inputs = [tensor.contiguous() for tensor in (x, mixes, last)]
    y = _short_lived(len(mixes), *x.shape)
    _call("token_mix_forward", y.shape, [*inputs, y])
    return y


@operator("token_mix_backward")
def token_mix_backward(x: Tensor, mixes: Tensor, last: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x, mixes and last."""
    inputs = [tensor.contiguous() for tensor in (x, mixes, last, grad)]
    grad_x, grad_mixes, grad_last = (x.new_zeros(shape) for shape in (x.shape, (len(x), *mixes.shape), last.shape))
    _call("token_mix_backward", grad.shape, [*inputs, grad_x, grad_mixes, grad_last])
    return grad_x, grad_mixes.sum(0), grad_last


def overwrite(name: str, *inputs: Tensor) -> Tensor:
    """A gate by name, its result in its last input, which is contiguous; not an operator."""
    return _gate(f"{name}_forward", *inputs, y=inputs[-1])


def _short_lived(*shape: int) -> Tensor:
    """An empty tensor that leaves, once it is freed, room for another of its shape: an aligned allocation in the C
    library does not fit into a gap of just its own size, and training would be left with a gap for each such tensor."""
    size = math.prod(shape)
    return torch.empty(size + SPARE)[:size].view(shape)


def _gate(name: str, *inputs: Tensor, y: Tensor | None = None) -> Tensor:
    y, rows = _short_lived(*inputs[0].shape) if y is None else y, [_rows(x) for x in inputs]
    _call(name, (*rows[0].shape, *(x.stride(0) for x in rows)), [*rows, y])
    return y


def _gate_backward(name: str, grad: Tensor, *inputs: Tensor) -> list[Tensor]:
    grads, rows = [torch.empty(x.shape) for x in inputs], [_rows(x) for x in inputs]
    _call(name, (*rows[0].shape, *(x.stride(0) for x in rows)), [*rows, grad.contiguous(), *grads])
    return grads


def _rows(x: Tensor) -> Tensor:
    """(..., F) → (R, F) whose rows are contiguous: a view where strides allow."""
    rows = x.reshape(x.numel() // max(x.shape[-1], 1), x.shape[-1])
    return rows if rows.stride(-1) == 1 else rows.contiguous()


def _call(name: str, numbers: tuple[int, ...], tensors: list[Tensor]) -> None:
    getattr(library(), name)(*map(ctypes.c_long, numbers), *map(pointer, tensors))


def _like(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _register(operator: Any, backward: Any) -> None:
    operator.register_autograd(
        lambda ctx, grad: backward(*ctx.saved_tensors, grad),
        setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs),
    )


for _operator, _backward in ((mish_gate, mish_gate_backward), (sigmoid_gate, sigmoid_gate_backward)):
    _operator.register_fake(lambda a, b: _like(a))
    _backward.register_fake(lambda a, b, grad: (_like(a), _like(b)))
    _register(_operator, _backward)
squared_relu.register_fake(_like)
squared_relu_backward.register_fake(lambda k, grad: _like(k))
_register(squared_relu, squared_relu_backward)
token_mix.register_fake(lambda x, mixes, last: x.new_empty(len(mixes), *x.shape))
token_mix_backward.register_fake(lambda x, mixes, last, grad: (_like(x), _like(mixes), _like(last)))
_register(token_mix, token_mix_backward)
