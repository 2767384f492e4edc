"""Which boxes of successive frames are the same face's."""

from collections.abc import Sequence
from itertools import count

import numpy as np

from facerwkv.media.geometry import overlap

PATIENCE = 1.0
"""Seconds after which a face that is not seen any more is forgotten."""
OVERLAP = 0.2
"""The intersection over union from which boxes of two frames are the same face's."""


class Tracker:
    """Which boxes of successive frames are the same face's: `tracker(seconds, boxes)` gives each box's number.

    A box (x1, y1, x2, y2) is the face of before that it overlaps most, from an intersection over union of `overlap`
    on; pairs that overlap more come first. Other boxes are new faces. Numbers start at 1 and are never given again; a
    face that is not seen for `patience` seconds is forgotten. The same boxes at the same time get the same numbers.
    """

    def __init__(self, patience: float = PATIENCE, overlap: float = OVERLAP):
        self.patience, self.overlap = patience, overlap
        self.alive: dict[int, tuple[float, Sequence[float]]] = {}
        self._given = 0

    def __call__(self, time: float, boxes: Sequence[Sequence[float]]) -> list[int]:
        known, matched = list(self.alive), {}
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
