"""A face that is turned in the image plane → upright."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from facerwkv.media.geometry import Box

Detector = Callable[[np.ndarray], Sequence[Any]]

SURE = 0.88
"""A face that the detector is as sure of stands upright: it is not looked at again."""
MARGIN = 0.05
"""Of the detector's score, by which another position must be better: a tilted face is found alike in all of them."""
TILTED = 15.0
"""Degrees of tilt from which a face is turned back; training's own faces tilt as much."""


def roll_of(detector: Detector, rgb: np.ndarray, face: Any, box: Box) -> float:
    """Degrees, by which a face, a FaceBox, is turned clockwise in the image, uint8 (H, W, 3).

    The detector finds six of ten faces that stand on their heads, and gives them the eyes of upright ones; but it is
    surest of a face that is upright. So what it doubts is looked at in four positions, and a tilt is the slope of the
    eyes. Measured in docs/log.md.
    """
    landmarks: Sequence[Any] = getattr(face, "landmarks", ())
    if len(landmarks) < 2:
        return 0.0
    (right_x, right_y), (left_x, left_y) = landmarks[:2]
    tilt = math.degrees(math.atan2(left_y - right_y, left_x - right_x))
    scores = {0: face.score + MARGIN}
    for degrees in (90, 180, 270) if face.score < SURE else ():
        scores[degrees] = max((found.score for found in detector(upright(rgb, box, degrees)[0])), default=0.0)
    likeliest = max(scores, key=scores.__getitem__)
    return float(likeliest) if likeliest else tilt if abs(tilt) > TILTED else 0.0


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
