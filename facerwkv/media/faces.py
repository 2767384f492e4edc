"""Image → face boxes, with the YuNet detector."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from facerwkv.core.errors import InputError
from facerwkv.core.processes import PerProcess
from facerwkv.core.runtime import open_graph
from facerwkv.media.geometry import strongest, whole_pixels
from facerwkv.media.yunet import FACES, IMAGES, STRIDES, rewritten

PUBLISHED = "face_detection_yunet_2023mar.onnx"
PACKAGED = Path(__file__).with_name("yunet.onnx")
"""What tools/write_detector.py made of the published file."""
# YuNet finds faces of about 10 to 400 pixels: of 48 x 48 face crops it finds 76 % as they are, 98 % at 256, 88 % at
# 480 and 7 % at 960. So small images are enlarged, and large ones are searched twice, for small and for large faces.
# At 160 the second search finds as many faces of 300 to 1,000 pixels as at 320, in half the time.
SMALLEST_SIDE = 256
ONE_SEARCH = 480
COARSE_SIDE = 160
OVERLAP = 0.3
NEAR = 160
"""Pixels of the square in which a face is looked for where it was before: it is then 80 large."""


@dataclass(frozen=True, slots=True)
class FaceBox:
    """A face in pixels of its image, x to the right and y down, clipped to the image.

    `score` is the detector's, 0 to 1. `landmarks` are (x, y) of the right eye, left eye, nose tip, right and left mouth
    corner, right and left as the person has them; they are not clipped.
    """

    x1: float
    y1: float
    x2: float
    y2: float
    score: float
    landmarks: tuple[tuple[float, float], ...]


class FaceDetector:
    """YuNet in onnxruntime: `detector(rgb)` lists the faces of an image, from left to right.

    `model` is an ONNX file, as published or as in this package; without it, the package's own. Faces have a score of at
    least `threshold` and a shorter side of at least `min_face` pixels; they are looked for in a copy whose longer side
    has at most `max_side` pixels. `threads` of onnxruntime's compute one image; several images are sooner done by as
    many threads that share the detector. Raises InputError if the file is missing or no such model.
    Source: Wu et al., "YuNet: a tiny millisecond-level face detector", 2023.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        threshold: float = 0.6,
        max_side: int = 960,
        threads: int = 1,
        min_face: int = 0,
    ):
        self.model = PACKAGED if model is None else Path(model)
        if not self.model.is_file():
            raise InputError(f"No face detector at {self.model}. Give YuNet's ONNX file: --detector-model PATH.")
        for name, value, least, most in (("threshold", threshold, 0, 1), ("max_side", max_side, 32, 100_000)):
            if not least <= value <= most:
                raise InputError(f"The detector's {name} is {value}; it should be from {least} to {most:,}.")
        self.threshold, self.max_side, self.min_face = threshold, max_side, min_face
        self._session = PerProcess(partial(_opened, self.model, threads))
        self._session()  # what is wrong with it is said here

    def __call__(self, rgb: np.ndarray) -> list[FaceBox]:
        """The faces in an image, uint8 (H, W, 3), RGB."""
        return self.batch([rgb])[0]

    def batch(self, images: Sequence[np.ndarray]) -> list[list[FaceBox]]:
        """The faces in each of several images of one size, uint8 (H, W, 3), RGB, searched together."""
        height, width = images[0].shape[:2]
        sides = [min(max(height, width, SMALLEST_SIDE), self.max_side)]
        if sides[0] > ONE_SEARCH:
            sides.append(COARSE_SIDE)
        found = []
        for side in sides:
            images = [resized(image, side) for image in images]
            back = np.tile([width / images[0].shape[1], height / images[0].shape[0]], 7)
            found.append([np.concatenate([rows[:, :14] * back, rows[:, 14:]], 1) for rows in self._search(images)])
        return [_boxes(np.concatenate(searches), width, height, self.min_face) for searches in zip(*found, strict=True)]

    def near(self, image: np.ndarray, places: Sequence[Sequence[float]]) -> list[FaceBox]:
        """The faces in the squares around boxes x1 y1 x2 y2, each twice as long as its box: a tenth of the time of the
        whole image for one, and nobody elsewhere is found."""
        if len(places) == 0:
            return []
        height, width = image.shape[:2]
        squares, back = np.zeros((len(places), NEAR, NEAR, 3), np.uint8), []
        for square, (x1, y1, x2, y2) in zip(squares, places, strict=True):
            side, x, y = max(x2 - x1, y2 - y1, 1), (x1 + x2) / 2, (y1 + y2) / 2
            left, top, right, bottom = whole_pixels((x - side, y - side, x + side, y + side), width, height)
            small = resized(image[top:bottom, left:right], NEAR)
            square[: small.shape[0], : small.shape[1]] = small
            back.append(((right - left) / small.shape[1], (bottom - top) / small.shape[0], left, top))
        found = []
        for rows, (across, down, left, top) in zip(self._search(list(squares)), back, strict=True):
            points = rows[:, :14] * np.tile([across, down], 7) + np.tile([left, top], 7)
            found.append(np.concatenate([points, rows[:, 14:]], 1))
        return _boxes(np.concatenate(found), width, height, self.min_face)

    def _search(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Each image's faces as they are `decoded`."""
        height, width = images[0].shape[:2]
        rows, columns = (-(-length // STRIDES[-1]) * STRIDES[-1] for length in (height, width))
        padded = np.zeros((len(images), rows, columns, 3), np.uint8)
        for image, place in zip(images, padded, strict=True):
            place[:height, :width] = image
        outputs = self._session().run([FACES], {IMAGES: padded})[0]
        cells = _cells(rows, columns)
        return [decoded(output, cells, self.threshold) for output in outputs]


def _boxes(rows: np.ndarray, width: int, height: int, min_face: int) -> list[FaceBox]:
    """Rows of several searches of an image as its faces, each once, from left to right."""
    rows = rows[strongest(rows[:, :4], rows[:, 14], OVERLAP)]
    rows[:, :4] = rows[:, :4].clip(0, [width, height] * 2)
    rows = rows[(rows[:, 2:4] - rows[:, :2]).min(1) >= max(1, min_face)]
    faces = []
    for x1, y1, x2, y2, *points, score in rows[rows[:, 0].argsort(kind="stable")].tolist():
        landmarks = tuple(zip(points[::2], points[1::2], strict=True))
        faces.append(FaceBox(x1, y1, x2, y2, score, landmarks))
    return faces


def resized(image: np.ndarray, side: int) -> np.ndarray:
    """An image, uint8 (H, W, 3), whose longer side has `side` pixels: the mean of whole blocks of pixels, and from
    there linear. That is ten times as fast as OpenCV's INTER_AREA, and all faces are found where they are with it.
    Blocks of 4 x 4 are halved twice: OpenCV is seven times as fast at that."""
    import cv2

    scale = side / max(image.shape[:2])
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    while (block := min(max(image.shape[:2]) // side, *image.shape[:2])) > 1:
        block = 3 if block == 3 else 2
        columns, rows = image.shape[1] // block, image.shape[0] // block
        image = cv2.resize(image[: rows * block, : columns * block], (columns, rows), interpolation=cv2.INTER_AREA)
    if size == (image.shape[1], image.shape[0]):
        return image
    return cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)


def decoded(output: np.ndarray, cells: np.ndarray, threshold: float) -> np.ndarray:
    """The faces, float64 (N, 15), in an output, float32 (16, cells), as OpenCV's FaceDetectorYN decodes it: x1 y1 x2
    y2, five landmarks x y, score; of those that overlap, the strongest."""
    import cv2

    with np.errstate(divide="ignore"):  # a score is two shares' geometric mean, so neither is below its square
        least = np.log(threshold**2) - np.log1p(-(threshold**2))
    maybe = np.flatnonzero(output[:2].min(0) > least)
    shares = 1 / (1 + np.exp(-output[:2, maybe].astype(np.float64)))
    scores = np.sqrt(shares[0] * shares[1])
    likely, scores = maybe[scores > threshold], scores[scores > threshold]
    values, corner, stride = output[2:, likely].astype(np.float64), cells[:2, likely], cells[2, likely]
    centre = (values[:2] + corner) * stride
    half = np.exp(values[2:4]) * stride / 2
    landmarks = (values[4:].reshape(5, 2, -1) + corner) * stride
    rows = np.concatenate([centre - half, centre + half, landmarks.reshape(10, -1), scores[None]]).T
    whole = np.concatenate([rows[:, :2], rows[:, 2:4] - rows[:, :2]], 1).astype(int)  # as OpenCV compares them
    return rows[np.array(cv2.dnn.NMSBoxes(whole.tolist(), rows[:, 14].tolist(), 0.0, OVERLAP), int)]


@lru_cache(64)
def _cells(height: int, width: int) -> np.ndarray:
    """Column, row and stride of each cell of an image of this size, float64 (3, cells)."""
    grids = []
    for stride in STRIDES:
        rows, columns = np.mgrid[: height // stride, : width // stride]
        grids.append(np.stack([columns.ravel(), rows.ravel(), np.full(rows.size, stride)]))
    return np.concatenate(grids, 1).astype(np.float64)


def _opened(model: Path, threads: int) -> Any:
    """onnxruntime's session for the file of a detector."""
    try:
        graph = model.read_bytes()
        session = open_graph(graph, "The face detector", threads)
        if [each.name for each in session.get_inputs()] != [IMAGES]:
            session = open_graph(rewritten(graph), "The face detector", threads)
    except InputError:
        raise
    except Exception as error:  # onnxruntime's have no common ancestor
        raise InputError(
            f"{model} is not a YuNet face detector, or it is damaged. Give the file {PUBLISHED}: --detector-model PATH."
        ) from error
    return session
