"""A face that is turned in the image plane → upright, by its eyes."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from facerwkv.media.geometry import Box

TURNED = 30.0
"""Degrees from which a face counts as turned; below, training's own faces tilt as much (docs/log.md)."""


def roll(landmarks: Sequence[tuple[float, float]]) -> float:
    """Degrees, -180 to 180, by which a face is turned clockwise: the slope from its right eye to its left eye.

    landmarks: (x, y) in pixels, those of a FaceBox; without any, 0.
    """
    if len(landmarks) < 2:
        return 0.0
    (right_x, right_y), (left_x, left_y) = landmarks[:2]
    return math.degrees(math.atan2(left_y - right_y, left_x - right_x))


def upright(rgb: np.ndarray, box: Box, degrees: float) -> tuple[np.ndarray, Box]:
    """What is around a box, uint8 (S, S, 3) with S twice the box's longer side, turned back by `degrees` about the
    box's centre, and the box in it. Beyond the image its border is repeated."""
    import cv2

    x1, y1, x2, y2 = box
    side = math.ceil(2 * max(x2 - x1, y2 - y1))
    centre = (x1 + x2 - 1) / 2, (y1 + y2 - 1) / 2  # OpenCV counts from the middle of the first pixel
    matrix: Any = cv2.getRotationMatrix2D(centre, degrees, 1.0)
    matrix[:, 2] += (side - 1) / 2 - np.array(centre)
    turned = cv2.warpAffine(rgb, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    left, top = (side - (x2 - x1)) / 2, (side - (y2 - y1)) / 2
    return turned, (left, top, left + x2 - x1, top + y2 - y1)
