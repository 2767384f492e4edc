"""Vision-RWKV (2024): every patch sees all others, near ones by the quad shift and far ones by the bidirectional WKV.

Source: Vision-RWKV (arXiv 2403.02308) and OpenGVLab's code and initialisation. The scan always goes both ways.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from facerwkv.kernels.biwkv import biwkv, biwkv_sums, fits_sums
from facerwkv.kernels.products import Linear
from facerwkv.mixers import base
from facerwkv.mixers.base import truncated_normal
from facerwkv.mixers.config import MixerConfig
from facerwkv.mixers.rwkv4 import initial_values


def quad_shift(x: Tensor, grid: tuple[int, int]) -> Tensor:
    """Vision-RWKV's shift on the grid (Hp, Wp): the four quarters of the channels come from the left, right, upper and
    lower neighbour, zeros beyond the border. x (B, T, D) with T = Hp·Wp in raster order.
    """
    width = x.shape[-1]
    quarters = x.unflatten(1, grid).tensor_split([width // 4, width // 2, 3 * width // 4], -1)  # (B, Hp, Wp, D / 4)
    left, right = pad(quarters[0], (0, 0, 1, -1)), pad(quarters[1], (0, 0, -1, 1))
    upper, lower = pad(quarters[2], (0, 0, 0, 0, 1, -1)), pad(quarters[3], (0, 0, 0, 0, -1, 1))
    return torch.cat([left, right, upper, lower], -1).flatten(1, 2)


class TimeMix(base.TimeMix):
    """out = W_o(sigmoid(r) * biwkv(decay / T, first / T, k, v)), with a norm on the biwkv where `key_norm` says so."""

    name = "vrwkv"
    scans = ("forward", "both")  # it sees all tokens in any case
    full_width = True
    undecayed: ClassVar = {"time_decay": 0.0, "time_first": 0.0}
    key_norm = False

    def __init__(self, config: MixerConfig, layer: int):
        super().__init__(config)
        width = config.width
        self.key = Linear(width, width, bias=False)
        self.value = Linear(width, width, bias=False)
        self.receptance = Linear(width, width, bias=False)
        self.output = Linear(width, width, bias=False)
        self.hook_value = nn.Identity()
        self.norm = nn.LayerNorm(width) if self.key_norm else nn.Identity()
        start = initial_values(width, config.depth, layer)
        self.time_decay, self.time_first = nn.Parameter(start["decay"]), nn.Parameter(start["first"])
        self.mix_key = nn.Parameter(start["mix_key"])
        self.mix_value = nn.Parameter(start["mix_value"])
        self.mix_receptance = nn.Parameter(start["mix_receptance"])
        truncated_normal(self)

    @property
    def portable(self) -> str:
        """Running sums where this model's decays allow them for any number of tokens."""
        return "sums" if fits_sums(self.time_decay, self.time_first, 1) else "chunked"

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        shifted, tokens = quad_shift(x, grid), x.shape[1]
        k = self.key(torch.addcmul(shifted, x - shifted, self.mix_key))
        v = self.hook_value(self.value(torch.addcmul(shifted, x - shifted, self.mix_value)))
        r = self.receptance(torch.addcmul(shifted, x - shifted, self.mix_receptance))
        w, u = self.time_decay / tokens, self.time_first / tokens
        sums = self.implementation == "sums"
        y = self.norm(biwkv_sums(w, u, k, v) if sums else biwkv(w, u, k, v, self.implementation))
        return self.output(torch.sigmoid(r) * y)


class ChannelMix(nn.Module):
    """out = sigmoid(W_r x_r) * W_v relu(W_k x_k)^2, hidden width 4 D; a norm before W_v if `key_norm`."""

    key_norm = False

    def __init__(self, config: MixerConfig, layer: int):
        super().__init__()
        width, hidden = config.width, config.hidden or 4 * config.width
        self.key = Linear(width, hidden, bias=False)
        self.value = Linear(hidden, width, bias=False)
        self.receptance = Linear(width, width, bias=False)
        self.norm = nn.LayerNorm(hidden) if self.key_norm else nn.Identity()
        start = initial_values(width, config.depth, layer)["mix_key"]
        self.mix_key, self.mix_receptance = nn.Parameter(start.clone()), nn.Parameter(start)
        truncated_normal(self)

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        shifted = quad_shift(x, grid)
        k = self.norm(self.key(torch.addcmul(shifted, x - shifted, self.mix_key)).relu().square())
        r = self.receptance(torch.addcmul(shifted, x - shifted, self.mix_receptance))
        return torch.sigmoid(r) * self.value(k)


class _After(nn.Module):
    """Normalises what a mixer gives, and scales it by channel: the block's norm comes after the mixer, not before."""

    def __init__(self, config: MixerConfig, layer: int):
        super().__init__(config, layer)
        self.after = nn.LayerNorm(config.width)
        self.scale = nn.Parameter(torch.ones(config.width))

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        return self.scale * self.after(super().forward(x, grid))


class PostTimeMix(_After, TimeMix):
    pass


class PostChannelMix(_After, ChannelMix):
    pass


class NormedTimeMix(PostTimeMix):
    key_norm = True


class NormedChannelMix(PostChannelMix):
    key_norm = True
