"""The recurrences against attention of the same width, against a copy of a tensor, against their plain forms."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from facerwkv.bench.answers import Form, forward_backward, require_accurate
from facerwkv.bench.timing import BenchSetting, Call, Measured, in_turns, ratio, relative
from facerwkv.mixers.rwkv1 import initial_table

WIDTH, HEAD = 384, 64
V1_HEADS = 8
BYTES_COPIED, BYTES_NEEDED = 8, 12  # per element: a copy reads and writes; WKV-4 reads k and v and writes y
CHECKED = 600  # tokens at which gradients are compared: the references keep every step for theirs


@dataclass(frozen=True)
class Kernel:
    """A public call of facerwkv.kernels, the form that is measured, and inputs for T tokens."""

    module: str
    measured: str
    inputs: Callable[[int], list[Tensor]]
    defined_up_to: int | None = None
    """Tokens up to which the reference fits in memory; for more, "chunked" in float64 replaces it."""

    def form(self, implementation: str | None = None) -> Form:
        """The call, its implementation chosen, giving the outputs alone. The module is imported only here."""
        call = getattr(import_module(f"facerwkv.kernels.{self.module}"), self.module)
        chosen = partial(call, implementation=implementation or self.measured)

        def outputs(*inputs: Tensor) -> Tensor:
            result = chosen(*inputs)
            return result[0] if isinstance(result, tuple) else result

        return outputs


def _inputs(kind: str, tokens: int, size: int = 1) -> list[Tensor]:
    """Random inputs of a kind of kernel for T tokens; RWKV-1's with heads of `size` channels."""
    source = torch.Generator().manual_seed(0)
    heads = (1, tokens, WIDTH // HEAD, HEAD)
    shapes: dict[str, list[tuple[int, ...]]] = {
        "vector": [(WIDTH,)] * 2 + [(1, tokens, WIDTH)] * 2,
        "finch": [heads] * 4 + [heads[2:]],
        "goose": [heads] * 6,
        "attention": [(1, WIDTH // HEAD, tokens, HEAD)] * 3,
        "v1": [(V1_HEADS, tokens)] * 2 + [(1, tokens, V1_HEADS, size)] * 2,
    }
    match kind, [torch.randn(shape, generator=source) for shape in shapes[kind]]:
        case "vector", [w, *others]:
            return [w.sub(1).exp(), *others]
        case "finch", [r, k, v, w, u]:
            return [r, k, v, -w.sub(1).exp(), u]
        case "goose", [r, w, k, v, a, b]:
            unit = torch.nn.functional.normalize(a, dim=-1)
            return [r, -0.6 * w.sigmoid(), k, v, -unit, unit * b.sigmoid()]
        case "v1", [alpha, beta, k, v]:
            return [initial_table(V1_HEADS, tokens), 1 + 0.1 * alpha, 1 + 0.1 * beta, k, v]
        case _, inputs:
            return inputs


KERNELS = {
    "wkv4": Kernel("wkv4", "native", partial(_inputs, "vector")),
    "biwkv": Kernel("biwkv", "native", partial(_inputs, "vector"), defined_up_to=128),
    "wkv6": Kernel("wkv6", "auto", partial(_inputs, "finch")),
    "wkv7": Kernel("wkv7", "auto", partial(_inputs, "goose")),
    "v1_hs1": Kernel("toeplitz", "auto", partial(_inputs, "v1", size=1)),
    "v1_hs64": Kernel("toeplitz", "auto", partial(_inputs, "v1", size=64)),
}


def call(name: str, tokens: int, train: bool = False) -> Call:
    """A call of the measured form of a kernel for T tokens, without gradients or, to `train`, forward and backward.

    "sdpa" and "causal_sdpa" are kernels here: attention in float32 on contiguous (1, C/64, T, 64).
    """
    if name in KERNELS:
        form, inputs = KERNELS[name].form(), KERNELS[name].inputs(tokens)
    else:
        form = partial(scaled_dot_product_attention, is_causal=name == "causal_sdpa")
        inputs = _inputs("attention", tokens)
    return forward_backward(form, inputs) if train else partial(torch.inference_mode()(form), *inputs)


def versus(name: str, peer: str, tokens: int, setting: BenchSetting) -> Measured:
    """A kernel's time as a part of its peer's: "sdpa", "causal_sdpa" or, for WKV-4, "copy", in which its 12 bytes per
    element could be copied. With the peer "plain", how many times faster than its reference it goes forward and
    backward.
    """
    kernel, tokens = KERNELS[name], setting.tokens(tokens)
    inputs = kernel.inputs(tokens)
    if peer == "plain":
        require_accurate(kernel.form(), kernel.form("reference"), inputs, gradients=True)
        plain = forward_backward(kernel.form("reference"), inputs)
        return relative(call(name, tokens, train=True), plain, setting, inverse=True)
    check(name, tokens)
    if peer == "copy":
        mine, copy = in_turns([call(name, tokens), partial(torch.empty_like(inputs[-1]).copy_, inputs[-1])], setting)
        return ratio(mine, [taken * BYTES_NEEDED / BYTES_COPIED for taken in copy])
    return relative(call(name, tokens), call(peer, tokens), setting)


def growth(name: str, train: bool, few: int, many: int, setting: BenchSetting) -> Measured:
    """The time for `many` tokens as a multiple of that for `few`."""
    few, many = setting.tokens(few), setting.tokens(many)
    check(name, few)
    if train:
        check(name, min(few, CHECKED), gradients=True)
    return relative(call(name, many, train), call(name, few, train), setting)


def curve(setting: BenchSetting, lengths: list[int]) -> dict[str, dict[int, float]]:
    """Median seconds of the forward pass at each length, of every kernel but v1's wide heads, and of attention."""
    names = [*(name for name in KERNELS if name != "v1_hs64"), "sdpa"]
    medians: dict[str, dict[int, float]] = {name: {} for name in names}
    for tokens in lengths:
        for name, taken in zip(medians, in_turns([call(name, tokens) for name in medians], setting), strict=True):
            medians[name][tokens] = sorted(taken)[len(taken) // 2]
    return medians


def check(name: str, tokens: int, gradients: bool = False) -> None:
    """Disagreement unless the measured form is as right as its reference for this many tokens."""
    kernel, oracle = KERNELS[name], "reference"
    if kernel.defined_up_to and tokens > kernel.defined_up_to:
        check(name, kernel.defined_up_to, gradients)
        oracle = "chunked"
    require_accurate(kernel.form(), kernel.form(oracle), kernel.inputs(tokens), gradients)
