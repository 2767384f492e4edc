"""What speaks for a logit, by gradients: per patch of the image, or per token."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from facerwkv.core.errors import InputError
from facerwkv.media.geometry import cells
from facerwkv.models.onnx import OTHERS


def patch_grid(model: Any, size: tuple[int, int]) -> tuple[int, int]:
    """The patches (Hp, Wp) that a model cuts images of this height and width into; 8 x 8 where it cuts none."""
    stem: Any = getattr(model, "stem", None)
    return stem.grid(*size) if hasattr(stem, "grid") else OTHERS


def gradient(model: nn.Module, x: Tensor, number: int) -> Tensor:
    """x (1, c, h, w) → gradient times input of logit `number`, summed over the patches (Hp, Wp)."""
    x = x.detach().requires_grad_()
    (slope,) = torch.autograd.grad(model(x)[0, number], x)
    size = (x.shape[-2], x.shape[-1])
    pixels, grid = (x * slope).sum(1)[0], patch_grid(model, size)
    return torch.stack([pixels[cell].sum() for cell in cells(grid, size)]).unflatten(0, grid)


def tokens(model: Any, x: Tensor, number: int) -> Tensor:
    """x (1, c, h, w) → each token's value in the last time mix times its gradient of logit `number` (Hp, Wp).

    They add up to the time mix's output, before its gate, times that output's gradient: nothing is left over.
    InputError for a model without tokens.
    """
    mix: Any = model.blocks[-1].time_mix if hasattr(model, "blocks") and hasattr(model, "stem") else None
    if not hasattr(mix, "hook_value"):
        raise InputError(
            "Tokens hand on values in RWKV blocks and in attention; this model has none. Choose gradient or occlusion."
        )
    watched = Watched()
    path = ("blocks", str(len(model.blocks) - 1), "time_mix", "hook_value")
    (slope,) = torch.autograd.grad(_with(model, path, watched)(x)[0, number], watched.value)
    return (watched.value * slope).flatten(2).sum(-1)[0].unflatten(0, patch_grid(model, (x.shape[-2], x.shape[-1])))


class Watched(nn.Module):
    """Hands on what it is called with, and keeps it as `value`, where gradients end."""

    value: Tensor

    def forward(self, value: Tensor) -> Tensor:
        self.value = value.detach().requires_grad_()
        return self.value


def _with(module: nn.Module, path: Sequence[str], part: nn.Module) -> nn.Module:
    """A module that shares everything with this one but the part at `path`: a hook would be in other threads' way."""
    twin, (name, *below) = copy.copy(module), path
    own = _with(module.get_submodule(name), below, part) if below else part
    twin.__dict__["_modules"] = module._modules | {name: own}
    return twin
