"""Which boxes of successive frames are the same face's, and how its probabilities are smoothed."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count

import numpy as np

from facerwkv.core.errors import InputError
from facerwkv.media.geometry import overlap

PATIENCE = 1.0
"""Seconds after which a face that is not seen any more is forgotten."""
OVERLAP = 0.2
"""The intersection over union from which boxes of two frames are the same face's."""

Smooth = Callable[[np.ndarray], np.ndarray]


@dataclass
class Tracker:
    """Which boxes of successive frames are the same face's: `tracker(seconds, boxes)` gives each box's number.

    A box (x1, y1, x2, y2) is the face of before that it overlaps most, from an intersection over union of `overlap`
    on; pairs that overlap more come first. Other boxes are new faces. Numbers start at 1 and are never given again; a
    face that is not seen for `patience` seconds is forgotten. The same boxes at the same time get the same numbers.
    """

    patience: float = PATIENCE
    overlap: float = OVERLAP
    alive: dict[int, tuple[float, Sequence[float]]] = field(default_factory=dict, init=False)
    _given: int = field(default=0, init=False)

    def __call__(self, time: float, boxes: Sequence[Sequence[float]]) -> list[int]:
        known = list(self.alive)
        matched: dict[int, int] = {}
        if known and boxes:
            overlaps = overlap(np.array(boxes, float), np.array([box for _, box in self.alive.values()], float))
            for pair in np.argsort(-overlaps, axis=None, kind="stable").tolist():
                box, face = divmod(pair, len(known))
                if overlaps[box, face] < self.overlap:
                    break
                if box not in matched and known[face] not in matched.values():
                    matched[box] = known[face]
        new = count(self._given + 1)
        numbers = [matched[i] if i in matched else next(new) for i in range(len(boxes))]
        self._given = next(new) - 1
        self.alive |= {number: (time, box) for number, box in zip(numbers, boxes, strict=True)}
        self.alive = {number: face for number, face in self.alive.items() if time - face[0] <= self.patience}
        return numbers


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
