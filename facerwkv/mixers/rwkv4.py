"""RWKV-4 "Dove" (2022): exponential decay with a constant state, learned interpolation with the token before.

Source: RWKV (arXiv 2305.13048), equations 11-18 (what the FaceRWKV paper's text describes), and RWKV-v4's
initialisation.
"""

import math

import torch
from torch import Tensor, nn

from facerwkv.core.errors import InputError
from facerwkv.kernels.biwkv import biwkv
from facerwkv.kernels.gates import sigmoid_gate
from facerwkv.kernels.products import gated_product, mixed_products, squared_relu_product
from facerwkv.kernels.wkv4 import wkv4
from facerwkv.mixers.config import MixerConfig, check_streams, check_token_shift


class TimeMix(nn.Module):
    """out = W_o(sigmoid(r) * wkv(k, v)). Streaming keeps (a, b, p) and the last token: a constant size.

    With scan "both" a token also sees those after it, each once, decayed alike.
    """

    implementation = "auto"  # of the kernel; an exporter that knows no native operator sets "chunked"

    def __init__(self, config: MixerConfig, layer: int):
        super().__init__()
        check_token_shift(config, "rwkv4")
        width = config.width
        if config.time_mix_dim != width:
            raise InputError(
                f"rwkv4 mixes at full width: time_mix_dim {config.time_mix_dim} must be the width {width}."
            )
        if config.depth < 2:
            raise InputError(f"rwkv4's initialisation needs a depth of at least 2, not {config.depth}.")
        self.scan = config.scan
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
        _zero(self.key, self.receptance, self.output)
        _orthogonal(self.value)

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        return self._mix(x, None)[0]

    def stream(self, x: Tensor, state: dict | None) -> tuple[Tensor, dict]:
        """x (B, t, D), the next t tokens; returns their outputs and the state after them."""
        check_streams(self.scan)
        return self._mix(x, state)

    def last(self, x: Tensor, count: int) -> Tensor:
        """The outputs of the last `count` tokens; see Mixer."""
        return self._mix(x, None, max(x.shape[1] - count, 0))[0]

    def _mix(self, x: Tensor, state: dict | None, start: int = 0) -> tuple[Tensor, dict]:
        """The outputs from token `start` on, and the state after the last token."""
        last, held = (None, None) if state is None else (state["last"], state["wkv"])
        mixes = torch.stack([self.mix_key, self.mix_value, self.mix_receptance])
        k, v, r = mixed_products(x, mixes, [self.key.weight, self.value.weight, self.receptance.weight], last)
        y, held = self._scan(k, self.hook_value(v), held)
        out = gated_product(r[:, start:], y[:, start:], self.output.weight, inplace=True)
        return out, {"last": x[:, -1], "wkv": held}

    def _scan(self, k: Tensor, v: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor | None]:
        w, u = self.time_decay.exp(), self.time_first
        if self.scan == "both":
            return biwkv(w, u, k, v, self.implementation), None
        return wkv4(w, u, k, v, state, self.implementation)


class ChannelMix(nn.Module):
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
        _zero(self.value, self.receptance)
        _orthogonal(self.key)

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        return self.stream(x, None)[0]

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


def _zero(*layers: nn.Linear) -> None:
    for layer in layers:
        nn.init.zeros_(layer.weight)


def _orthogonal(layer: nn.Linear) -> None:
    gain = max(1.0, (layer.out_features / layer.in_features) ** 0.5)
    nn.init.orthogonal_(layer.weight, gain)
