"""RWKV-7 "Goose" (2025): the state unlearns what it holds under a key before it learns a new value there.

Source: Goose (arXiv 2503.14456), and what RWKV-v7's train.py starts its model x070 from, which is not what the model's
constructor says: every matrix is orthogonal or zero. Upstream trains with Adam (0.9, 0.99),
eps 1e-18, weight decay on matrices only, twice the learning rate for time_decay, and gradients clipped at 1.
"""

import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from facerwkv.kernels.products import Linear
from facerwkv.kernels.wkv7 import wkv7, wkv7_both
from facerwkv.mixers.base import RecurrentTimeMix, StreamedChannelMix
from facerwkv.mixers.config import MixerConfig
from facerwkv.mixers.rwkv6 import HeadNorm, ramps
from facerwkv.mixers.shift import token_shift


class TimeMix(RecurrentTimeMix):
    """out = W_o((norm(wkv7(r, w, k, v, a, b)) + bonus) * g). Streaming keeps H matrices and the last token.

    In `shared`, a dict that the blocks of one forward pass hand on, the first layer leaves its values, and every later
    one moves its own towards them.
    """

    name = "rwkv7"
    shares = True
    undecayed: ClassVar = {"time_decay.base": -math.inf, "time_bonus": 0.0}
    lr_scales: ClassVar = {"time_decay.base": 2.0}  # as upstream; read by training's parameter groups

    def __init__(self, config: MixerConfig, layer: int):
        super().__init__(config)
        self.layer, width = layer, config.width
        self.receptance = Linear(width, width, bias=False)
        self.key = Linear(width, width, bias=False)
        self.value = Linear(width, width, bias=False)
        self.output = Linear(width, width, bias=False)
        self.hook_value = nn.Identity()
        self.norm = HeadNorm(config, layer)
        ramp, _, tau = ramps(config, layer)  # of the token before, for receptance, decay, key, value, rate and gate:
        mixes = [1 - ramp ** (power * tau) for power in (0.2, 0.9, 0.7, 0.7, 0.9, 0.2)]
        self.mix_streams = nn.Parameter(torch.stack(mixes))
        start = initial_values(config, layer)
        self.time_decay = LowRank(width, 2.5, nn.Tanh(), start["decay"])
        self.time_rate = LowRank(width, 2.5, nn.Identity(), start["rate"])
        self.time_value = LowRank(width, 1.7, nn.Identity(), start["value"])
        self.time_gate = LowRank(width, 5.0, nn.Sigmoid(), None)
        self.time_removal = nn.Parameter(start["removal"])
        self.time_replacement = nn.Parameter(torch.full((width,), 1.02))
        self.time_bonus = nn.Parameter(torch.full((width,), -0.04))
        for linear, scale in ((self.receptance, 1.0), (self.key, 0.1), (self.value, 1.0)):
            nn.init.orthogonal_(linear.weight, scale)
        nn.init.zeros_(self.output.weight)
        self.time_value.requires_grad_(layer > 0)  # counted upstream, but the first layer has nothing to look to

    def _mix(
        self, x: Tensor, state: dict | None, start: int, shared: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, dict]:
        last, wkv = (None, None) if state is None else (state["last"], state["wkv"])
        change = token_shift(x, last) - x
        x_r, x_w, x_k, x_v, x_a, x_g = torch.addcmul(x, change, self.mix_streams[:, None, None]).unbind(0)
        log_decay = -math.exp(-0.5) * torch.sigmoid(self.time_decay(x_w))
        rate, gate = torch.sigmoid(self.time_rate(x_a)), self.time_gate(x_g[:, start:])
        k, v = self.key(x_k), self.value(x_v)
        first = v if shared is None else shared.setdefault("value", v)
        if self.layer:
            v = torch.addcmul(v, first - v, torch.sigmoid(self.time_value(x_v)))
        v, removal = self.hook_value(v), k * self.time_removal
        k = torch.addcmul(k, k * (rate - 1), self.time_replacement)
        parts = (self.receptance(x_r), log_decay, k, v, rate, removal, self.time_bonus)
        r, w, k, v, rate, removal, bonus = (part.unflatten(-1, (self.heads, -1)) for part in parts)
        removal = functional.normalize(removal, dim=-1, eps=1e-12)
        inputs = (r, w, k, v, -removal, removal * rate)
        if self.scan == "both":
            y = wkv7_both(*inputs, self.implementation)
        else:
            y, wkv = wkv7(*inputs, wkv, self.implementation)
        y, r, k, v = (part[:, start:] for part in (y, r, k, v))
        extra = (r * k * bonus).sum(-1, keepdim=True) * v
        return self.output((self.norm(y) + extra.flatten(2)) * gate), {"last": x[:, -1], "wkv": wkv}


class ChannelMix(StreamedChannelMix):
    """out = W_v relu(W_k x_k)^2, hidden width 4 D."""

    def __init__(self, config: MixerConfig, layer: int):
        super().__init__()
        width, hidden = config.width, config.hidden or 4 * config.width
        self.key = Linear(width, hidden, bias=False)
        self.value = Linear(hidden, width, bias=False)
        ramp, _, tau = ramps(config, layer)
        self.mix_key = nn.Parameter(1 - ramp ** (tau**4))
        nn.init.orthogonal_(self.key.weight)
        nn.init.zeros_(self.value.weight)

    def stream(self, x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        mixed = torch.addcmul(x, token_shift(x, state) - x, self.mix_key)
        return self.value(self.key(mixed).relu().square()), x[:, -1]


class LowRank(nn.Module):
    """base + act(x A) B with A (D, rank), zeros at first, and B (rank, D); the rank is a multiple of 32."""

    def __init__(self, width: int, scale: float, act: nn.Module, base: Tensor | None):
        super().__init__()
        rank = max(32, round(scale * width**0.5 / 32) * 32)
        self.act = act
        self.base = None if base is None else nn.Parameter(base)
        self.down = nn.Parameter(torch.zeros(width, rank))
        self.up = nn.Parameter(torch.empty(rank, width))
        nn.init.orthogonal_(self.up, 0.1 * max(1.0, (rank / width) ** 0.5))

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(x @ self.down) @ self.up
        return y if self.base is None else self.base + y


def initial_values(config: MixerConfig, layer: int) -> dict[str, Tensor]:
    """What decay, rate, value residual and removal key start from, each (D,)."""
    _, rho, _ = ramps(config, layer)
    channel, size = torch.arange(config.width), config.width // config.heads
    ramp = channel / (config.width - 1)
    zigzag = 2 * (channel % size) / max(size - 1, 1) - 1
    zigzag = zigzag * zigzag.abs()
    return {
        "decay": -5.5 + 6 * ramp ** (1 + rho**0.3) + 2.5 * zigzag,
        "rate": -0.19 + 0.3 * zigzag + 0.4 * (ramp - 0.5),
        "value": 0.73 - 0.4 * (ramp - 0.5),
        "removal": 0.71 - 0.1 * (ramp - 0.5),
    }
