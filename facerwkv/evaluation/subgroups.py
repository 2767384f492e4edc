"""Scores by who is shown, where a data set says it: each group's, and the gap between the best group and the worst."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from facerwkv.core import metrics
from facerwkv.core.errors import InputError
from facerwkv.core.files import write_text
from facerwkv.core.metrics import RESAMPLES, Score
from facerwkv.data.samples import MARKS, UNKNOWN
from facerwkv.evaluation.result import Evaluation

ALL = "all"
FEW = 30
"""Groups of fewer images are shown, not compared."""
MOST = 50
"""An attribute with more values tells images apart, not groups of people."""
FILE = "subgroups.json"

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
                "groups": {
                    value: {
                        "n": len(part.names),
                        "few": is_few(part),
                        **metrics.to_json(part.scores, metrics.of_confusion()),
                    }
                    for value, part in parts.items()
                },
                "gaps": {gap.score: gap.to_dict() for gap in self.gaps if gap.attribute == attribute},
            }
            for attribute, parts in self.groups.items()
        }
        return {"attributes": attributes, "unknown": self.unknown}

    def save(self, folder: Path) -> None:
        write_text(folder / FILE, json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n")


def is_few(part: Evaluation) -> bool:
    return len(part.names) < FEW


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
    groups = {}
    for name in names:
        column = np.array([row.get(name, UNKNOWN) for row in attributes])
        groups[name] = {
            value: evaluation.restrict(column == value) for value in sorted(set(column.tolist()), key=_order)
        }
    gaps = [gap for name, parts in groups.items() for gap in _gaps(name, parts)]
    corrected = holm([gap.p for gap in gaps])
    lacking = [any(row.get(name, UNKNOWN) == UNKNOWN for name in names) for row in attributes]
    return Subgroups(
        groups,
        [replace(gap, p_holm=p) for gap, p in zip(gaps, corrected, strict=True)],
        [name for name, lacks in zip(evaluation.names, lacking, strict=True) if lacks],
    )


def _order(value: str) -> tuple:
    """Ages by their first number, then words; what is unknown last."""
    number = re.match(r"\d+", value)
    return value == UNKNOWN, int(number[0]) if number else float("inf"), value


def _gaps(attribute: str, parts: dict[str, Evaluation]) -> Iterator[Gap]:
    """The gap of each score that is defined for at least two of the groups that are large enough."""
    compared = {value: part for value, part in parts.items() if value != UNKNOWN and not is_few(part)}
    if len(compared) < 2:
        return
    draws = {
        value: metrics.confusion_draws(part.confusion, seed=seed) for seed, (value, part) in enumerate(compared.items())
    }
    shuffled = shuffled_gaps([part.confusion for part in compared.values()])
    for name in metrics.of_confusion():
        found = {value: part.scores[name].value for value, part in compared.items() if name in part.scores}
        if len(found) < 2:
            continue
        best, worst = max(found, key=found.__getitem__), min(found, key=found.__getitem__)
        difference = Score.of(found[best] - found[worst], draws[best][name] - draws[worst][name])
        assert difference is not None  # of two finite values
        gaps = shuffled[name][np.isfinite(shuffled[name])]
        p = (1 + int((gaps >= difference.value - 1e-9).sum())) / (1 + len(gaps))
        yield Gap(attribute, name, best, worst, difference, p)


def shuffled_gaps(matrices: Sequence[np.ndarray], resamples: int = RESAMPLES, seed: int = 0) -> dict[str, np.ndarray]:
    """Each score's gap between the best and the worst of the groups, (resamples,), with the groups shuffled.

    matrices: a confusion matrix (C, C) per group. Groups are shuffled among the images of each class, so that every
    group keeps its size and its share of every class: the distribution of the gap if answers, given the class, do not
    depend on the group. Of the answers to a class, those that fall to a group follow a hypergeometric distribution.
    """
    rng = np.random.default_rng(seed)
    rest = np.tile(sum(matrices), (resamples, 1, 1))
    scored: dict[str, list[np.ndarray]] = {name: [] for name in metrics.of_confusion()}
    for matrix in matrices:
        drawn = np.zeros_like(rest)
        for truth in np.flatnonzero(matrix.any(-1)):
            wanted, others = np.full(resamples, matrix[truth].sum()), rest[:, truth].sum(-1)
            for answer in range(matrix.shape[-1]):
                others -= rest[:, truth, answer]
                drawn[:, truth, answer] = rng.hypergeometric(rest[:, truth, answer], others, wanted)
                wanted -= drawn[:, truth, answer]
        for name, values in scored.items():
            values.append(metrics.SCORES[name].function(drawn))
        rest = rest - drawn
    return {name: np.fmax.reduce(values) - np.fmin.reduce(values) for name, values in scored.items()}


def holm(p: Sequence[float]) -> list[float]:
    """p values corrected for how many they are, in their order. Source: Holm 1979."""
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(np.asarray(p, dtype=float)[order] * np.arange(len(p), 0, -1))
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(stepped, 1.0)
    return corrected.tolist()
