"""Which boxes of successive frames are the same face's, and how its probabilities are smoothed."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from facerwkv.core.errors import InputError
from facerwkv.media.geometry import overlap
from facerwkv.media.scenes import Look, Scene

PATIENCE = 1.0
"""Seconds after which a face that is not seen any more is forgotten."""
OVERLAP = 0.2
"""The intersection over union from which boxes of two frames are the same face's."""
_STEADY = 0.3
"""Seconds for which a face is expected to move on as it did."""

Smooth = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class _Face:
    """A track: its last box (4,), when that was, its speed in pixels per second beside the camera's, its look, and how
    far the camera has moved it since."""

    time: float
    box: np.ndarray
    speed: np.ndarray
    look: Look | None
    moved: np.ndarray

    def at(self, time: float) -> np.ndarray:
        """Where it is expected: x and y from its last box, in pixels."""
        return self.moved + self.speed * min(time - self.time, _STEADY)


@dataclass
class Tracker:
    """Which boxes of successive frames are the same face's: `tracker(seconds, boxes, rgb)` gives each box's number.

    A face is expected where it was, moved by the camera's motion and by its own; a box (x1, y1, x2, y2) is the face
    whose place it overlaps most, from an intersection over union of `overlap` on, and whose look is most like its own;
    a face that looks alike may be up to two widths away, and one that does not is another. Other boxes are new faces.
    Numbers start at 1 and are never given again; a face that is not seen for `patience` seconds is forgotten, and all
    are at a cut (`cut` says whether the last frame was the first after one). Without `rgb`, the frame, uint8 (H, W, 3),
    only boxes count. The same boxes at the same time get the same numbers.

    Sources: Bewley et al., "Simple online and realtime tracking" (SORT), 2016; Cao et al., OC-SORT, 2023, for the speed
    from observations instead of a Kalman filter; Aharon et al., BoT-SORT, 2022, for the camera's motion.
    """

    patience: float = PATIENCE
    overlap: float = OVERLAP
    alive: dict[int, _Face] = field(default_factory=dict, init=False)
    cut: bool = field(default=False, init=False)
    _given: int = field(default=0, init=False)
    _scene: Scene = field(default_factory=Scene, init=False)
    _last: tuple[object, list[int]] = field(default=(None, []), init=False)

    def __call__(self, time: float, boxes: Sequence[Sequence[float]], rgb: np.ndarray | None = None) -> list[int]:
        asked = time, [tuple(box) for box in boxes]
        if asked == self._last[0]:
            return self._last[1]
        self.cut, motion = self._scene(rgb) if rgb is not None else (False, np.zeros(2))
        alive = {} if self.cut else self.alive
        known = {number: replace(face, moved=face.moved + motion) for number, face in alive.items()}
        places = np.array(boxes, float).reshape(-1, 4)
        looks = [None if rgb is None else Look(rgb, box) for box in boxes]
        matched = self._matched(time, places, looks, known, rgb) if known and boxes else {}
        numbers = []
        for i, (box, look) in enumerate(zip(places, looks, strict=True)):
            if i not in matched:
                self._given += 1
            number, speed = matched.get(i, self._given), np.zeros(2)
            if (before := known.get(number)) and time > before.time:
                went = _centre(box) - _centre(before.box) - before.moved
                whole = look is None or (look.whole and before.look is not None and before.look.whole)
                speed = (before.speed + whole * went / (time - before.time)) / 2
            known[number] = _Face(time, box, speed, look, np.zeros(2))
            numbers.append(number)
        self.alive = {number: face for number, face in known.items() if time - face.time <= self.patience}
        self._last = asked, numbers
        return numbers

    def _matched(
        self, time: float, boxes: np.ndarray, looks: list[Look | None], known: dict[int, _Face], rgb: np.ndarray | None
    ) -> dict[int, int]:
        """Which box is which known face, the best pairs first."""
        numbers, faces = list(known), list(known.values())
        still = np.array([face.box + np.tile(face.moved, 2) for face in faces])
        expected = np.array([face.box + np.tile(face.at(time), 2) for face in faces])
        overlaps = np.maximum(overlap(boxes, expected), overlap(boxes, still))
        widths = np.maximum((boxes[:, 2:] - boxes[:, :2]).mean(-1), 1)[:, None]
        far = np.linalg.norm(_centre(boxes)[:, None] - _centre(expected), axis=-1) / widths
        alike = np.array([[look @ face.look if look and face.look else np.nan for face in faces] for look in looks])
        near = (far < 2) & (alike >= 0.85)
        for j, face in enumerate(faces):  # a detector's box may change where a face does not
            if face.look and rgb is not None:
                remains = np.fmax(face.look.remains(rgb, face.moved), face.look.remains(rgb, face.at(time)))
                alike[:, j] = np.fmax(alike[:, j], remains)
        needed = [max(0.3, 0.78 - 0.5 * (time - face.time)) for face in faces]
        fits = near | ((overlaps >= self.overlap) & (np.isnan(alike) | (alike >= needed)))
        scores = np.where(fits, overlaps + np.nan_to_num(alike), -1)
        found: dict[int, int] = {}
        for pair in np.argsort(-scores, axis=None, kind="stable").tolist():
            box, face = divmod(pair, len(numbers))
            if scores[box, face] >= 0 and box not in found and numbers[face] not in found.values():
                found[box] = numbers[face]
        return found


def _centre(boxes: np.ndarray) -> np.ndarray:
    """x and y, (..., 2), of boxes (..., 4)."""
    return (boxes[..., :2] + boxes[..., 2:]) / 2


def smoother(text: str | None) -> Callable[[], Smooth] | None:
    """What makes a new smoothing of probabilities (C,): "ema:WEIGHT", "median:FRAMES", or None for none."""
    if text is None:
        return None
    kind, _, number = text.partition(":")
    try:
        if kind == "ema" and 0 < float(number) <= 1:
            return lambda: Exponential(float(number))
        if kind == "median" and int(number) >= 1:
            return lambda: Median(int(number))
    except ValueError:
        pass
    raise InputError(f"{text!r} is no smoothing: write ema:WEIGHT, above 0 to 1, or median:FRAMES, 1 or more.")


@dataclass
class Exponential:
    """The mean of all before, in which the newest counts `weight`, the one before weight x (1 - weight), ..."""

    weight: float
    _mean: np.ndarray | None = field(default=None, init=False)

    def __call__(self, probs: np.ndarray) -> np.ndarray:
        self._mean = probs if self._mean is None else self._mean + self.weight * (probs - self._mean)
        return self._mean


class Median:
    """The median of the last `count`, by label, scaled so that the sum is 1."""

    def __init__(self, count: int):
        self._last: deque[np.ndarray] = deque(maxlen=count)

    def __call__(self, probs: np.ndarray) -> np.ndarray:
        self._last.append(probs)
        middle = np.median(self._last, axis=0)
        return middle / middle.sum() if middle.sum() > 0 else probs
