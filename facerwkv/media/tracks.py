"""Which boxes of successive frames are the same face's."""

from collections.abc import Sequence

import numpy as np

PATIENCE = 1.0
"""Seconds after which a face that is not seen any more is forgotten."""
OVERLAP = 0.2
"""The intersection over union from which boxes of two frames are the same face's."""

Box = Sequence[float]


class Tracker:
    """Which boxes of successive frames are the same face's: `tracker(seconds, boxes)` gives each box's number.

    A box (x1, y1, x2, y2) is the face of before that it overlaps most, from an intersection over union of `overlap`
    on; pairs that overlap more come first. Other boxes are new faces. Numbers start at 1 and are never given again; a
    face that is not seen for `patience` seconds is forgotten. The same boxes at the same time get the same numbers.
    """

    def __init__(self, patience: float = PATIENCE, overlap: float = OVERLAP):
        self.patience, self.overlap = patience, overlap
        self.alive: dict[int, tuple[float, Box]] = {}
        self._given = 0

    def __call__(self, time: float, boxes: Sequence[Box]) -> list[int]:
        found = self._matched(boxes)
        numbers = [found[i] if i in found else self._new() for i in range(len(boxes))]
        self.alive |= {number: (time, box) for number, box in zip(numbers, boxes, strict=True)}
        self.alive = {number: face for number, face in self.alive.items() if time - face[0] <= self.patience}
        return numbers

    def _matched(self, boxes: Sequence[Box]) -> dict[int, int]:
        """Box → number of the face that it is, greedily."""
        known = list(self.alive)
        found: dict[int, int] = {}
        if not (known and boxes):
            return found
        overlaps = overlap(np.array(boxes, float), np.array([box for _, box in self.alive.values()], float))
        for place in np.argsort(-overlaps, axis=None, kind="stable").tolist():
            box, face = divmod(place, len(known))
            if overlaps[box, face] < self.overlap:
                break
            if box not in found and known[face] not in found.values():
                found[box] = known[face]
        return found

    def _new(self) -> int:
        self._given += 1
        return self._given


def overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The intersection over union (A, B) of boxes x1, y1, x2, y2: (A, 4) and (B, 4)."""
    sides = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    common = sides.clip(0).prod(-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).clip(0).prod(-1) for boxes in (a, b)]
    return common / np.maximum(areas[0][:, None] + areas[1][None] - common, 1e-9)
