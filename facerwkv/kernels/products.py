"""Matrix products of element-wise parts: for the backward pass they keep what the parts were made of, not the parts.

A block of RWKV-4 multiplies tokens mixed with the one before them in five ways, and squares of its hidden layer. Kept
as they are, these are more than half of what training holds in memory; they cost one pass to make again.
"""

import math
import platform
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from facerwkv.core.errors import InputError
from facerwkv.kernels.calls import Inputs, choose, derived, gradients_again, transformed, watched
from facerwkv.kernels.chunks import full_precision
from facerwkv.kernels.gates import sigmoid_gate, squared_relu, token_mix

CPUINFO = Path("/proc/cpuinfo")
INPUTS = Inputs("linear", "x ... D, weight F D, bias? F")
MIXED = Inputs("mixed_products", "x B T D, mixes N D, last? B D")
MATRIX = Inputs("mixed_products", "mixes N D, weight F D")
SQUARED = Inputs("squared_relu_product", "k ... F, weight D F")
GATED = Inputs("gated_product", "r ... F, x ... F, weight D F")
FEWEST = 64  # rows and columns from which oneDNN pays: it packs the matrix at every call


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, implementation: str = "auto") -> Tensor:
    """x (..., D) times a matrix (F, D), plus a bias (F,): (..., F).

    implementation: "reference" (torch.nn.functional.linear) or "onednn" (CPU, float32); "auto" is onednn where it pays
    and nothing traces the call, else the reference.
    """
    inputs = [x, weight] if bias is None else [x, weight, bias]
    auto = "reference"
    if x.device != weight.device:  # of a matrix on the meta device torch would take whatever memory contains
        INPUTS.check(x, weight, bias)
    if not torch.compiler.is_compiling():  # to an exporter, comparing the batch's size would limit it
        large = math.prod(x.shape[:-1]) >= FEWEST and min(weight.shape) >= FEWEST
        if (
            large
            and weight.ndim == 2
            and onednn_pays()
            and _fits(*inputs)
            and not torch.is_autocast_enabled("cpu")
            and not watched(*inputs, autograd=False)
        ):
            auto = "onednn"
    form = IMPLEMENTATIONS[auto] if implementation == "auto" else choose(IMPLEMENTATIONS, implementation, auto)
    return form(x, weight, bias)


class Linear(nn.Linear):
    """torch.nn.Linear by `linear`."""

    implementation = "auto"

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias, self.implementation)


@cache
def onednn_pays() -> bool:
    """Whether oneDNN's vectors are wider here than MKL's."""
    if not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()):
        return False
    try:
        processor = CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        processor = platform.processor()
    return torch.backends.cpu.get_cpu_capability() == "AVX512" and "GenuineIntel" not in processor


def _fits(*inputs: Tensor) -> bool:
    return all(tensor.device.type == "cpu" and tensor.dtype == torch.float32 for tensor in inputs)


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    inputs = [x, weight] if bias is None else [x, weight, bias]
    INPUTS.check(x, weight, bias)
    if not (_fits(*inputs) and torch.backends.mkldnn.is_available()):
        raise InputError(
            f"oneDNN multiplies on the CPU in float32, not on {x.device} in {x.dtype}, or torch here does without it; "
            "use implementation='reference'."
        )
    if derived(*inputs):
        raise InputError("oneDNN's product has no forward-mode derivative; use implementation='reference'.")
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs):
        return _Linear.apply(x, weight, bias)
    return _pointwise(x, weight, bias)


def _pointwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """oneDNN's product. It would read a bias as if its numbers were neighbours."""
    bias = bias if bias is None else bias.contiguous()
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _pointwise(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (x, weight), (x_wanted, weight_wanted, bias_wanted) = ctx.saved_tensors, ctx.needs_input_grad
        of_x = linear(grad, weight.mT) if x_wanted else None
        of_weight = outer(grad, x) if weight_wanted else None
        return of_x, of_weight, grad.flatten(0, -2).sum(0) if bias_wanted else None


def outer(grad: Tensor, x: Tensor) -> Tensor:
    """The gradient of a matrix: that of the product (..., F) and what was multiplied (..., D) → (F, D)."""
    grad, x = torch.atleast_2d(grad, x)
    return linear(grad.flatten(0, -2).mT, x.flatten(0, -2).mT)


IMPLEMENTATIONS: dict[str, Callable[..., Tensor]] = {"reference": functional.linear, "onednn": _onednn}


def mixed_products(x: Tensor, mixes: Tensor, weights: list[Tensor], last: Tensor | None = None) -> list[Tensor]:
    """`token_mix(x, mixes, last)`, each way times its own matrix.

    x (B, T, D); mixes (N, D); weights, N matrices (F_n, D); last (B, D) or None. Returns N tensors (B, T, F_n).
    """
    MIXED.check(x, mixes, last)
    if len(weights) != len(mixes):
        raise InputError(f"mixed_products takes a matrix for each of {len(mixes)} mixes, not {len(weights)}.")
    for weight in weights:
        MATRIX.check(mixes, weight)
    last = x.new_zeros(x.shape[0], x.shape[2]) if last is None else last
    if (products := _remade(_MixedProducts, [x, mixes, last], weights)) is not None:
        return list(products)
    pairs = zip(token_mix(x, mixes, last), weights, strict=True)
    return [linear(part.to(weight.dtype), weight) for part, weight in pairs]


def squared_relu_product(k: Tensor, weight: Tensor, inplace: bool = False) -> Tensor:
    """relu(k)^2 for k (..., F), times a matrix (D, F): (..., D).

    Training keeps k and the matrix, and squares again in the backward pass. Elsewhere `inplace` lets the square
    overwrite k, as in `squared_relu`.
    """
    SQUARED.check(k, weight)
    if (product := _remade(_SquaredReluProduct, [k], [weight])) is not None:
        return product
    return linear(squared_relu(k, inplace=inplace).to(weight.dtype), weight)


def gated_product(r: Tensor, x: Tensor, weight: Tensor, inplace: bool = False) -> Tensor:
    """sigmoid(r) x for r and x (..., F), times a matrix (D, F): (..., D).

    Training keeps r, x and the matrix, and gates again in the backward pass. Elsewhere `inplace` lets the gated x
    overwrite x, as in `sigmoid_gate`.
    """
    GATED.check(r, x, weight)
    if (product := _remade(_GatedProduct, [r, x], [weight])) is not None:
        return product
    return linear(sigmoid_gate(r, x, inplace=inplace).to(weight.dtype), weight)


def _remade(function: type[torch.autograd.Function], inputs: list[Tensor], weights: list[Tensor]) -> Any:
    """The products of a function that makes the parts again in its backward pass; None where no gradient is wanted.

    Compiled training is left to torch, which decides itself what to compute again. Where autocast runs, the matrices
    take the dtype that it gives to products: they decide it for the rest.
    """
    wanted = torch.is_grad_enabled() and any(x.requires_grad for x in (*inputs, *weights))
    if not wanted or torch.compiler.is_compiling() or transformed():
        return None
    kind = weights[0].device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        weights = [weight.to(torch.get_autocast_dtype(kind)) for weight in weights]
    with full_precision(inputs[0]):
        return function.apply(*inputs, *weights)


def _mixed_products(x: Tensor, mixes: Tensor, last: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
    """One way after the other: parts of one size leave no gaps in memory that the next one could not fill."""
    pairs = zip(mixes, weights, strict=True)
    return tuple(linear(token_mix(x, mix[None], last)[0].to(weight.dtype), weight) for mix, weight in pairs)


class _MixedProducts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, mixes: Tensor, last: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(x, mixes, last, *weights)
        return _mixed_products(x, mixes, last, *weights)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        if torch.is_grad_enabled():
            return gradients_again(_mixed_products, ctx.saved_tensors, grads)
        x, mixes, last, *weights = ctx.saved_tensors
        x, last = x.detach().requires_grad_(), last.detach().requires_grad_()
        of_x, of_last, of_mixes, of_weights = torch.zeros_like(x), torch.zeros_like(last), [], []
        for grad, mix, weight in zip(grads, mixes, weights, strict=True):
            mix = mix.detach().requires_grad_()
            with torch.enable_grad():
                part = token_mix(x, mix[None], last)[0].to(weight.dtype)
            of_weights.append(outer(grad, part.detach()))
            more_x, of_mix, more_last = torch.autograd.grad(part, (x, mix, last), linear(grad, weight.mT))
            of_x += more_x
            of_last += more_last
            of_mixes.append(of_mix)
        return of_x, torch.stack(of_mixes), of_last, *of_weights


def _squared_relu_product(k: Tensor, weight: Tensor) -> Tensor:
    return linear(squared_relu(k).to(weight.dtype), weight)


class _SquaredReluProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, k: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(k, weight)
        return _squared_relu_product(k, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        if torch.is_grad_enabled():
            return gradients_again(_squared_relu_product, ctx.saved_tensors, [grad])
        k, weight = ctx.saved_tensors
        of_weight = outer(grad, squared_relu(k).to(weight.dtype))
        of_k = linear(grad, weight.mT).to(k.dtype)
        return of_k.mul_(k).mul_(2).masked_fill_(k < 0, 0), of_weight


def _gated_product(r: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    return linear(sigmoid_gate(r, x).to(weight.dtype), weight)


class _GatedProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, r: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(r, x, weight)
        return _gated_product(r, x, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        if torch.is_grad_enabled():
            return gradients_again(_gated_product, ctx.saved_tensors, [grad])
        r, x, weight = ctx.saved_tensors
        r, x = r.detach().requires_grad_(), x.detach().requires_grad_()
        with torch.enable_grad():
            gated = sigmoid_gate(r, x)
        of_weight = outer(grad, gated.detach().to(weight.dtype))
        return *torch.autograd.grad(gated, (r, x), linear(grad, weight.mT).to(gated.dtype)), of_weight
