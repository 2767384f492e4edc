"""The element-wise parts between matrix products, each in one pass over memory.

Each has a "reference", which is the definition, and a "native" form (C; CPU, float32) that keeps only its inputs for
the backward pass. "auto" is native where it can run, but never inside torch.compile or torch.export, which make one
pass of PyTorch's operations themselves. `inplace` says that the last input is no longer needed: where it is contiguous
and neither autograd nor a tracer watches, the native form writes its result there.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from facerwkv.core.errors import InputError
from facerwkv.kernels import choose
from facerwkv.kernels.native import call, library, problem, watched


def mish_gate(k: Tensor, v: Tensor, implementation: str = "auto") -> Tensor:
    """mish(k) v = k tanh(log(1 + e^k)) v for k and v of one shape (..., F).

    A third implementation, "rational", has one exponential: what a compiler gets where no gradient is wanted, since its
    gradient has fewer digits.
    """
    return _run("mish_gate", implementation, k, v)


def sigmoid_gate(r: Tensor, x: Tensor, implementation: str = "auto", inplace: bool = False) -> Tensor:
    """sigmoid(r) x for r and x of one shape (..., F). With `inplace` the result may overwrite x."""
    return _run("sigmoid_gate", implementation, r, x, inplace=inplace)


def squared_relu(k: Tensor, implementation: str = "auto", inplace: bool = False) -> Tensor:
    """relu(k)^2 for k (..., F). With `inplace` the result may overwrite k."""
    return _run("squared_relu", implementation, k, inplace=inplace)


def token_mix(x: Tensor, mixes: Tensor, last: Tensor | None = None, implementation: str = "auto") -> Tensor:
    """Tokens mixed with the one before them in several ways: before + (x - before) mix.

    x (B, T, D); mixes (N, D), each way's share of the present token; last (B, D) stands before the first token, zeros
    if None. Returns (N, B, T, D).
    """
    last = x.new_zeros(x.shape[0], x.shape[2]) if last is None else last
    return _run("token_mix", implementation, x, mixes, last)


def _run(name: str, implementation: str, *inputs: Tensor, inplace: bool = False) -> Tensor:
    auto, forms = "reference", IMPLEMENTATIONS[name]
    if torch.compiler.is_compiling():
        training = torch.is_grad_enabled() and any(x.requires_grad for x in inputs)
        auto = "rational" if "rational" in forms and not training else "reference"
    elif library() is not None and all(x.device.type == "cpu" and x.dtype == torch.float32 for x in inputs):
        auto = "native"
        if inplace and implementation == "auto" and inputs[-1].is_contiguous() and not watched(*inputs):
            from facerwkv.kernels.native.gates import overwrite

            return overwrite(name, *inputs)
    return choose(forms, implementation, auto)(*inputs)


def _mish_gate(k: Tensor, v: Tensor) -> Tensor:
    return functional.mish(k) * v


def _rational_mish_gate(k: Tensor, v: Tensor) -> Tensor:
    """tanh(log(1 + e)) = n / (n + 2) with n = e (e + 2); beyond 20 it is 1 in float32."""
    e = k.clamp(max=20).exp()
    n = e * (e + 2)
    return k * (n / (n + 2)) * v


def _squared_relu(k: Tensor) -> Tensor:
    return functional.relu(k).square()


def _sigmoid_gate(r: Tensor, x: Tensor) -> Tensor:
    return torch.sigmoid(r) * x


def _token_mix(x: Tensor, mixes: Tensor, last: Tensor) -> Tensor:
    before = torch.cat([last[:, None], x[:, :-1]], 1)
    return torch.addcmul(before, x - before, mixes[:, None, None])


def _native(name: str) -> Callable[..., Tensor]:
    def run(*inputs: Tensor) -> Tensor:
        if library() is None:
            raise InputError(f"{problem()} Or use implementation='reference'.")
        for x in inputs:
            if x.device.type != "cpu" or x.dtype != torch.float32:
                raise InputError(
                    f"The native {name} runs on the CPU in float32, not on {x.device} in {x.dtype}; use 'reference'."
                )
        from facerwkv.kernels.native import gates

        return call(getattr(gates, name), *inputs)

    return run


REFERENCES: dict[str, Callable[..., Tensor]] = {
    "mish_gate": _mish_gate,
    "sigmoid_gate": _sigmoid_gate,
    "squared_relu": _squared_relu,
    "token_mix": _token_mix,
}
IMPLEMENTATIONS = {name: {"reference": form, "native": _native(name)} for name, form in REFERENCES.items()}
IMPLEMENTATIONS["mish_gate"]["rational"] = _rational_mish_gate
