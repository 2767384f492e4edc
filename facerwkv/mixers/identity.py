"""No mixing at all: the paper's "w/o RWKV" (section 5.5). A block built of these hands its tokens on unchanged."""

import torch
from torch import Tensor

from facerwkv.mixers import base
from facerwkv.mixers.config import MixerConfig


class TimeMix(base.TimeMix):
    name = "identity"

    def __init__(self, config: MixerConfig, layer: int):
        super().__init__(config)

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        return torch.zeros_like(x)

    def stream(self, x: Tensor, state: None) -> tuple[Tensor, None]:
        return torch.zeros_like(x), None


class ChannelMix(TimeMix):
    pass
