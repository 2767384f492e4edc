"""What a claim of mixing is held against: Vision-RWKV's block with less and less of its time mix, and convolutions.

Everything else of the block stays: norms, gates, the quad shift and the channel mix.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from facerwkv.kernels.products import Linear
from facerwkv.mixers import base, vrwkv
from facerwkv.mixers.base import truncated_normal
from facerwkv.mixers.config import MixerConfig


class FlatTimeMix(vrwkv.TimeMix):
    """Decay and bonus are fixed at zero: all tokens get one mean of the values, weighted by the keys."""

    name = "vrwkv_flat"

    def __init__(self, config: MixerConfig, layer: int):
        super().__init__(config, layer)
        _fix_at_zero(self.time_decay, self.time_first)


class MeanTimeMix(FlatTimeMix):
    """The keys are fixed at zero too: all tokens get the plain mean of the values."""

    name = "vrwkv_mean"

    def __init__(self, config: MixerConfig, layer: int):
        super().__init__(config, layer)
        _fix_at_zero(self.key.weight, self.mix_key)


class NoTimeMix(base.TimeMix):
    """No time mix; the channel mix's quad shift still looks at the four neighbours."""

    name = "vrwkv_none"

    def __init__(self, config: MixerConfig, layer: int):
        super().__init__(config)

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        return torch.zeros_like(x)


FlatChannelMix = MeanChannelMix = NoChannelMix = vrwkv.ChannelMix


class ConvTimeMix(base.TimeMix):
    """A 3 x 3 convolution on the grid: with the channel mix 13 D^2 per token, as much as Vision-RWKV's block."""

    name = "conv"

    def __init__(self, config: MixerConfig, layer: int):
        super().__init__(config)
        self.conv = nn.Conv2d(config.width, config.width, 3, padding=1)

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        return self.conv(x.mT.unflatten(-1, grid)).flatten(2).mT


class ConvChannelMix(nn.Module):
    """A perceptron with a GELU, hidden width 2 D."""

    def __init__(self, config: MixerConfig, layer: int):
        super().__init__()
        hidden = config.hidden or 2 * config.width
        self.key, self.value = Linear(config.width, hidden), Linear(hidden, config.width)
        truncated_normal(self)

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        return self.value(functional.gelu(self.key(x)))


def _fix_at_zero(*parameters: Tensor) -> None:
    for parameter in parameters:
        nn.init.zeros_(parameter).requires_grad_(False)
