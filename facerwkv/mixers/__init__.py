"""What mixes tokens over time and over channels: one file per generation, named in MIXERS.

To add one, write `mixers/NAME.py` with its two halves and list them in MIXERS; the tests read the table. A half is

    TimeMix(config: MixerConfig, layer: int)      derived from `base.TimeMix`, which checks scan, shift and width
    ChannelMix(config: MixerConfig, layer: int)   any nn.Module
    forward(x, grid) -> y                         normalised tokens (B, T, D) and their grid (Hp, Wp) → (B, T, D)

and may have, where the mathematics allows it,

    stream(x, state) -> (y, state)   both halves: forward's outputs when tokens come in pieces. The first state is None,
                                     later ones are tensors, alone or in tuples and dicts
    last(x, count) -> y              a time mix: forward's last `count` outputs for less work. The channel mix then
                                     looks no further back than the token before
    folded() -> nn.Module            what gives the same answers, to rounding, from constants worked out beforehand
    hook_value                       a time mix that is linear in its values passes them, (B, T, ...), through this
                                     nn.Identity on their way into the kernel: a hook there sees who hands on what
    undecayed                        a time mix's parameters of decay and bonus, and the values without effect
    implementation, portable         a time mix with a kernel calls it with the first, which an exporter that knows no
                                     native operator sets to the second
    lr_scales                        parameter's name → factor of the learning rate

A time mix whose class has `shares` takes one more argument in forward, stream and last: a dict that the blocks of one
forward pass hand on, empty before the first.
"""

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from facerwkv.mixers.config import MixerConfig


@dataclass(frozen=True)
class Mixer:
    """A line of MIXERS: the file of its two halves and one line about it.

    prefix: what the names of its classes start with, before TimeMix and ChannelMix. norm_name: the norm before each
    half, a class of torch.nn. The file is imported when a class is asked for: configurations load no torch.
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
        return self.streams and not self.time_mix.table


MIXERS = {
    "rwkv1": Mixer("rwkv1", "RWKV-1, as the paper's authors ran it: free table, no state"),
    "rwkv4": Mixer("rwkv4", "RWKV-4, as the paper's text describes it: decay, linear"),
    "rwkv5": Mixer("rwkv6", "RWKV-5 Eagle: a matrix per head, fixed decay, linear", "Eagle"),
    "rwkv6": Mixer("rwkv6", "RWKV-6 Finch: decay and shift depend on data, linear", "Finch"),
    "rwkv7": Mixer("rwkv7", "RWKV-7 Goose: delta rule and value residual, linear"),
    "vrwkv": Mixer("vrwkv", "Vision-RWKV: every patch sees all, quad shift, linear"),
    "vrwkv_post": Mixer("vrwkv", "Vision-RWKV with norms and scales after the mixers", "Post", "Identity"),
    "vrwkv_key_norm": Mixer("vrwkv", "Vision-RWKV as vrwkv_post, norms inside too", "Normed", "Identity"),
    "vrwkv_flat": Mixer("control", "Vision-RWKV without decay and bonus: keys alone weigh", "Flat"),
    "vrwkv_mean": Mixer("control", "Vision-RWKV with the plain mean of all values", "Mean"),
    "vrwkv_none": Mixer("control", "Vision-RWKV's channel mix alone, with its quad shift", "No"),
    "conv": Mixer("control", "3 x 3 convolutions at Vision-RWKV's cost", "Conv"),
    "attention": Mixer("attention", "softmax attention, quadratic"),
    "identity": Mixer("identity", 'no mixing, the paper\'s "w/o RWKV"', norm_name="Identity"),
}

__all__ = ["MIXERS", "Mixer", "MixerConfig"]
