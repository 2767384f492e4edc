"""Samples → training, validation and test, by rules that depend on a seed but not on the order of the list."""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np

from facerwkv.core.errors import InputError
from facerwkv.data.samples import Sample

How = Literal["random", "per_class", "contiguous", "group", "copied", "test"]  # of the last none are held out

TRAIN_BLOCK, TEST_BLOCK = 0.8, 0.15
"""What `blocks_apart` keeps of every class: the first of the training and the last of the test images."""
BLOCKS = 5
"""A class gives its validation images in this many runs of neighbours, fewer where a run would have under ten."""


def split_validation(
    samples: Sequence[Sample], how: How, fraction: float = 0.1, seed: int = 0
) -> tuple[list[Sample], list[Sample]]:
    """Hold out `fraction` of the samples: (training, validation), both in the order of their file numbers.

    - `random`: exactly that share, whatever the class (the paper's). Frames of one clip fall on both sides.
    - `per_class`: that share of every class, at random (the authors' script).
    - `contiguous`: that share of every class, in runs of consecutive file numbers, so that few frames have a neighbour
      on the other side.
    - `group`: whole groups (subjects, clips), about that share.
    - `copied`: as random, but validation images stay in training too: the leak in the authors' script, to measure it.

    Raises InputError for an unknown rule, a fraction outside 0..1, too few samples, or samples without groups.
    """
    if how not in METHODS:
        raise InputError(f"Unknown way to split off validation images: {how!r}. Known: {', '.join(METHODS)}.")
    if not 0 < fraction < 1 or len(samples) < 2:
        raise InputError(
            f"Cannot hold out {fraction:g} of {len(samples)} images: it takes 2, and a share between 0 and 1."
        )
    ordered = sorted(samples, key=_file_number)
    held_out = METHODS[how](ordered, fraction, np.random.default_rng(seed))
    validation = [sample for sample, held in zip(ordered, held_out, strict=True) if held]
    if not validation:
        raise InputError("No class has two images, so none can be held out of each; use data.validation=random.")
    training = [sample for sample, held in zip(ordered, held_out, strict=True) if not held or how == "copied"]
    return training, validation


def split_folds(samples: Sequence[Sample], folds: int | Literal["all"], by: str | None = None) -> list[list[Sample]]:
    """Cut the samples into folds that have the classes in like shares: of each class runs of consecutive file numbers.

    With `by` (group, or an attribute) whole groups: the most uneven first, each to the fold where it evens the classes
    out most (as scikit-learn's StratifiedGroupKFold). "all": a fold for each group. Raises InputError for fewer samples
    or groups than folds, and for samples without the group.
    """
    ordered = sorted(samples, key=_file_number)
    groups: dict[str, list[Sample]] = defaultdict(list)
    for number, sample in enumerate(ordered):
        value = str(number) if by is None else sample.group if by == "group" else sample.attributes.get(by)
        if value is None:
            raise InputError(f"{sample.name} has no {by}, which the folds were to keep together. Leave out data.by.")
        groups[value].append(sample)
    count = len(groups) if folds == "all" else folds
    if not 2 <= count <= len(groups):
        what = f"{len(groups)} {by or 'image'}s"
        raise InputError(f"{what} cannot be cut into {count} folds; choose data.folds from 2 to {len(groups)}.")
    if folds == "all":
        return list(groups.values())
    labels = sorted({sample.label for sample in ordered})
    classes = {label: [sample for sample in ordered if sample.label == label] for label in labels}
    parts: list[list[Sample]] = [[] for _ in range(count)]
    if by is None:
        for those in classes.values():
            for part, rows in zip(parts, np.array_split(np.arange(len(those)), count), strict=True):
                part += [those[row] for row in rows]
        return parts
    sizes = np.array([len(classes[label]) for label in labels])
    names = {name: [each.label for each in those] for name, those in groups.items()}
    tables = {name: np.array([those.count(label) for label in labels]) for name, those in names.items()}
    there = np.zeros((count, len(labels)))
    for name in sorted(groups, key=lambda name: -tables[name].std()):

        def unevenness(fold: int, table: np.ndarray = tables[name]) -> tuple[float, float]:
            shares = there / sizes
            shares[fold] += table / sizes
            return round(float(shares.std(0).mean()), 12), float(there[fold].sum())

        best = min(range(count), key=unevenness)
        there[best] += tables[name]
        parts[best] += groups[name]
    return parts


def blocks_apart(train: Sequence[Sample], test: Sequence[Sample]) -> tuple[list[Sample], list[Sample]]:
    """Of every class the first 80 % of the training and the last 15 % of the test images, by their file numbers.

    For sets such as CAER-S, whose films run through both splits in the same order: what lies near a test image in its
    film is then not trained on. The tenth of a class between the two is the seam.
    """
    classes: dict[str, tuple[list[Sample], list[Sample]]] = defaultdict(lambda: ([], []))
    for side, samples in enumerate((train, test)):
        for sample in sorted(samples, key=_file_number):
            classes[sample.label][side].append(sample)
    ordered = [classes[label] for label in sorted(classes)]
    early = [sample for ours, _ in ordered for sample in ours[: max(round(TRAIN_BLOCK * len(ours)), 1)]]
    late = [sample for _, theirs in ordered for sample in theirs[-max(round(TEST_BLOCK * len(theirs)), 1) :]]
    return early, late


def _file_number(sample: Sample) -> tuple[list[str | int], str]:
    """Sorts "2.png" before "10.png": text and numbers take turns in a name."""
    pieces = re.split(r"(\d+)", sample.name)
    return [int(piece) if index % 2 else piece for index, piece in enumerate(pieces)], sample.label


def _share(fraction: float, count: int) -> int:
    """That fraction of `count`, at least one and not all."""
    return min(max(round(fraction * count), 1), count - 1)


def _random(ordered: Sequence[Sample], fraction: float, rng: np.random.Generator) -> np.ndarray:
    held_out = np.zeros(len(ordered), bool)
    held_out[rng.permutation(len(ordered))[: _share(fraction, len(ordered))]] = True
    return held_out


def _per_class(ordered: Sequence[Sample], fraction: float, rng: np.random.Generator) -> np.ndarray:
    held_out = np.zeros(len(ordered), bool)
    labels = np.array([sample.label for sample in ordered])
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        held_out[rng.permutation(rows)[: _share(fraction, len(rows))]] = True
    return held_out


def _contiguous(ordered: Sequence[Sample], fraction: float, rng: np.random.Generator) -> np.ndarray:
    held_out = np.zeros(len(ordered), bool)
    labels = np.array([sample.label for sample in ordered])
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        count = _share(fraction, len(rows))
        runs = max(1, min(BLOCKS, count // 10))
        for stretch, run in zip(np.array_split(rows, runs), np.array_split(np.arange(count), runs), strict=True):
            start = rng.integers(len(stretch) - len(run) + 1)
            held_out[stretch[start : start + len(run)]] = True
    return held_out


def _group(ordered: Sequence[Sample], fraction: float, rng: np.random.Generator) -> np.ndarray:
    rows: dict[str, list[int]] = defaultdict(list)
    for row, sample in enumerate(ordered):
        rows[sample.name if sample.group is None else f"group {sample.group}"].append(row)
    if len(rows) < 2 or all(sample.group is None for sample in ordered):
        raise InputError(
            "The images come without groups (subjects, clips), or all in one; split them with "
            "data.validation=contiguous instead, or name groups in a manifest."
        )
    held_out = np.zeros(len(ordered), bool)
    wanted = _share(fraction, len(ordered))
    names = sorted(rows)
    for index in rng.permutation(len(names)):
        if held_out.sum() + len(rows[names[index]]) <= wanted:
            held_out[rows[names[index]]] = True
    if not held_out.any():
        held_out[min((rows[name] for name in names), key=len)] = True
    return held_out


METHODS: Mapping[str, Callable[[Sequence[Sample], float, np.random.Generator], np.ndarray]] = {
    "random": _random,
    "per_class": _per_class,
    "contiguous": _contiguous,
    "group": _group,
    "copied": _random,
}
