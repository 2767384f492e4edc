"""Softmax attention and a GELU perceptron, pre-norm: the same block with a transformer's mixers, for comparison.

Source: An Image is Worth 16x16 Words (arXiv 2010.11929), section 3.1. Every token sees every other: no recurrence.
"""

from torch import Tensor, nn
from torch.nn import functional

from facerwkv.kernels.products import Linear
from facerwkv.mixers import base
from facerwkv.mixers.base import truncated_normal
from facerwkv.mixers.config import MixerConfig


class TimeMix(base.TimeMix):
    name = "attention"
    scans = ("forward", "both")  # it sees all tokens in any case

    def __init__(self, config: MixerConfig, layer: int):
        super().__init__(config)
        self.qkv = Linear(config.width, 3 * config.time_mix_dim)
        self.output = Linear(config.time_mix_dim, config.width)
        self.hook_value = nn.Identity()
        truncated_normal(self)

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        return self.last(x, x.shape[1])

    def last(self, x: Tensor, count: int) -> Tensor:
        """The outputs of the last `count` tokens."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # each (B, H, T, S)
        v = self.hook_value(v.transpose(1, 2)).transpose(1, 2)
        q = q[:, :, max(q.shape[2] - count, 0) :]
        y = functional.scaled_dot_product_attention(q, k, v)
        return self.output(y.transpose(1, 2).flatten(2))


class ChannelMix(nn.Module):
    def __init__(self, config: MixerConfig, layer: int):
        super().__init__()
        hidden = config.hidden or 4 * config.width
        self.key = Linear(config.width, hidden)
        self.value = Linear(hidden, config.width)
        truncated_normal(self)

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        return self.value(functional.gelu(self.key(x)))
