"""RWKV-4 "Dove" (2022): exponential decay with a constant state, learned interpolation with the token before.

Source: RWKV (arXiv 2305.13048), equations 11-18 (what the FaceRWKV paper's text describes), and RWKV-v4's
initialisation.
"""

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from facerwkv.kernels.biwkv import biwkv
from facerwkv.kernels.gates import sigmoid_gate
from facerwkv.kernels.products import gated_product, mixed_products, squared_relu_product
from facerwkv.kernels.wkv4 import wkv4
from facerwkv.mixers.base import RecurrentTimeMix, StreamedChannelMix
from facerwkv.mixers.config import MixerConfig


class TimeMix(RecurrentTimeMix):
    """out = W_o(sigmoid(r) * wkv(k, v)). Streaming keeps (a, b, p) and the last token: a constant size.

    With scan "both" a token also sees those after it, each once, decayed alike.
    """

    name = "rwkv4"
    undecayed: ClassVar = {"time_decay": -math.inf, "time_first": 0.0}

    def __init__(self, config: MixerConfig, layer: int):
        super().__init__(config)
        width = config.width
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.receptance = nn.Linear(width, width, bias=False)
        self.output = nn.Linear(width, width, bias=False)
        self.hook_value = nn.Identity()
        start = initial_values(width, config.depth, layer)
        self.time_decay = nn.Parameter(start["decay"])
        self.time_first = nn.Parameter(start["first"])
        self.mix_key = nn.Parameter(start["mix_key"])
        self.mix_value = nn.Parameter(start["mix_value"])
        self.mix_receptance = nn.Parameter(start["mix_receptance"])
        for layer_at_zero in (self.key, self.receptance, self.output):
            nn.init.zeros_(layer_at_zero.weight)
        nn.init.orthogonal_(self.value.weight)

    def _mix(self, x: Tensor, state: dict | None, start: int) -> tuple[Tensor, dict]:
        last, wkv = (None, None) if state is None else (state["last"], state["wkv"])
        mixes = torch.stack([self.mix_key, self.mix_value, self.mix_receptance])
        k, v, r = mixed_products(x, mixes, [self.key.weight, self.value.weight, self.receptance.weight], last)
        v = self.hook_value(v)
        w, u = self.time_decay.exp(), self.time_first
        if self.scan == "both":
            y = biwkv(w, u, k, v, self.implementation)
        else:
            y, wkv = wkv4(w, u, k, v, wkv, self.implementation)
        out = gated_product(r[:, start:], y[:, start:], self.output.weight, inplace=True)
        return out, {"last": x[:, -1], "wkv": wkv}


class ChannelMix(StreamedChannelMix):
    """out = sigmoid(W_r x_r) * W_v relu(W_k x_k)^2, hidden width 4 D."""

    def __init__(self, config: MixerConfig, layer: int):
        super().__init__()
        width, hidden = config.width, config.hidden or 4 * config.width
        self.key = nn.Linear(width, hidden, bias=False)
        self.value = nn.Linear(hidden, width, bias=False)
        self.receptance = nn.Linear(width, width, bias=False)
        ramp = (torch.arange(width) / width) ** (1 - layer / config.depth)
        self.mix_key = nn.Parameter(ramp.clone())
        self.mix_receptance = nn.Parameter(ramp)
        nn.init.zeros_(self.value.weight)
        nn.init.zeros_(self.receptance.weight)
        nn.init.orthogonal_(self.key.weight, max(1.0, (hidden / width) ** 0.5))

    def stream(self, x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        mixes = torch.stack([self.mix_key, self.mix_receptance])
        k, r = mixed_products(x, mixes, [self.key.weight, self.receptance.weight], state)
        y = squared_relu_product(k, self.value.weight, inplace=True)
        return sigmoid_gate(r, y, inplace=True), x[:, -1]


def initial_values(width: int, depth: int, layer: int) -> dict[str, Tensor]:
    """RWKV-v4's starting decay, bonus and interpolation per channel, each (D,) float32."""
    channel = torch.arange(width, dtype=torch.float64)
    rho, tau = layer / (depth - 1), 1 - layer / depth
    values = {
        "decay": -5 + 8 * (channel / (width - 1)) ** (0.7 + 1.3 * rho),
        "first": math.log(0.3) + 0.5 * ((channel + 1) % 3 - 1),
        "mix_key": (channel / width) ** tau,
        "mix_value": (channel / width) ** tau + 0.3 * rho,
        "mix_receptance": (channel / width) ** (tau / 2),
    }
    return {name: value.float() for name, value in values.items()}
