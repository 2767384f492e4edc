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
from importlib import import_module
from typing import Any

from facerwkv.mixers.config import MixerConfig


@dataclass(frozen=True)
class Mixer:
    """A line of MIXERS: the file of its two halves and what one line says about it.

    prefix: what the names of its classes start with, before TimeMix and ChannelMix. norm: the one before each half,
    of torch.nn. The file is imported when a class is asked for, so that configurations load no torch.
    """

    file: str
    about: str
    prefix: str = ""
    norm_name: str = "LayerNorm"

    @property
    def time_mix(self) -> type[Any]:
        return getattr(import_module(f"facerwkv.mixers.{self.file}"), f"{self.prefix}TimeMix")

    @property
    def channel_mix(self) -> type[Any]:
        return getattr(import_module(f"facerwkv.mixers.{self.file}"), f"{self.prefix}ChannelMix")

    @property
    def norm(self) -> type[Any]:
        return getattr(import_module("torch.nn"), self.norm_name)

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
    "rwkv1": Mixer("rwkv1", "RWKV-1, as the paper's authors ran it: free table, no state"),
    "rwkv4": Mixer("rwkv4", "RWKV-4, as the paper's text describes it: decay, linear"),
    "rwkv5": Mixer("rwkv6", "RWKV-5 Eagle: a matrix per head, fixed decay, linear", "Eagle"),
    "rwkv6": Mixer("rwkv6", "RWKV-6 Finch: decay and shift depend on data, linear", "Finch"),
    "rwkv7": Mixer("rwkv7", "RWKV-7 Goose: delta rule and value residual, linear"),
    "vrwkv": Mixer("vrwkv", "Vision-RWKV: every patch sees all, quad shift, linear"),
    "vrwkv_post": Mixer("vrwkv", "Vision-RWKV with norms and scales after the mixers", "Post", "Identity"),
    "vrwkv_key_norm": Mixer("vrwkv", "Vision-RWKV as vrwkv_post, norms inside too", "Normed", "Identity"),
    "attention": Mixer("attention", "softmax attention, quadratic"),
    "identity": Mixer("identity", 'no mixing, the paper\'s "w/o RWKV"', norm_name="Identity"),
}

__all__ = ["MIXERS", "Mixer", "MixerConfig"]
