"""An image → its pixels and its faces; of a large JPEG no more pixels than these need."""

import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from facerwkv.media.faces import FaceBox, FaceDetector
from facerwkv.media.geometry import Box
from facerwkv.media.images import MAX_PIXELS, Channels, ImageSource, is_image_url, open_reduced

Detector = Callable[[np.ndarray], Sequence[FaceBox | Sequence[float]]]


class Searched(NamedTuple):
    """An image, uint8 (h, w, 3), each of whose pixels is `scale` x `scale` of the whole, which has `size` (W, H); what
    the detector found in it, and the corners of each in pixels of the whole."""

    rgb: np.ndarray
    size: tuple[int, int]
    scale: int
    faces: list[Any]
    corners: list[Box]


def search(
    source: ImageSource,
    detector: Detector | None,
    needed: int = 0,
    channels: Channels = "rgb",
    name: str = "",
    max_pixels: int = MAX_PIXELS,
) -> Searched:
    """Read an image as `open_image` does, and find its faces.

    With `needed`, the longer side of a model's input, a JPEG file is read as large as the detector looks at it, or
    twice as large as the input without one; but whole where a face in it is then smaller than the input. A detector of
    the user's, and one with a `min_face`, sees the whole image. Raises UnreadableImage.
    """
    least = 2 * needed
    if detector:
        least = detector.max_side if needed and isinstance(detector, FaceDetector) and not detector.min_face else 0
    if not isinstance(source, str | bytes | os.PathLike) or is_image_url(source):
        least = 0  # it may be there to be read but once
    rgb, size = open_reduced(source, channels, name, max_pixels, least)
    scale, faces = round(max(size) / max(rgb.shape[:2])), list(detector(rgb)) if detector else []
    corners = [(face.x1, face.y1, face.x2, face.y2) if isinstance(face, FaceBox) else face[:4] for face in faces]
    if scale > 1:
        small = any(max(x2 - x1, y2 - y1) < needed for x1, y1, x2, y2 in corners)
        corners = [tuple(scale * edge for edge in each) for each in corners]
        if small:
            rgb, scale = open_reduced(source, channels, name, max_pixels)[0], 1
    return Searched(rgb, size, scale, faces, corners)  # type: ignore[arg-type]
