"""Scores by who is shown, where a data set says it: each group's, and the gap between the best group and the worst."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from facerwkv.core import metrics
from facerwkv.core.errors import InputError
from facerwkv.core.files import write_text
from facerwkv.core.metrics import RESAMPLES, Score
from facerwkv.data.samples import MARKS, UNKNOWN
from facerwkv.evaluation.evaluate import Evaluation

ALL = "all"
FEW = 30
"""Groups of fewer images are shown, not compared."""
MOST = 50
"""An attribute with more values tells images apart, not groups of people."""
FILE = "subgroups.json"
_SCORES = {"accuracy": metrics.accuracy, "uar": metrics.uar, "macro_f1": metrics.macro_f1}
_CHUNK = 2_000_000  # images shuffled at a time: about 100 MB at the peak

Attributes = Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class Gap:
    """How far the best group's score lies above the worst's, among the groups of FEW images or more.

    difference: with the 95 % bootstrap interval of these two groups' difference. p: the share of shuffles of the groups
    among the images of each class after which the gap between any two groups is as large; p_holm: corrected by Holm's
    method for all gaps of a report.
    """

    attribute: str
    score: str
    best: str
    worst: str
    difference: Score
    p: float
    p_holm: float = 1.0

    def to_dict(self) -> dict[str, Any]:
        return {"best": self.best, "worst": self.worst, **asdict(self.difference), "p": self.p, "p_holm": self.p_holm}


@dataclass(frozen=True)
class Subgroups:
    """groups: attribute → value → the evaluation of those images. unknown: the images that lack an attribute."""

    groups: dict[str, dict[str, Evaluation]]
    gaps: list[Gap]
    unknown: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Native numbers: attribute → "groups" (by value: n, few, scores) and "gaps" (by score; none: not compared)."""
        attributes = {
            attribute: {
                "groups": {value: _summary(part) for value, part in parts.items()},
                "gaps": {gap.score: gap.to_dict() for gap in self.gaps if gap.attribute == attribute},
            }
            for attribute, parts in self.groups.items()
        }
        return {"attributes": attributes, "unknown": self.unknown}

    def save(self, folder: Path) -> None:
        write_text(folder / FILE, json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n")


def is_few(part: Evaluation) -> bool:
    return len(part.names) < FEW


def _summary(part: Evaluation) -> dict[str, Any]:
    scores = {name: part.scores[name].to_dict() for name in _SCORES}
    return {"n": len(part.names), "few": is_few(part), **scores}


def choose_attributes(wanted: str, attributes: Attributes, source: str) -> tuple[str, ...]:
    """The attributes that a text such as "gender,age" or "all" names. InputError for one that no image has."""
    values: dict[str, set[str]] = {}
    for row in attributes:
        for name, value in row.items():
            values.setdefault(name, set()).add(value)
    there = [name for name, found in values.items() if name not in MARKS and 0 < len(found - {UNKNOWN}) <= MOST]
    if not there:
        raise InputError(
            f"{source} does not say who is shown, so it has no subgroups. rafdb does, and a manifest with columns such "
            f"as gender,age,race of at most {MOST} values."
        )
    names = there if wanted == ALL else [name.strip() for name in wanted.split(",")]
    if missing := [name for name in names if name not in there]:
        raise InputError(
            f"{source} has no attribute {', '.join(map(repr, missing))} with at most {MOST} values. It has "
            f"{', '.join(there)}; write --subgroups with some of them, or {ALL}."
        )
    return tuple(dict.fromkeys(names))


def score_subgroups(evaluation: Evaluation, attributes: Attributes, names: Sequence[str]) -> Subgroups:
    """The scores of every group of each named attribute; `attributes` are those of the evaluation's images."""
    groups = {name: _parts(evaluation, [row.get(name, UNKNOWN) for row in attributes]) for name in names}
    gaps = [gap for name, parts in groups.items() for gap in _gaps(name, parts)]
    corrected = holm([gap.p for gap in gaps])
    lacking = [any(row.get(name, UNKNOWN) == UNKNOWN for name in names) for row in attributes]
    return Subgroups(
        groups,
        [replace(gap, p_holm=p) for gap, p in zip(gaps, corrected, strict=True)],
        [name for name, lacks in zip(evaluation.names, lacking, strict=True) if lacks],
    )


def _parts(evaluation: Evaluation, values: list[str]) -> dict[str, Evaluation]:
    column = np.array(values)
    return {value: evaluation.restrict(column == value) for value in sorted(set(values), key=_order)}


def _order(value: str) -> tuple:
    """Ages by their first number, then words; what is unknown last."""
    number = re.match(r"\d+", value)
    return value == UNKNOWN, int(number[0]) if number else float("inf"), value


def _gaps(attribute: str, parts: dict[str, Evaluation]) -> Iterator[Gap]:
    compared = {value: part for value, part in parts.items() if value != UNKNOWN and not is_few(part)}
    if len(compared) < 2:
        return
    values, evaluations = list(compared), list(compared.values())
    found = np.array([[part.scores[name].value for name in _SCORES] for part in evaluations])
    draws = [metrics.bootstrap(_statistic([part]), len(part.names), seed=seed) for seed, part in enumerate(evaluations)]
    reached = np.ptp(found, axis=0) - 1e-9 <= shuffled_gaps(evaluations)
    p = (1 + reached.sum(0)) / (1 + len(reached))
    for column, name in enumerate(_SCORES):
        best, worst = int(found[:, column].argmax()), int(found[:, column].argmin())
        low, high = np.percentile(draws[best][:, column] - draws[worst][:, column], (2.5, 97.5)).tolist()
        value = float(found[best, column] - found[worst, column])
        difference = Score(value, min(low, value), max(high, value))
        yield Gap(attribute, name, values[best], values[worst], difference, float(p[column]))


def _statistic(parts: Sequence[Evaluation]) -> Callable[[np.ndarray], np.ndarray]:
    """What makes of rows (R, n) of these parts' images, one part after the other, scores (R, 3)."""
    targets, predictions = (np.concatenate([getattr(part, of) for part in parts]) for of in ("targets", "predictions"))
    classes = len(parts[0].labels)

    def statistic(rows: np.ndarray) -> np.ndarray:
        matrix = metrics.confusion(targets[rows], predictions[rows], classes)
        return np.stack([score(matrix) for score in _SCORES.values()], -1)

    return statistic


def shuffled_gaps(parts: Sequence[Evaluation], resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """Each score's gap between the best and the worst of the groups, (resamples, 3), with the groups shuffled.

    They are shuffled among the images of each class, so that every group keeps its size and its share of every class:
    the distribution of the gap if answers, given the class, do not depend on the group.
    """
    statistic, ends = _statistic(parts), np.cumsum([len(part.names) for part in parts])[:-1]
    chunks = _shuffles(np.concatenate([part.targets for part in parts]), resamples, seed)
    return np.concatenate([np.ptp([statistic(rows) for rows in np.split(chunk, ends, 1)], axis=0) for chunk in chunks])


def _shuffles(targets: np.ndarray, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Row numbers (R, n), shuffled among the rows of each class."""
    rng, size = np.random.default_rng(seed), max(1, _CHUNK // len(targets))
    for start in range(0, resamples, size):
        rows = np.tile(np.arange(len(targets)), (min(size, resamples - start), 1))
        for target in np.unique(targets):
            members = np.flatnonzero(targets == target)
            rows[:, members] = rng.permuted(rows[:, members], axis=1)
        yield rows


def holm(p: Sequence[float]) -> list[float]:
    """p values corrected for how many they are, in their order. Source: Holm 1979."""
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(np.asarray(p, dtype=float)[order] * np.arange(len(p), 0, -1))
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(stepped, 1.0)
    return corrected.tolist()
