"""The element-wise parts between matrix products, each in one pass over memory.

Each has a "reference", which is the definition, and a "native" form (C; CPU, float32) that keeps only its inputs for
the backward pass. "auto" is native where it can run, but never inside torch.compile or torch.export, which make one
pass of PyTorch's operations themselves. `inplace` says that the last input is no longer needed: where it is contiguous
and neither autograd nor a tracer watches, the native form writes its result there.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from facerwkv.kernels.calls import Inputs, cast, choose, native, refusal, watched

INPUTS = {
    name: Inputs(name, shapes)
    for name, shapes in {
        "mish_gate": "k ..., v ...",
        "sigmoid_gate": "r ..., x ...",
        "squared_relu": "k ...",
        "token_mix": "x B T D, mixes N D, last? B D",
    }.items()
}


def mish_gate(k: Tensor, v: Tensor, implementation: str = "auto") -> Tensor:
    """mish(k) v = k tanh(log(1 + e^k)) v for k and v of one shape (..., F).

    A third implementation, "rational", has one exponential: what a compiler gets where no gradient is wanted, since its
    gradient has fewer digits. Returns (..., F); InputError for other shapes and unknown implementations.
    """
    INPUTS["mish_gate"].check(k, v)
    return _run("mish_gate", implementation, k, v)


def sigmoid_gate(r: Tensor, x: Tensor, implementation: str = "auto", inplace: bool = False) -> Tensor:
    """sigmoid(r) x for r and x of one shape (..., F).

    With `inplace` the result may overwrite x: the gate of RWKV-4's channel mix then needs no memory of its own.
    Returns (..., F); InputError for other shapes and unknown implementations.
    """
    INPUTS["sigmoid_gate"].check(r, x)
    return _run("sigmoid_gate", implementation, r, x, inplace=inplace)


def squared_relu(k: Tensor, implementation: str = "auto", inplace: bool = False) -> Tensor:
    """relu(k)^2 for k (..., F).

    With `inplace` the result may overwrite k: the hidden layer of RWKV-4's channel mix is then held once, not twice.
    Returns (..., F); InputError for unknown implementations.
    """
    INPUTS["squared_relu"].check(k)
    return _run("squared_relu", implementation, k, inplace=inplace)


def token_mix(x: Tensor, mixes: Tensor, last: Tensor | None = None, implementation: str = "auto") -> Tensor:
    """Tokens mixed with the one before them in several ways: before + (x - before) mix.

    x (B, T, D); mixes (N, D), each way's share of the present token; last (B, D) comes before the first token, zeros
    if None. Returns (N, B, T, D).
    """
    INPUTS["token_mix"].check(x, mixes, last)
    return _run("token_mix", implementation, x, mixes, x.new_zeros(x.shape[0], x.shape[2]) if last is None else last)


def _token_mix(x: Tensor, mixes: Tensor, last: Tensor) -> Tensor:
    before = torch.cat([last[:, None], x[:, :-1]], 1)
    return torch.addcmul(before, x - before, mixes[:, None, None])


def _rational_mish_gate(k: Tensor, v: Tensor) -> Tensor:
    """tanh(log(1 + e)) = n / (n + 2) with n = e (e + 2); beyond 20 it is 1 in float32, which half precision needs too:
    n overflows in float16 above 5.5.
    """
    (wide,) = cast(torch.promote_types(k.dtype, torch.float32), k)
    e = wide.clamp(max=20).exp()
    n = e * (e + 2)
    return (wide * (n / (n + 2))).to(k.dtype) * v


REFERENCES: dict[str, Callable[..., Tensor]] = {
    "mish_gate": lambda k, v: functional.mish(k) * v,
    "sigmoid_gate": lambda r, x: torch.sigmoid(r) * x,
    "squared_relu": lambda k: functional.relu(k).square(),
    "token_mix": _token_mix,
}
IMPLEMENTATIONS: dict[str, dict[str, Callable[..., Tensor]]] = {
    name: {"reference": form, "native": partial(native, "gates", name, instead="reference")}
    for name, form in REFERENCES.items()
}
IMPLEMENTATIONS["mish_gate"]["rational"] = _rational_mish_gate


def _run(name: str, implementation: str, *inputs: Tensor, inplace: bool = False) -> Tensor:
    auto, forms = "reference", IMPLEMENTATIONS[name]
    if torch.compiler.is_compiling():
        training = torch.is_grad_enabled() and any(x.requires_grad for x in inputs)
        auto = "rational" if "rational" in forms and not training else "reference"
    elif refusal(name, *inputs) is None:
        auto = "native"
        if inplace and implementation == "auto" and inputs[-1].is_contiguous() and not watched(*inputs):
            from facerwkv.kernels.native.gates import overwrite

            if not any(torch._C._overlaps(x, inputs[-1]) for x in inputs[:-1]):
                return overwrite(name, inputs)
    return choose(forms, implementation, auto)(*inputs)
