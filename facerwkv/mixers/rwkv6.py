"""RWKV-5 "Eagle" and RWKV-6 "Finch" (2024): per head a matrix, keys by values; in Finch interpolation and decay depend
on the data.

Source: Eagle and Finch (arXiv 2404.05892), and what RWKV-v5's train.py starts its models x052 and x060 from, which is
not what their constructors say: every matrix is orthogonal or zero.
"""

import math
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from facerwkv.kernels.products import Linear
from facerwkv.kernels.wkv6 import wkv6, wkv6_both
from facerwkv.mixers import rwkv4
from facerwkv.mixers.base import RecurrentTimeMix
from facerwkv.mixers.config import MixerConfig
from facerwkv.mixers.shift import token_shift

SHIFT_RANK, DECAY_RANK = 32, 64
NORM_EPS = 64e-5  # upstream divides what it normalises by 8 and adds 1e-5: the same


class EagleTimeMix(RecurrentTimeMix):
    """out = W_o(norm(wkv6(r, k, v)) * silu(g)), normalised per head. Streaming keeps H matrices and the last token."""

    name = "rwkv5"
    lr_scales: ClassVar = {"time_decay": 2.0}  # as upstream; read by training's parameter groups
    undecayed: ClassVar = {"time_decay": -math.inf, "time_first": 1.0}

    def __init__(self, config: MixerConfig, layer: int):
        super().__init__(config)
        width = config.width
        self.receptance = Linear(width, width, bias=False)
        self.key = Linear(width, width, bias=False)
        self.value = Linear(width, width, bias=False)
        self.gate = Linear(width, width, bias=False)
        self.output = Linear(width, width, bias=False)
        self.hook_value = nn.Identity()
        self.norm = HeadNorm(config, layer)
        ramp, rho, tau = ramps(config, layer)
        half, full = ramp ** (tau / 2), ramp**tau  # of the present token, for receptance, key, value and gate:
        self.mix_streams = nn.Parameter(torch.stack([half, full, full + 0.3 * rho, half]))
        channel = torch.arange(width)
        ramp = channel / (width - 1)
        self.time_decay = nn.Parameter(-6 + 5 * ramp ** (0.7 + 1.3 * rho))  # as log(-log w)
        self.time_first = nn.Parameter(rho * (1 - ramp) + 0.1 * ((channel + 1) % 3 - 1))
        for linear, scale in ((self.receptance, 1.0), (self.key, 0.1), (self.value, 1.0), (self.gate, 0.1)):
            nn.init.orthogonal_(linear.weight, scale)
        nn.init.zeros_(self.output.weight)

    def _mix(self, x: Tensor, state: dict | None, start: int) -> tuple[Tensor, dict]:
        last, wkv = (None, None) if state is None else (state["last"], state["wkv"])
        r, k, v, g, log_decay = self._streams(x, token_shift(x, last))
        v = self.hook_value(self.value(v))
        inputs = (self.receptance(r), self.key(k), v, log_decay, self.time_first)
        inputs = tuple(part.unflatten(-1, (self.heads, -1)) for part in inputs)
        if self.scan == "both":
            y = wkv6_both(*inputs, self.implementation)
        else:
            y, wkv = wkv6(*inputs, wkv, self.implementation)
        y = self.norm(y[:, start:]) * functional.silu(self.gate(g[:, start:]))
        return self.output(y), {"last": x[:, -1], "wkv": wkv}

    def _streams(self, x: Tensor, before: Tensor) -> tuple[Tensor, ...]:
        """What receptance, key, value and gate read, and the logarithm of the decay."""
        return *torch.addcmul(before, x - before, self.mix_streams[:, None, None]).unbind(0), -self.time_decay.exp()


class FinchTimeMix(EagleTimeMix):
    """As Eagle's, but what each stream takes of the token before, and the decay, are functions of the two tokens."""

    name = "rwkv6"

    def __init__(self, config: MixerConfig, layer: int):
        super().__init__(config, layer)
        width, mixes = config.width, 1 - self.mix_streams.data  # here they weigh the token before
        key = mixes[1:2]
        self.mix_streams = nn.Parameter(torch.cat([mixes, key]))  # the decay's starts as the key's
        self.mix_base = nn.Parameter(key[0].clone())
        self.mix_down = nn.Parameter(torch.zeros(width, 5 * SHIFT_RANK))
        self.mix_up = nn.Parameter(torch.empty(5, SHIFT_RANK, width).uniform_(-0.01, 0.01))
        self.time_decay_down = nn.Parameter(torch.zeros(width, DECAY_RANK))
        self.time_decay_up = nn.Parameter(torch.empty(DECAY_RANK, width).uniform_(-0.01, 0.01))

    def _streams(self, x: Tensor, before: Tensor) -> tuple[Tensor, ...]:
        change = before - x
        hidden = torch.tanh(torch.addcmul(x, change, self.mix_base) @ self.mix_down).unflatten(-1, (5, SHIFT_RANK))
        extra = torch.einsum("btsr,srd->sbtd", hidden, self.mix_up)
        *mixed, d = torch.addcmul(x, change, self.mix_streams[:, None, None] + extra).unbind(0)
        return *mixed, -(self.time_decay + torch.tanh(d @ self.time_decay_down) @ self.time_decay_up).exp()


class EagleChannelMix(rwkv4.ChannelMix):
    """RWKV-4's, with a hidden width of 3.5 D in steps of 32, and started smaller."""

    def __init__(self, config: MixerConfig, layer: int):
        hidden = config.hidden or max(32, int(3.5 * config.width) // 32 * 32)
        super().__init__(replace(config, hidden=hidden), layer)
        nn.init.orthogonal_(self.key.weight)


class FinchChannelMix(EagleChannelMix):
    """Eagle's, started with another interpolation."""

    def __init__(self, config: MixerConfig, layer: int):
        super().__init__(config, layer)
        ramp, _, tau = ramps(config, layer)
        for mix in (self.mix_key, self.mix_receptance):
            mix.data = ramp ** (tau**3)


class HeadNorm(nn.Module):
    """Normalises (B, T, H, N) over N and weighs every channel: a group norm with H groups. Returns (B, T, D)."""

    def __init__(self, config: MixerConfig, layer: int):
        super().__init__()
        self.weight = nn.Parameter(torch.full((config.width,), ((layer + 1) / config.depth) ** 0.7))
        self.bias = nn.Parameter(torch.zeros(config.width))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.bias, functional.layer_norm(x, x.shape[-1:], eps=NORM_EPS).flatten(-2), self.weight)


def ramps(config: MixerConfig, layer: int) -> tuple[Tensor, float, float]:
    """Channel i / D as (D,) float32; rho, 0 to 1 over the layers; tau, 1 down to 1 / depth."""
    return torch.arange(config.width) / config.width, layer / (config.depth - 1), 1 - layer / config.depth
