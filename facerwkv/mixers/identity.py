"""No mixing at all: the paper's "w/o RWKV" (section 5.5). A block built of these hands its tokens on unchanged."""

import torch
from torch import Tensor, nn

from facerwkv.mixers.config import MixerConfig, check_forward, check_token_shift


class TimeMix(nn.Module):
    def __init__(self, config: MixerConfig, layer: int):
        super().__init__()
        check_forward(config, "identity")
        check_token_shift(config, "identity")

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        return torch.zeros_like(x)

    def stream(self, x: Tensor, state: None) -> tuple[Tensor, None]:
        return torch.zeros_like(x), None


class ChannelMix(TimeMix):
    pass
