"""What a mixer must know of the model around it."""

from dataclasses import dataclass

from facerwkv.core.errors import InputError


@dataclass(frozen=True)
class MixerConfig:
    """width D; depth, the number of blocks; heads; time_mix_dim, the width inside the time mix; hidden, that inside the
    channel mix (None: the generation's own); tokens, the number for which tables over positions are made; scan, whether
    a token sees those before it ("forward") or all ("both"); attention and vrwkv see all in any case; shift, whether a
    token's neighbour is the one before it ("token") or the one above it ("row")."""

    width: int
    depth: int
    heads: int
    time_mix_dim: int
    hidden: int | None
    tokens: int
    scan: str = "forward"
    shift: str = "token"

    def __post_init__(self):
        if self.time_mix_dim % self.heads:
            raise InputError(
                f"time_mix_dim {self.time_mix_dim} is not divisible by {self.heads} heads; change one of the two."
            )


def check_streams(scan: str) -> None:
    """InputError for tokens in pieces where every token sees the future."""
    if scan != "forward":
        raise InputError(f"A mixer with scan {scan!r} needs all tokens at once; stream with scan='forward'.")


def check_forward(config: MixerConfig, name: str) -> None:
    """InputError where the mixer called `name`, which has no form that sees the future, is asked for one."""
    if config.scan != "forward":
        raise InputError(f"{name} has no scan {config.scan!r}; use scan='forward', or one of rwkv4 to rwkv7.")


def check_token_shift(config: MixerConfig, name: str) -> None:
    """InputError where the mixer called `name`, which knows no other neighbour, is asked for the one above."""
    if config.shift != "token":
        raise InputError(f"{name} has no shift {config.shift!r}; use shift='token', or rwkv1.")


def check_whole(shift: str) -> None:
    """InputError for a part of the tokens where a token looks a whole row back."""
    if shift != "token":
        raise InputError(f"A mixer with shift {shift!r} needs all tokens at once; use shift='token'.")
