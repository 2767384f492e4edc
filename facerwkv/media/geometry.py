"""Boxes: x1, y1, x2, y2 in pixels of an upright image, x to the right and y down."""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

Box = tuple[float, float, float, float]


def area(box: Sequence[float]) -> float:
    """In pixels; 0 for a box that is empty."""
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def clip(box: Sequence[float], width: float, height: float) -> Box:
    """What of a box lies in an image; empty (x2 <= x1 or y2 <= y1) where nothing does."""
    x1, y1, x2, y2 = box
    return max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))


def whole_pixels(box: Sequence[float], width: int, height: int) -> tuple[int, int, int, int]:
    """The smallest box in whole pixels around a box, clipped to the image; it may be empty."""
    x1, y1, x2, y2 = box
    return max(0, math.floor(x1)), max(0, math.floor(y1)), min(width, math.ceil(x2)), min(height, math.ceil(y2))


def by_rows(boxes: Sequence[Sequence[float]]) -> list[int]:
    """The order in which people are named in a photograph: by rows from the top, in a row from the left.

    A box belongs to the row above if its centre lies between the top and the bottom of that row's first box.
    """
    rows: list[list[int]] = []
    for i in sorted(range(len(boxes)), key=lambda i: boxes[i][1] + boxes[i][3]):
        if not rows or (boxes[i][1] + boxes[i][3]) / 2 >= boxes[rows[-1][0]][3]:
            rows.append([])
        rows[-1].append(i)
    return [i for row in rows for i in sorted(row, key=lambda i: boxes[i][0])]


def intersection(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The area (A, B) that boxes (A, 4) and (B, 4) share."""
    sides = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    return sides.clip(0).prod(-1)


def overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The intersection over union (A, B) of boxes (A, 4) and (B, 4)."""
    common = intersection(a, b)
    areas = [(boxes[:, 2:] - boxes[:, :2]).clip(0).prod(-1) for boxes in (a, b)]
    return common / np.maximum(areas[0][:, None] + areas[1][None] - common, 1e-9)


def strongest(boxes: np.ndarray, scores: np.ndarray, most: float) -> list[int]:
    """Which of boxes (N, 4) with scores (N,) remain, the highest score first, when none may overlap a stronger one by
    more than `most` (intersection over union)."""
    import cv2

    corners = [(x1, y1, x2 - x1, y2 - y1) for x1, y1, x2, y2 in boxes.tolist()]
    return [int(i) for i in cv2.dnn.NMSBoxes(corners, scores.tolist(), 0.0, most)]


def cells(grid: tuple[int, int], size: tuple[int, int]) -> list[tuple[slice, slice]]:
    """Rows and columns of the pixels of each cell of a grid (Hp, Wp) on an image of size (h, w), in raster order."""
    rows, columns = (
        [slice(*pair) for pair in pairwise(np.linspace(0, side, count + 1).round().astype(int).tolist())]
        for side, count in zip(size, grid, strict=True)
    )
    return [(row, column) for row in rows for column in columns]
