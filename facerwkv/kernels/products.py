"""Matrix products of element-wise parts: for the backward pass they keep what the parts were made of, not the parts.

A block of RWKV-4 multiplies tokens mixed with the one before them in five ways, and squares of its hidden layer. Kept
as they are, these are more than half of what training holds in memory; they cost one pass to make again.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from facerwkv.kernels.chunks import full_precision
from facerwkv.kernels.gates import squared_relu, token_mix


def mixed_products(x: Tensor, mixes: Tensor, weights: list[Tensor], last: Tensor | None = None) -> list[Tensor]:
    """`token_mix(x, mixes, last)`, each way times its own matrix.

    x (B, T, D); mixes (N, D); weights, N matrices (F_n, D); last (B, D) or None. Returns N tensors (B, T, F_n).
    """
    last = x.new_zeros(x.shape[0], x.shape[2]) if last is None else last
    if _trains(x, mixes, last, *weights):
        weights = _as_autocast(weights)
        with full_precision(x):
            return list(_MixedProducts.apply(x, mixes, last, *weights))
    return [functional.linear(part, weight) for part, weight in zip(token_mix(x, mixes, last), weights, strict=True)]


def squared_relu_product(k: Tensor, weight: Tensor) -> Tensor:
    """relu(k)^2 for k (..., F), times a matrix (D, F): (..., D)."""
    if _trains(k, weight):
        (weight,) = _as_autocast([weight])
        with full_precision(k):
            return _SquaredReluProduct.apply(k, weight)
    return functional.linear(squared_relu(k), weight)


def _trains(*inputs: Tensor) -> bool:
    """Compiled training is left to torch, which decides itself what to compute again."""
    return torch.is_grad_enabled() and any(x.requires_grad for x in inputs) and not torch.compiler.is_compiling()


def _as_autocast(weights: list[Tensor]) -> list[Tensor]:
    """The matrices in the dtype that autocast, where it runs, gives to products: they decide it for the rest."""
    kind = weights[0].device.type
    if not torch.amp.is_autocast_available(kind) or not torch.is_autocast_enabled(kind):
        return weights
    return [weight.to(torch.get_autocast_dtype(kind)) for weight in weights]


class _MixedProducts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, mixes: Tensor, last: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(x, mixes, last, *weights)
        parts = token_mix(x, mixes, last).to(weights[0].dtype)
        return tuple(functional.linear(part, weight) for part, weight in zip(parts, weights, strict=True))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        x, mixes, last, *weights = ctx.saved_tensors
        with torch.enable_grad():
            inputs = [tensor.detach().requires_grad_() for tensor in (x, mixes, last)]
            parts = token_mix(*inputs).to(weights[0].dtype)
        of_weights = [_outer(grad, part) for grad, part in zip(grads, parts.detach(), strict=True)]
        of_parts = torch.empty_like(parts)
        for grad, weight, of_part in zip(grads, weights, of_parts, strict=True):
            torch.matmul(grad, weight, out=of_part)
        return *torch.autograd.grad(parts, inputs, of_parts), *of_weights


class _SquaredReluProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, k: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(k, weight)
        return functional.linear(squared_relu(k).to(weight.dtype), weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        k, weight = ctx.saved_tensors
        of_weight = _outer(grad, squared_relu(k).to(weight.dtype))
        return (grad @ weight).to(k.dtype).mul_(2).mul_(functional.relu(k)), of_weight


def _outer(grad: Tensor, x: Tensor) -> Tensor:
    """The gradient of a matrix: grad (..., F) and its input x (..., D) → (F, D)."""
    return grad.flatten(0, -2).mT @ x.flatten(0, -2)
