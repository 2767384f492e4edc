"""What mixers are built of: the base of their time mixes, and a start of weights."""

from typing import Any, ClassVar

from torch import Tensor, nn

from facerwkv.core.errors import InputError
from facerwkv.mixers.config import MixerConfig


class TimeMix(nn.Module):
    """A time mix that refuses, with InputError as it is built, a configuration that it does not have."""

    name: ClassVar[str]
    scans: ClassVar[tuple[str, ...]] = ("forward",)
    shifts: ClassVar[tuple[str, ...]] = ("token",)
    full_width: ClassVar[bool] = False
    """Whether its width is the model's, and its initialisation runs from the first layer to the last."""
    table: ClassVar[bool] = False
    """Whether it has a table of positions, so that tokens come to an end."""
    shares: ClassVar[bool] = False
    """Whether it hands something on to later blocks, in a dict that it is called with."""
    undecayed: ClassVar[dict[str, float]] = {}
    """Decay and bonus: the parameters, and the values with which all tokens count alike, however far they are."""
    implementation = "auto"
    """Of its kernel."""

    def __init__(self, config: MixerConfig):
        super().__init__()
        self.heads, self.scan, self.shift = config.heads, config.scan, config.shift
        for option, value, known in (("scan", self.scan, self.scans), ("shift", self.shift, self.shifts)):
            if value not in known:
                from facerwkv.mixers import MIXERS

                others = (name for name, mixer in MIXERS.items() if value in getattr(mixer.time_mix, f"{option}s"))
                use = f"use {option}={known[0]!r}, or {', '.join(others)}"
                raise InputError(f"{self.name} has no {option} {value!r}; {use}.")
        if self.full_width and config.time_mix_dim != config.width:
            wrong = f"time_mix_dim {config.time_mix_dim} must be the width {config.width}"
            raise InputError(f"{self.name} mixes at full width: {wrong}.")
        if self.full_width and config.depth < 2:
            raise InputError(f"{self.name}'s initialisation needs a depth of at least 2, not {config.depth}.")

    @property
    def portable(self) -> str:
        """The implementation for an exporter that knows no native operator."""
        return "chunked"


class RecurrentTimeMix(TimeMix):
    """A time mix whose three ways in are one `_mix`: (tokens, the state before them or None, the first token whose
    output is wanted, what blocks share where it `shares`) → outputs and the state after the tokens."""

    scans = ("forward", "both")
    full_width = True
    _mix: Any

    def forward(self, x: Tensor, grid: tuple[int, int], *shared: dict[str, Tensor]) -> Tensor:
        return self._mix(x, None, 0, *shared)[0]

    def stream(self, x: Tensor, state: dict | None, *shared: dict[str, Tensor]) -> tuple[Tensor, dict]:
        """x (B, t, D), the next t tokens; returns their outputs and the state after them."""
        require_past_only(self.scan, self.shift)
        return self._mix(x, state, 0, *shared)

    def last(self, x: Tensor, count: int, *shared: dict[str, Tensor]) -> Tensor:
        """The outputs of the last `count` tokens."""
        return self._mix(x, None, max(x.shape[1] - count, 0), *shared)[0]


class StreamedChannelMix(nn.Module):
    """A channel mix whose `stream` from no state is its forward pass."""

    stream: Any

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        return self.stream(x, None)[0]


def require_past_only(scan: str = "forward", shift: str = "token") -> None:
    """InputError for a piece of the tokens where a token sees those after it, or looks a whole row back."""
    for option, value, use in (("scan", scan, "forward"), ("shift", shift, "token")):
        if value != use:
            raise InputError(f"A mixer with {option} {value!r} needs all tokens at once; use {option}={use!r}.")


def truncated_normal(module: nn.Module) -> None:
    """The start of every linear layer inside a module in vision transformers and Vision-RWKV."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=0.02)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
