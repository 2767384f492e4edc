"""Images of bytes → planes of numbers, by a table that holds what becomes of each of the 256 values."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from facerwkv.kernels.calls import Inputs, choose, refusal, require, run, watched

INPUTS = Inputs("look_up", "images B h w c, table c 256", images=torch.uint8)


def look_up(images: Tensor, table: Tensor, implementation: str = "auto") -> Tensor:
    """images uint8 (B, h, w, c), table (c, 256) → (B, c, h, w) in the table's dtype.

    implementation: "reference" or "native" (C; CPU, float32, no gradient, not inside torch.compile); "auto" is native
    where it runs. InputError for another name, for other shapes and dtypes, and where "native" cannot run.
    """
    INPUTS.check(images, table)
    refused = refusal("pixels", table)
    if not refused and watched(images, table):  # it is no operator
        refused = "The native look_up runs without gradients and outside of torch.compile."
    if implementation == "native":
        require(refused, "reference")
    if choose(IMPLEMENTATIONS, implementation, "reference" if refused else "native") is _reference:
        return _reference(images, table)
    images, table = images.contiguous(), table.contiguous()
    batch, height, width, channels = images.shape
    y = table.new_empty(batch, channels, height, width)
    run("pixels_forward", (batch, height * width, channels), [images, table, y])
    return y


def _reference(images: Tensor, table: Tensor) -> Tensor:
    if not images.shape[-1]:
        return table.new_empty(images.shape[0], 0, *images.shape[1:3])
    planes = zip(table, images.unbind(-1), strict=True)
    return torch.stack([values[channel.long()] for values, channel in planes], 1)


IMPLEMENTATIONS: dict[str, Callable[..., Tensor]] = {
    "reference": _reference,
    "native": partial(look_up, implementation="native"),
}
