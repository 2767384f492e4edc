"""FaceRWKV: stem → blocks → pool → head (the paper's figure 3)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from facerwkv.core.errors import InputError
from facerwkv.mixers import MIXERS, MixerConfig
from facerwkv.models import stem
from facerwkv.models.classifier import Classifier
from facerwkv.models.config import STEMS, ModelConfig
from facerwkv.models.position import Position


class DropPath(nn.Module):
    """In training, leave out a residual branch for this share of the images, and scale it up for the others.

    Source: Deep Networks with Stochastic Depth (arXiv 1603.09382), as in timm.
    """

    def __init__(self, drop_prob: float):
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        kept = x.new_empty(x.shape[0], *[1] * (x.ndim - 1)).bernoulli_(1 - self.drop_prob)
        return x * kept.div_(1 - self.drop_prob)


class Block(nn.Module):
    """x + TimeMix(norm x), then x + ChannelMix(norm x). Tokens (B, T, D) in and out."""

    def __init__(self, config: MixerConfig, mixer: str, layer: int, drop_path: float):
        super().__init__()
        parts = MIXERS[mixer]
        self.norm1 = parts.norm(config.width)
        self.time_mix: Any = parts.time_mix(config, layer)
        self.norm2 = parts.norm(config.width)
        self.channel_mix: Any = parts.channel_mix(config, layer)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()
        self.shares = parts.time_mix.shares

    def forward(self, x: Tensor, grid: tuple[int, int], shared: dict[str, Tensor]) -> Tensor:
        """`shared`: what the blocks of one forward pass hand on to later ones; empty before the first."""
        handed = (shared,) if self.shares else ()
        inplace = not torch.is_grad_enabled() and not torch.compiler.is_compiling()  # nobody else holds y
        y = self.drop_path(self.time_mix(self.norm1(x), grid, *handed))
        x = y.add_(x) if inplace and y.dtype == x.dtype else x + y
        y = self.drop_path(self.channel_mix(self.norm2(x), grid))
        return y.add_(x) if inplace and y.dtype == x.dtype else x + y

    def stream(self, x: Tensor, state: tuple | None, shared: dict[str, Tensor]) -> tuple[Tensor, tuple]:
        """The next tokens (B, t, D), given the state after those before them."""
        time, channel = state or (None, None)
        handed = (shared,) if self.shares else ()
        y, time = self.time_mix.stream(self.norm1(x), time, *handed)
        x = x + y
        y, channel = self.channel_mix.stream(self.norm2(x), channel)
        return x + y, (time, channel)


class FaceRWKV(Classifier):
    """Image (B, in_chans, H, W) → logits (B, num_classes).

    The patch must divide H and W; position tables interpolate to other sizes than config.image_size.
    Source: FaceRWKV (2023), section 4.2.
    """

    tables = r"^position\.|\.time_mix\.time_|\.mix_"

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.num_features = self.embed_dim = config.width
        self.grad_checkpointing = False
        self.stem: stem.PatchEmbed = getattr(stem, STEMS[config.stem].class_name)(
            config.in_chans, config.patch_size, config.width
        )
        grid = self.stem.grid(*config.image_size)
        self.position = Position(config.position, grid, config.width)
        self.norm_first: nn.Module = nn.Identity()  # Vision-RWKV has one
        shape = (config.width, config.depth, config.heads, config.time_mix_dim or config.width, config.hidden)
        mixer = MixerConfig(*shape, grid[0] * grid[1], config.scan, config.shift)
        drops = [config.drop_path_rate * layer / max(config.depth - 1, 1) for layer in range(config.depth)]
        self.blocks = nn.ModuleList(Block(mixer, config.mixer, layer, drop) for layer, drop in enumerate(drops))
        self.norm: nn.Module = nn.Identity()
        pooled = config.width * (grid[0] * grid[1] if config.pool == "flatten" else 1)
        self.head = nn.Sequential(nn.Linear(pooled, config.width), nn.ReLU()) if config.head == "mlp" else nn.Identity()
        self.head_hidden_size = config.width if config.head == "mlp" else pooled
        self.drop = nn.Dropout(config.drop_rate)
        self.reset_classifier(config.num_classes)
        step = config.patch_size * self.stem.reduction
        self.feature_info = [
            {"module": f"blocks.{layer}", "num_chs": config.width, "reduction": step} for layer in range(config.depth)
        ]

    def forward(self, x: Tensor) -> Tensor:
        x = self.forward_features(x)  # stem and blocks: (B, T, D)
        x = self.pool(x)  # pool and head: (B, head_hidden_size)
        return self.classifier(x)

    def forward_features(self, x: Tensor) -> Tensor:
        """Image → the last block's tokens (B, T, D), normalised where the model has a norm there."""
        return self.mixed(*self.embed(x))

    def mixed(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """What `embed` gives → the last block's tokens (B, T, D), normalised where the model has a norm there."""
        shared: dict[str, Tensor] = {}
        recompute = self.grad_checkpointing and torch.is_grad_enabled()
        for block in self.blocks:
            x = checkpoint(block, x, grid, shared, use_reentrant=False) if recompute else block(x, grid, shared)
        return self.norm(x)

    def pool(self, x: Tensor) -> Tensor:
        """Tokens (B, T, D) → what the classifier reads, (B, head_hidden_size)."""
        pool = self.config.pool
        x = x.flatten(1) if pool == "flatten" else x[:, -1] if pool == "last" else x.mean(1)
        return self.drop(self.head(x))

    def embed(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Image → tokens (B, T, D) with their positions, and the grid (Hp, Wp)."""
        x, grid = self.stem(x)
        return self.norm_first(self.position(x, grid)), grid

    def stream(self, tokens: Tensor, state: dict | None = None) -> tuple[Tensor, dict]:
        """The paper's "RNN mode" (section 4.1): tokens (B, t, D) from `embed`, in pieces of any length.

        Returns the logits as if the sequence ended here, and the state for the next piece.
        """
        if not self.recurrent:
            config, streaming = self.config, [name for name, mixer in MIXERS.items() if mixer.streams]
            raise InputError(
                f"A model with mixer {config.mixer!r}, scan {config.scan!r}, shift {config.shift!r} and pool "
                f"{config.pool!r} has no recurrent form; use one of {', '.join(streaming)}, forward, token, and last "
                "or mean."
            )
        if tokens.ndim != 3 or tokens.shape[2] != self.config.width:
            raise InputError(f"stream takes tokens (B, t, {self.config.width}) from embed, not {tuple(tokens.shape)}.")
        if state and (len(state["sum"]) != len(tokens) or state["sum"].device != tokens.device):
            held, given = ((len(x), x.device) for x in (state["sum"], tokens))
            raise InputError(
                f"The state is that of a batch of {held[0]} on {held[1]}, the tokens are a batch of {given[0]} on "
                f"{given[1]}: start a new batch without a state."
            )
        state = state or {"blocks": [None] * len(self.blocks), "sum": 0.0, "tokens": 0}
        states = []
        shared: dict[str, Tensor] = {}
        for block, before in zip(self.blocks, state["blocks"], strict=True):
            tokens, after = block.stream(tokens, before, shared)  # type: ignore[operator]
            states.append(after)
        tokens = self.norm(tokens)
        total, count = state["sum"] + tokens.sum(1), state["tokens"] + tokens.shape[1]
        pooled = total / count if self.config.pool == "mean" else tokens[:, -1]
        return self.classifier(self.drop(self.head(pooled))), {"blocks": states, "sum": total, "tokens": count}

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """The tokens after chosen blocks, as maps (B, D, Hp, Wp) or, with output_fmt="NLC", as (B, T, D).

        `norm`: whether those, too, pass the norm after the last block, where the model has one.
        """
        if output_fmt not in ("NCHW", "NLC"):
            raise InputError(f"Unknown output_fmt {output_fmt!r}. Choose NCHW or NLC.")
        from timm.models._features import feature_take_indices

        take, last = feature_take_indices(len(self.blocks), indices)
        x, grid = self.embed(x)
        taken = []
        shared: dict[str, Tensor] = {}
        recompute = self.grad_checkpointing and torch.is_grad_enabled()
        for layer, block in enumerate(self.blocks[: last + 1] if stop_early else self.blocks):
            x = checkpoint(block, x, grid, shared, use_reentrant=False) if recompute else block(x, grid, shared)
            if layer in take:
                y = self.norm(x) if norm else x
                taken.append(y.mT.unflatten(-1, grid) if output_fmt == "NCHW" else y)
        return taken if intermediates_only else (self.norm(x), taken)

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> Sequence[int]:
        """Drop the blocks after the last chosen one, and the head; the norm after them too if asked to."""
        from timm.models._features import feature_take_indices

        take, last = feature_take_indices(len(self.blocks), indices)
        self.blocks = self.blocks[: last + 1]
        if prune_norm:
            self.norm = nn.Identity()
        if prune_head:
            self.reset_classifier(0)
        return take

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block in the backward pass instead of keeping what it computed."""
        self.grad_checkpointing = enable

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """timm's layer groups: the stem, each block, the head."""
        return {"stem": r"^stem|^position", "blocks": [(r"^blocks\.(\d+)", None), (r"^head|^classifier", (99999,))]}

    @property
    def recurrent(self) -> bool:
        """Whether `stream` can run the model."""
        config = self.config
        ways = (config.scan, config.shift) == ("forward", "token")
        return MIXERS[config.mixer].streams and ways and config.pool != "flatten"
