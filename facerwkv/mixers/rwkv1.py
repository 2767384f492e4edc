"""RWKV-1 (2021) as the FaceRWKV authors ran it: a free table over positions, half-channel shift, mish gate.

Source: RWKV-v1, src/model.py; the authors' copy is identical but sets the time mix's width to the number of heads
and keeps PyTorch's default initialisation.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from facerwkv.core.errors import InputError
from facerwkv.kernels.gates import mish_gate
from facerwkv.kernels.products import Linear
from facerwkv.kernels.toeplitz import KEY_MAX, KEY_MIN, table, toeplitz
from facerwkv.mixers.config import MixerConfig, check_forward, check_whole
from facerwkv.mixers.shift import half_shift, row_shift

FOLDED_TOKENS = 1200  # a folded table holds H T^2 numbers: 46 MB for 8 heads


class TimeMix(nn.Module):
    """out = W_o(sigmoid(r) * toeplitz(k, v)) * gamma. Its tables hold `config.tokens` positions, no more."""

    implementation = "auto"  # of the kernel; an exporter that knows no native operator sets "reference"
    table = True

    def __init__(self, config: MixerConfig, layer: int):
        super().__init__()
        check_forward(config, "rwkv1")
        self.heads, self.tokens, self.shift = config.heads, config.tokens, config.shift
        self.time_w = nn.Parameter(initial_table(config.heads, config.tokens))
        self.time_alpha = nn.Parameter(torch.ones(config.heads, config.tokens))
        self.time_beta = nn.Parameter(torch.ones(config.heads, config.tokens))
        self.time_gamma = nn.Parameter(torch.ones(config.tokens, 1))
        self.key = Linear(config.width, config.time_mix_dim)
        self.value = Linear(config.width, config.time_mix_dim)
        self.receptance = Linear(config.width, config.time_mix_dim)
        self.output = Linear(config.time_mix_dim, config.width)
        self.hook_value = nn.Identity()

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        length = x.shape[1]
        k, v, r = self._project(shifted(x, grid, self.shift))
        keys, values = self._split(k), self._split(self.hook_value(v))
        y = toeplitz(*self._tables(length), keys, values, self.implementation)
        return self._gate(y.flatten(2), r) * self.time_gamma[:length]

    def stream(self, x: Tensor, state: dict | None) -> tuple[Tensor, dict]:
        """The same as a recurrence. A free table has no finite state: what is kept grows with every token."""
        check_whole(self.shift)
        state = state or {"last": None, "e": x[:, :0, : self.key.out_features], "ev": x[:, :0, : self.key.out_features]}
        k, v, r = self._project(half_shift(x, state["last"]))
        e_new = k.clamp(KEY_MIN, KEY_MAX).exp()
        e, ev = torch.cat([state["e"], e_new], 1), torch.cat([state["ev"], e_new * v], 1)
        start, stop = state["e"].shape[1], e.shape[1]
        sums = torch.einsum("htu,buhs->bths", self._rows(start, stop), self._split(ev)).flatten(2)
        y = self._gate(sums / e.cumsum(1)[:, start:], r) * self.time_gamma[start:stop]
        return y, {"last": x[:, -1], "e": e, "ev": ev}

    def last(self, x: Tensor, count: int) -> Tensor:
        """The outputs of the last `count` tokens; see Mixer."""
        check_whole(self.shift)
        x, stop = half_shift(x), x.shape[1]
        start = max(stop - count, 0)
        e = self.key(x).clamp(KEY_MIN, KEY_MAX).exp()
        sums = torch.einsum("htu,buhs->bths", self._rows(start, stop), self._split(e * self.value(x))).flatten(2)
        y = sums / e.cumsum(1)[:, start:]
        return self._gate(y, self.receptance(x[:, start:])) * self.time_gamma[start:stop]

    def folded(self) -> nn.Module:
        """What computes the same for inference; see Mixer."""
        return FoldedTimeMix(self) if self.tokens <= FOLDED_TOKENS else self

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.key(x), self.value(x), self.receptance(x)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1))

    def _gate(self, y: Tensor, r: Tensor) -> Tensor:
        return self.output(torch.sigmoid(r) * y)

    def _tables(self, length: int) -> tuple[Tensor, Tensor, Tensor]:
        check_length(length, self.tokens)
        return self.time_w[:, self.tokens - length :], self.time_alpha[:, :length], self.time_beta[:, :length]

    def _rows(self, start: int, stop: int) -> Tensor:
        """Rows start..stop of the whole weight matrix, (H, stop - start, stop)."""
        check_length(stop, self.tokens)
        return table(self.time_w, start, stop) * self.time_alpha[:, None, :stop] * self.time_beta[:, start:stop, None]


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
        parts = (mix.key, mix.value, mix.receptance)
        gamma, bias = mix.time_gamma, mix.output.bias
        rows = table(mix.time_w, 0, mix.tokens) * mix.time_alpha[:, None] * mix.time_beta[..., None]
        self.register_buffer("table", (rows * gamma).detach().clone())
        self.register_buffer("weight", torch.cat([part.weight for part in parts]).detach())
        self.register_buffer("bias", torch.cat([part.bias for part in parts]).detach())
        self.register_buffer("output", mix.output.weight.detach().clone())
        self.register_buffer("offset", (gamma * bias).detach())

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        return self._mix(shifted(x, grid, self.shift), x.shape[1])

    def last(self, x: Tensor, count: int) -> Tensor:
        """The outputs of the last `count` tokens."""
        check_whole(self.shift)
        return self._mix(half_shift(x), count)

    def _mix(self, x: Tensor, count: int) -> Tensor:
        length = x.shape[1]
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

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        return self._mix(shifted(x, grid, self.shift))

    def stream(self, x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        check_whole(self.shift)
        return self._mix(half_shift(x, state)), x[:, -1]

    def folded(self) -> nn.Module:
        """What computes the same for inference; see Mixer."""
        return FoldedChannelMix(self)

    def _mix(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.receptance(x)) * self.weight(mish_gate(self.key(x), self.value(x)))


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
        rows = shifted(x, grid, self.shift).flatten(0, 1)
        k, v, r = torch.addmm(self.bias, rows, self.projection).split(self.sizes, -1)
        y = torch.sigmoid(r) * torch.addmm(self.offset, mish_gate(k, v), self.weight)
        return y.view_as(x)


def shifted(x: Tensor, grid: tuple[int, int], shift: str) -> Tensor:
    """x (B, T, D), half of whose channels come from the neighbour that `shift` names."""
    return row_shift(x, grid) if shift == "row" else half_shift(x)


def check_length(length: int, tokens: int) -> None:
    """InputError where a table for `tokens` positions is too short."""
    if length > tokens:
        raise InputError(
            f"This rwkv1 model holds position tables for {tokens} tokens and was given {length}. "
            "Use smaller images, or build the model for the larger size (image_size=...)."
        )


def initial_table(heads: int, tokens: int) -> Tensor:
    """w[h, j] = exp(-(T-1-j) s_h) with s_h = T^(-(h+1)/(H-1)), and 0 for the last head. Returns (H, T) float32."""
    lag = torch.arange(tokens - 1, -1, -1, dtype=torch.float64)
    speed = torch.zeros(heads, dtype=torch.float64)
    if heads > 1:
        speed[:-1] = torch.tensor([tokens ** (-(h + 1) / (heads - 1)) for h in range(heads - 1)])
    return torch.exp(-lag * speed[:, None]).float()
