"""The recurrences against attention of the same width, against a copy of a tensor, against their plain forms."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from facerwkv.bench.answers import Form, forward_backward, require_accurate
from facerwkv.bench.timing import Measured, Setting, in_turns, ratio, relative, times_faster
from facerwkv.mixers.rwkv1 import initial_table

WIDTH, HEAD = 384, 64
V1_HEADS = 8
BYTES_COPIED, BYTES_NEEDED = 8, 12  # an element: a copy reads and writes; WKV-4 reads k and v and writes y
CHECKED = 600  # tokens at which gradients are compared: the references keep every step for theirs


@dataclass(frozen=True)
class Kernel:
    """A public call of facerwkv.kernels, the form that is measured, and inputs for T tokens."""

    module: str
    measured: str
    inputs: Callable[[int], list[Tensor]]
    defined_up_to: int | None = None
    """Tokens up to which the reference fits in memory; for more, "chunked" in float64 stands in for it."""

    def form(self, implementation: str | None = None) -> Form:
        """The call, its implementation chosen, giving the outputs alone. The module is looked up here and now."""
        call = getattr(import_module(f"facerwkv.kernels.{self.module}"), self.module)
        chosen = partial(call, implementation=implementation or self.measured)

        def outputs(*inputs: Tensor) -> Tensor:
            result = chosen(*inputs)
            return result[0] if isinstance(result, tuple) else result

        return outputs


def _randoms(*shapes: tuple[int, ...]) -> list[Tensor]:
    source = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=source) for shape in shapes]


def _vector(tokens: int) -> list[Tensor]:
    w, *others = _randoms((WIDTH,), (WIDTH,), (1, tokens, WIDTH), (1, tokens, WIDTH))
    return [w.sub(1).exp(), *others]


def _finch(tokens: int) -> list[Tensor]:
    shape = (1, tokens, WIDTH // HEAD, HEAD)
    r, k, v, w, u = _randoms(*[shape] * 4, shape[2:])
    return [r, k, v, -w.sub(1).exp(), u]


def _goose(tokens: int) -> list[Tensor]:
    r, w, k, v, a, b = _randoms(*[(1, tokens, WIDTH // HEAD, HEAD)] * 6)
    unit = torch.nn.functional.normalize(a, dim=-1)
    return [r, -0.6 * w.sigmoid(), k, v, -unit, unit * b.sigmoid()]


def _attention(tokens: int) -> list[Tensor]:
    return _randoms(*[(1, WIDTH // HEAD, tokens, HEAD)] * 3)


def _v1(size: int, tokens: int) -> list[Tensor]:
    alpha, beta, k, v = _randoms(*[(V1_HEADS, tokens)] * 2, *[(1, tokens, V1_HEADS, size)] * 2)
    return [initial_table(V1_HEADS, tokens), 1 + 0.1 * alpha, 1 + 0.1 * beta, k, v]


KERNELS = {
    "wkv4": Kernel("wkv4", "native", _vector),
    "biwkv": Kernel("biwkv", "native", _vector, defined_up_to=128),
    "wkv6": Kernel("wkv6", "auto", _finch),
    "wkv7": Kernel("wkv7", "auto", _goose),
    "v1_hs1": Kernel("toeplitz", "auto", partial(_v1, 1)),
    "v1_hs64": Kernel("toeplitz", "auto", partial(_v1, 64)),
}


def attention(tokens: int, causal: bool = False) -> Callable[[], Tensor]:
    """SDPA in float32 on contiguous (1, C/64, T, 64)."""
    return partial(_inference, partial(scaled_dot_product_attention, is_causal=causal), _attention(tokens))


def forward(name: str, tokens: int) -> Callable[[], Tensor]:
    """The measured form of a kernel, without gradients."""
    kernel = KERNELS[name]
    return partial(_inference, kernel.form(), kernel.inputs(tokens))


def training(name: str, tokens: int) -> Callable[[], list[Tensor]]:
    """The measured form of a kernel ("sdpa" is one here), forward and backward."""
    if name == "sdpa":
        return forward_backward(scaled_dot_product_attention, _attention(tokens))
    return forward_backward(KERNELS[name].form(), KERNELS[name].inputs(tokens))


def vs_attention(name: str, tokens: int, causal: bool, setting: Setting) -> Measured:
    tokens = setting.tokens(tokens)
    check(name, tokens)
    return relative(forward(name, tokens), attention(tokens, causal), setting)


def vs_copy(tokens: int, setting: Setting) -> Measured:
    """WKV-4 against the time in which its 12 bytes an element could be copied."""
    tokens = setting.tokens(tokens)
    check("wkv4", tokens)
    x = KERNELS["wkv4"].inputs(tokens)[-1]
    mine, copy = in_turns([forward("wkv4", tokens), partial(torch.empty_like(x).copy_, x)], setting)
    return ratio(mine, [taken * BYTES_NEEDED / BYTES_COPIED for taken in copy])


def vs_plain(name: str, tokens: int, setting: Setting) -> Measured:
    """Forward and backward of the measured form against those of the reference."""
    kernel, tokens = KERNELS[name], setting.tokens(tokens)
    inputs = kernel.inputs(tokens)
    require_accurate(kernel.form(), kernel.form("reference"), inputs, gradients=True)
    plain = forward_backward(kernel.form("reference"), inputs)
    return times_faster(training(name, tokens), plain, setting)


def growth(name: str, train: bool, few: int, many: int, setting: Setting) -> Measured:
    """The time for `many` tokens as a multiple of that for `few`."""
    few, many = setting.tokens(few), setting.tokens(many)
    check(name, few)
    if train:
        check(name, min(few, CHECKED), gradients=True)
    make = training if train else forward
    return relative(make(name, many), make(name, few), setting)


def curve(setting: Setting, lengths: list[int]) -> dict[str, dict[int, float]]:
    """Median seconds of the forward pass at each length, of every kernel but v1's wide heads, and of attention."""
    names = [name for name in KERNELS if name != "v1_hs64"]
    found: dict[str, dict[int, float]] = {name: {} for name in [*names, "sdpa"]}
    for tokens in lengths:
        calls = {name: forward(name, tokens) for name in names} | {"sdpa": attention(tokens)}
        for name, taken in zip(calls, in_turns(list(calls.values()), setting), strict=True):
            found[name][tokens] = sorted(taken)[len(taken) // 2]
    return found


def check(name: str, tokens: int, gradients: bool = False) -> None:
    """Disagreement unless the measured form is as right as its reference for so many tokens."""
    kernel, oracle = KERNELS[name], "reference"
    if kernel.defined_up_to and tokens > kernel.defined_up_to:
        check(name, kernel.defined_up_to, gradients)
        oracle = "chunked"
    require_accurate(kernel.form(), kernel.form(oracle), kernel.inputs(tokens), gradients)


def _inference(form: Form, inputs: list[Tensor]) -> Tensor:
    with torch.inference_mode():
        return form(*inputs)
