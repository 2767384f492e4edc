"""What a mixer must know of the model around it; this file loads no torch."""

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
