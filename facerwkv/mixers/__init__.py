"""What mixes tokens over time and over channels: one file per generation, named in MIXERS.

A TimeMix and a ChannelMix are built from (MixerConfig, layer) and called with normalised tokens (B, T, D) and their
grid (Hp, Wp). Where the mathematics allows a recurrence they also have `stream(x, state) -> (y, state)`, which gives
the same outputs when tokens come in pieces.

For inference a TimeMix may have `last(x, count)`, which gives forward's last `count` outputs for less work (its
ChannelMix then looks no further back than the token before; a row shift has no `last`), and either half `folded()`, a
module that computes the same, to rounding, from constants worked out beforehand. One that is linear in its values
passes them, (B, T, ...), through `hook_value`, an Identity, on their way into the kernel: a hook there sees who hands
on what.
"""

from dataclasses import dataclass

from torch import nn

from facerwkv.mixers import attention, identity, rwkv1, rwkv4, rwkv6, rwkv7, vrwkv
from facerwkv.mixers.config import MixerConfig


@dataclass(frozen=True)
class Mixer:
    """The two halves of a block, the norm before each, and what one line says about it."""

    time_mix: type[nn.Module]
    channel_mix: type[nn.Module]
    about: str
    norm: type[nn.Module] = nn.LayerNorm

    @property
    def streams(self) -> bool:
        """Whether tokens may come in pieces."""
        return hasattr(self.time_mix, "stream")

    @property
    def endless(self) -> bool:
        """Whether any number of tokens may come, with a state that does not grow; not with a table of positions."""
        return self.streams and not getattr(self.time_mix, "table", False)

    @property
    def shares(self) -> bool:
        """Whether the time mix hands something on to later blocks, in a dict that it is called with."""
        return getattr(self.time_mix, "shares", False)


MIXERS = {
    "rwkv1": Mixer(rwkv1.TimeMix, rwkv1.ChannelMix, "RWKV-1, as the paper's authors ran it: free table, no state"),
    "rwkv4": Mixer(rwkv4.TimeMix, rwkv4.ChannelMix, "RWKV-4, as the paper's text describes it: decay, linear"),
    "rwkv5": Mixer(rwkv6.EagleTimeMix, rwkv6.EagleChannelMix, "RWKV-5 Eagle: a matrix per head, fixed decay, linear"),
    "rwkv6": Mixer(rwkv6.FinchTimeMix, rwkv6.FinchChannelMix, "RWKV-6 Finch: decay and shift depend on data, linear"),
    "rwkv7": Mixer(rwkv7.TimeMix, rwkv7.ChannelMix, "RWKV-7 Goose: delta rule and value residual, linear"),
    "vrwkv": Mixer(vrwkv.SpatialMix, vrwkv.ChannelMix, "Vision-RWKV: every patch sees all, quad shift, linear"),
    "vrwkv_post": Mixer(
        vrwkv.PostSpatialMix, vrwkv.PostChannelMix, "Vision-RWKV with norms and scales after the mixers", nn.Identity
    ),
    "vrwkv_key_norm": Mixer(
        vrwkv.NormedSpatialMix, vrwkv.NormedChannelMix, "Vision-RWKV as vrwkv_post, norms inside too", nn.Identity
    ),
    "attention": Mixer(attention.TimeMix, attention.ChannelMix, "softmax attention, quadratic"),
    "identity": Mixer(identity.TimeMix, identity.ChannelMix, 'no mixing, the paper\'s "w/o RWKV"', nn.Identity),
}

__all__ = ["MIXERS", "Mixer", "MixerConfig"]
