"""gates.c as operators for autograd, torch.compile and torch.export."""

import math
from typing import Any

import torch
from torch import Tensor

from facerwkv.kernels.calls import like, run
from facerwkv.kernels.gates import INPUTS, REFERENCES
from facerwkv.kernels.native.operators import differentiate, operator

SPARE = 1024  # numbers, a page


def _gate(name: str) -> Any:
    """The operator facerwkv::NAME, with its derivative: float32 inputs (..., F) → (..., F)."""
    line = INPUTS[name].line
    names = [one.split()[0] for one in line.split(",")]
    inputs, tensors = ", ".join(f"Tensor {one}" for one in names), ", ".join(["Tensor"] * len(names))
    gradients = f"({tensors})" if len(names) > 1 else tensors

    def forward(*given: Tensor) -> Tensor:
        y = _short_lived(given[0], *given[0].shape)
        run_by_rows(f"{name}_forward", given, [y])
        return y

    def backward(*given: Tensor) -> Tensor | tuple[Tensor, ...]:
        grads = like(*given[:-1])
        run_by_rows(f"{name}_backward", given[:-1], [given[-1].contiguous(), *grads])
        return grads if len(grads) > 1 else grads[0]

    gate = operator(name, line, f"({inputs}) -> Tensor")(forward)
    gate.register_fake(lambda *given: like(given[0])[0])
    derivative = operator(f"{name}_backward", f"{line}, grad ...", f"({inputs}, Tensor grad) -> {gradients}")(backward)
    derivative.register_fake(lambda *given: like(*given[:-1]) if len(names) > 1 else like(given[0])[0])
    differentiate(gate, derivative, REFERENCES[name])
    return gate


def overwrite(name: str, inputs: tuple[Tensor, ...]) -> Tensor:
    """The gate, written over its last input, which is contiguous and shares no memory with the others."""
    run_by_rows(f"{name}_forward", inputs, inputs[-1:])
    if not inputs[-1].is_inference():
        torch.autograd.graph.increment_version(inputs[-1])  # else a backward pass that kept it would not notice
    return inputs[-1]


def run_by_rows(function: str, inputs: tuple[Tensor, ...], contiguous: list[Tensor] | tuple[Tensor, ...]) -> None:
    """Run a C function on inputs (..., F) as rows (R, F), which lie apart by any stride, and on contiguous tensors."""
    width = inputs[0].shape[-1] if inputs[0].ndim else 1
    rows = [x.reshape(x.numel() // max(width, 1), width) for x in inputs]
    rows = [x if x.stride(-1) == 1 else x.contiguous() for x in rows]
    run(function, (*rows[0].shape, *(x.stride(0) for x in rows)), [*rows, *contiguous])


def _short_lived(x: Tensor, *shape: int) -> Tensor:
    """An empty tensor of x's kind that leaves, once it is freed, room for another of its shape: an aligned allocation
    in the C library does not fit into a gap of just its own size, and training would be left with a gap for each."""
    size = math.prod(shape)
    return x.new_empty(size + SPARE)[:size].view(shape)


mish_gate = _gate("mish_gate")
sigmoid_gate = _gate("sigmoid_gate")
squared_relu = _gate("squared_relu")


@operator("token_mix", INPUTS["token_mix"].line)
def token_mix(x: Tensor, mixes: Tensor, last: Tensor) -> Tensor:
    """float32: x (B, T, D), mixes (N, D), last (B, D) → (N, B, T, D)."""
    y = _short_lived(x, len(mixes), *x.shape)
    run("token_mix_forward", y.shape, [x.contiguous(), mixes.contiguous(), last.contiguous(), y])
    return y


@operator("token_mix_backward", f"{INPUTS['token_mix'].line}, grad N B T D")
def token_mix_backward(x: Tensor, mixes: Tensor, last: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x, mixes and last."""
    inputs = [tensor.contiguous() for tensor in (x, mixes, last, grad)]
    grad_x, grad_mixes, grad_last = (x.new_zeros(shape) for shape in (x.shape, (len(x), *mixes.shape), last.shape))
    run("token_mix_backward", grad.shape, [*inputs, grad_x, grad_mixes, grad_last])
    return grad_x, grad_mixes.sum(0), grad_last


token_mix.register_fake(lambda x, mixes, last: x.new_empty(len(mixes), *x.shape))
token_mix_backward.register_fake(lambda x, mixes, last, grad: like(x, mixes, last))
differentiate(token_mix, token_mix_backward, REFERENCES["token_mix"])
