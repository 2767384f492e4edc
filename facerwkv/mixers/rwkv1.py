"""RWKV-1 (2021) as the FaceRWKV authors ran it: a free table over positions, half-channel shift, mish gate.

Source: RWKV-v1, src/model.py; the authors' copy is identical but sets the time mix's width to the number of heads
and keeps PyTorch's default initialisation. At full width weights start as upstream's.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from facerwkv.core.errors import InputError
from facerwkv.kernels.gates import mish_gate
from facerwkv.kernels.products import Linear
from facerwkv.kernels.toeplitz import KEY_MAX, KEY_MIN, table, toeplitz
from facerwkv.mixers import base
from facerwkv.mixers.base import require_past_only
from facerwkv.mixers.config import MixerConfig
from facerwkv.mixers.shift import half_shift

FOLDED_TOKENS = 1200  # a folded table is of H T^2 numbers: 46 MB for 8 heads


class TimeMix(base.TimeMix):
    """out = W_o(sigmoid(r) * toeplitz(k, v)) * gamma. Its tables have `config.tokens` positions, no more."""

    name = "rwkv1"
    shifts = ("token", "row")
    table = True
    portable = "reference"

    def __init__(self, config: MixerConfig, layer: int):
        super().__init__(config)
        self.tokens = config.tokens
        self.time_w = nn.Parameter(initial_table(config.heads, config.tokens))
        self.time_alpha = nn.Parameter(torch.ones(config.heads, config.tokens))
        self.time_beta = nn.Parameter(torch.ones(config.heads, config.tokens))
        self.time_gamma = nn.Parameter(torch.ones(config.tokens, 1))
        self.key = Linear(config.width, config.time_mix_dim)
        self.value = Linear(config.width, config.time_mix_dim)
        self.receptance = Linear(config.width, config.time_mix_dim)
        self.output = Linear(config.time_mix_dim, config.width)
        self.hook_value = nn.Identity()
        if config.time_mix_dim == config.width:
            start_as_upstream(self, zero=("key", "receptance", "output"))

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        length, x = x.shape[1], half_shift(x, self.shift, grid)
        check_length(length, self.tokens)
        k, v, r = self.key(x), self.hook_value(self.value(x)), self.receptance(x)
        keys, values = (part.unflatten(-1, (self.heads, -1)) for part in (k, v))
        tables = self.time_w[:, self.tokens - length :], self.time_alpha[:, :length], self.time_beta[:, :length]
        y = toeplitz(*tables, keys, values, self.implementation).flatten(2)
        return self.output(torch.sigmoid(r) * y) * self.time_gamma[:length]

    def stream(self, x: Tensor, state: dict | None) -> tuple[Tensor, dict]:
        """The same as a recurrence. A free table has no finite state: what is kept grows with every token."""
        require_past_only(shift=self.shift)
        state = state or {"last": None, "e": x[:, :0, : self.key.out_features], "ev": x[:, :0, : self.key.out_features]}
        shifted_x = half_shift(x, last=state["last"])
        e = self.key(shifted_x).clamp(KEY_MIN, KEY_MAX).exp()
        ev = torch.cat([state["ev"], e * self.value(shifted_x)], 1)
        e = torch.cat([state["e"], e], 1)
        return self._weigh(e, ev, self.receptance(shifted_x)), {"last": x[:, -1], "e": e, "ev": ev}

    def last(self, x: Tensor, count: int) -> Tensor:
        """The outputs of the last `count` tokens."""
        require_past_only(shift=self.shift)
        x, start = half_shift(x), max(x.shape[1] - count, 0)
        e = self.key(x).clamp(KEY_MIN, KEY_MAX).exp()
        return self._weigh(e, e * self.value(x), self.receptance(x[:, start:]))

    def _weigh(self, e: Tensor, ev: Tensor, r: Tensor) -> Tensor:
        """The outputs of the newest tokens, those of r, by rows of the whole table; e and ev (B, T, H S) of all."""
        start, stop = e.shape[1] - r.shape[1], e.shape[1]
        check_length(stop, self.tokens)
        rows = table(self.time_w, start, stop) * self.time_alpha[:, None, :stop] * self.time_beta[:, start:stop, None]
        sums = torch.einsum("htu,buhs->bths", rows, ev.unflatten(-1, (self.heads, -1))).flatten(2)
        y = sums / e.cumsum(1)[:, start:]
        return self.output(torch.sigmoid(r) * y) * self.time_gamma[start:stop]

    def folded(self) -> nn.Module:
        """What computes the same for inference."""
        return FoldedTimeMix(self) if self.tokens <= FOLDED_TOKENS else self


class FoldedTimeMix(nn.Module):
    """TimeMix with constants multiplied out: the whole table with alpha, beta and gamma, and one projection.

    It gives what TimeMix gives and cannot be trained. gamma scales W_o's bias too: (T, D) numbers are added in the end.
    """

    table: Tensor
    weight: Tensor
    bias: Tensor
    output: Tensor
    offset: Tensor

    def __init__(self, mix: TimeMix):
        super().__init__()
        self.heads, self.shift = mix.heads, mix.shift
        gamma, bias, parts = mix.time_gamma, mix.output.bias, (mix.key, mix.value, mix.receptance)
        rows = table(mix.time_w, 0, mix.tokens) * mix.time_alpha[:, None] * mix.time_beta[..., None]
        self.register_buffer("table", (rows * gamma).detach().clone())
        self.register_buffer("weight", torch.cat([part.weight for part in parts]).detach())
        self.register_buffer("bias", torch.cat([part.bias for part in parts]).detach())
        self.register_buffer("output", mix.output.weight.detach().clone())
        self.register_buffer("offset", (gamma * bias).detach())

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        return self.last(x, x.shape[1], grid)

    def last(self, x: Tensor, count: int, grid: tuple[int, int] | None = None) -> Tensor:
        """The outputs of the last `count` tokens; a row shift needs their grid."""
        if grid is None:
            require_past_only(shift=self.shift)
        length, x = x.shape[1], half_shift(x, self.shift, grid or (0, 0))
        check_length(length, self.table.shape[-1])
        start = max(length - count, 0)
        # Time comes last: sums over it then read neighbours in memory.
        k, v, r = (self.weight @ x.mT + self.bias[:, None]).chunk(3, 1)  # (B, H S, T)
        e = k.clamp(KEY_MIN, KEY_MAX).exp()
        columns = (e * v).unflatten(1, (self.heads, -1)).transpose(0, 1).flatten(1, 2)  # (H, B S, T)
        sums = columns @ self.table[:, start:length, :length].mT
        y = sums.unflatten(1, (x.shape[0], -1)).transpose(0, 1).flatten(1, 2) / e.cumsum(-1)[..., start:]
        return functional.linear((torch.sigmoid(r[..., start:]) * y).mT, self.output) + self.offset[start:length]


class ChannelMix(nn.Module):
    """out = sigmoid(R x) * W(mish(K x) * V x), hidden width 5/2 D."""

    def __init__(self, config: MixerConfig, layer: int):
        super().__init__()
        self.shift = config.shift
        hidden = config.hidden or 5 * config.width // 2
        self.key = Linear(config.width, hidden)
        self.value = Linear(config.width, hidden)
        self.weight = Linear(hidden, config.width)
        self.receptance = Linear(config.width, config.width)
        if config.time_mix_dim == config.width:
            start_as_upstream(self, zero=("receptance", "weight"))

    def forward(self, x: Tensor, grid: tuple[int, int], last: Tensor | None = None) -> Tensor:
        x = half_shift(x, self.shift, grid, last)
        return torch.sigmoid(self.receptance(x)) * self.weight(mish_gate(self.key(x), self.value(x)))

    def stream(self, x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        require_past_only(shift=self.shift)
        return self.forward(x, (0, 0), state), x[:, -1]

    def folded(self) -> nn.Module:
        """What computes the same for inference."""
        return FoldedChannelMix(self)


class FoldedChannelMix(nn.Module):
    """ChannelMix with one projection in place of three, and weights (in, out), as matrix products like them."""

    projection: Tensor
    bias: Tensor
    weight: Tensor
    offset: Tensor

    def __init__(self, mix: ChannelMix):
        super().__init__()
        self.shift = mix.shift
        parts = (mix.key, mix.value, mix.receptance)
        self.sizes = [part.out_features for part in parts]
        self.register_buffer("projection", torch.cat([part.weight for part in parts]).detach().mT.contiguous())
        self.register_buffer("bias", torch.cat([part.bias for part in parts]).detach())
        self.register_buffer("weight", mix.weight.weight.detach().mT.contiguous())
        self.register_buffer("offset", mix.weight.bias.detach())

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        rows = half_shift(x, self.shift, grid).flatten(0, 1)
        k, v, r = torch.addmm(self.bias, rows, self.projection).split(self.sizes, -1)
        y = torch.sigmoid(r) * torch.addmm(self.offset, mish_gate(k, v), self.weight)
        return y.view_as(x)


def start_as_upstream(mix: nn.Module, zero: Sequence[str]) -> None:
    """RWKV-v1's start of weights: those named are zeros, the others orthogonal, and biases 0."""
    for name, linear in mix.named_children():
        if isinstance(linear, nn.Linear):
            rows, columns = linear.weight.shape
            nn.init.orthogonal_(linear.weight, max(1.0, rows / columns) ** 0.5)
            nn.init.zeros_(linear.bias)
            if name in zero:
                nn.init.zeros_(linear.weight)


def check_length(length: int, tokens: int) -> None:
    """InputError where a table for `tokens` positions is too short."""
    if length > tokens:
        raise InputError(
            f"This rwkv1 model has position tables for {tokens} tokens and was given {length}. "
            "Use smaller images, or build the model for the larger size (image_size=...)."
        )


def initial_table(heads: int, tokens: int) -> Tensor:
    """w[h, j] = exp(-(T-1-j) s_h) with s_h = T^(-(h+1)/(H-1)), and 0 for the last head. Returns (H, T) float32."""
    lag = torch.arange(tokens - 1, -1, -1, dtype=torch.float64)
    speed = torch.zeros(heads, dtype=torch.float64)
    if heads > 1:
        speed[:-1] = torch.tensor([tokens ** (-(h + 1) / (heads - 1)) for h in range(heads - 1)])
    return torch.exp(-lag * speed[:, None]).float()
