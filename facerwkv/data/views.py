"""Test-time averaging: the views of an image over which a model's logits are averaged."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from facerwkv.data.config import Views

COUNTS: dict[Views, int] = {"none": 1, "flip": 2, "ten": 10}
"""How many views there are: what averaging costs, in passes of the model."""
SHIFT = 1 / 24
"""Of the height and width, how far the four corners of `ten` lie from the middle: 2 of 48 pixels."""


def views(images: Any, tta: Views) -> Iterator[Any]:
    """Images (B, h, w, c), an array or a tensor, then their other views, of the same shape.

    flip: the mirror images. ten: those, and both shifted towards each corner, edges repeated, as ten crops are.
    """
    height, width = images.shape[1:3]
    down, across = round(height * SHIFT), round(width * SHIFT)
    corners = [(y, x) for y in (-down, down) for x in (-across, across)]
    for y, x in [(0, 0), *corners] if tta == "ten" else [(0, 0)]:
        rows, columns = (np.clip(np.arange(n) + move, 0, n - 1) for n, move in ((height, y), (width, x)))
        yield images[:, rows][:, :, columns] if (y, x) != (0, 0) else images
        if tta != "none":
            yield images[:, rows][:, :, columns[::-1].copy()]


def cost(tta: Views) -> str:
    """What is said beside a score that used it."""
    return f"tta {tta}: logits averaged over {COUNTS[tta]} views of each image, {COUNTS[tta]} times the cost"
