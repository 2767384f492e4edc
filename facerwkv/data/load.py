"""NAME:ROOT → a Dataset: samples per split, labelled by name."""

import csv
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from facerwkv.core.errors import InputError
from facerwkv.core.labels import EXPRESSIONS_8, canonical
from facerwkv.data.boxes import add_boxes
from facerwkv.data.datasets import DATASETS
from facerwkv.data.readers import MissingLayout, meaning
from facerwkv.data.samples import SPLITS, Dataset, Sample, Split, Splits

LISTED = 10  # names in a message


def load_dataset(
    source: str,
    *,
    labels: Sequence[str] | None = None,
    rename: Mapping[str, str] | None = None,
    boxes: Path | str | None = None,
    known: Sequence[str] | None = None,
) -> Dataset:
    """Read the lists of a data set: "NAME:ROOT", or "toy". No image is opened unless faces are to be detected.

    labels: the classes in the wanted order, by any of their names ("Happy", "happiness"), or your own names for your
    own folders; images of other classes are left out; ["auto"]: those that occur, sorted. rename: other names for
    classes as the data set writes them, {"1": "surprise"}; two of one name become one class. boxes: a CSV file
    `path,label,x1,y1,x2,y2` of faces (as published for CAER-S), paths as below the root; or "detect", for the largest
    face that the detector finds where the data set has no box, kept in the cache. known: the labels of a model that is
    to be scored: they name the classes where `labels` does not, images of other classes keep their own, and no class
    must have training images. Raises InputError for an unknown source, layout or label, and for a class without
    training images.
    """
    name, _, path = source.partition(":")
    if name not in DATASETS:
        folder = f" For your own folders of classes write imagefolder:{source}." if os.path.isdir(source) else ""
        raise InputError(
            f"Unknown data set {name!r} in {source!r}.{folder} Write NAME:ROOT; names: {', '.join(DATASETS)}."
        )
    spec, root, problems = DATASETS[name], Path(os.path.expanduser(path)), list[str]()
    expected = f"Expected layout of {name}: {spec.layout}"
    if name != "toy" and not path:
        raise InputError(f"{name} needs its root folder or file, {name}:ROOT. {expected}")
    if name not in ("toy", "hf") and not root.exists():
        raise InputError(f"{root} does not exist. {expected}")
    auto = labels is not None and tuple(labels) == ("auto",)
    labels, auto = None if auto else labels, auto and not known
    names = {meaning(label): label for label in labels or known or spec.labels}
    if labels and len(names) < len(labels):
        raise InputError(f"Two of the labels {', '.join(labels)} mean the same. Name every class once.")
    try:
        found = spec.read(root, problems)
        found = add_boxes(found, str(boxes), problems) if boxes else found
    except MissingLayout as error:
        raise InputError(f"{error} {expected}{_found_in(root)}") from error
    except (OSError, csv.Error) as error:
        raise InputError(f"{source} cannot be read: {error}.") from error
    found = _once(_renamed(found, rename, source) if rename else found, problems)
    if auto:
        names = {
            meaning(name): name
            for name in sorted({each.label for those in found.values() for each in those}, key=_natural)
        }
    if spec.sometimes and not (labels or known or auto):
        there = {meaning(each.label) for those in found.values() for each in those}
        listed = [label for label in EXPRESSIONS_8 if label in names or (label in there and label in spec.sometimes)]
        names = dict(zip(listed, listed, strict=True))
    if known and not labels:
        others = {meaning(sample.label) for samples in found.values() for sample in samples} - names.keys()
        names |= {label: label for label in sorted(others)}
    splits = _relabel(found, names, bool(labels), problems)
    dataset = Dataset(spec, root, tuple(names.values()), splits, problems)
    _require_classes(dataset, source, expected, training=not known)
    return dataset


def _found_in(root: Path) -> str:
    """What is in the folder, for a message."""
    if not root.is_dir():
        return ""
    there = sorted(f"{child.name}/" if child.is_dir() else child.name for child in root.iterdir())
    more = f" and {len(there) - LISTED} more" if len(there) > LISTED else ""
    return f" Found there: {', '.join(there[:LISTED]) or 'nothing'}{more}."


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts "2" before "10"."""
    return [(int(piece), "") if piece.isdecimal() else (-1, piece) for piece in re.split(r"(\d+)", name) if piece]


def _renamed(splits: Splits, rename: Mapping[str, str], source: str) -> Splits:
    """The samples under other names. InputError for a name that no sample has."""
    new = {meaning(old): name for old, name in rename.items()}
    used: set[str] = set()

    def renamed(sample: Sample) -> Sample:
        written = (sample.attributes.get("native", sample.label), sample.label)
        old = next((meaning(name) for name in written if meaning(name) in new), None)
        votes = Counter[str]()
        for label, share in (sample.votes or {}).items():
            votes[new.get(meaning(label), label)] += share  # type: ignore[assignment]
        used.update(filter(None, [old]))
        return replace(sample, label=new[old] if old else sample.label, votes=dict(votes) or None)

    done: Splits = {split: [renamed(sample) for sample in those] for split, those in splits.items()}
    if unused := sorted(new.keys() - used):
        there = sorted(
            {each.attributes.get("native", each.label) for those in splits.values() for each in those}, key=_natural
        )
        raise InputError(f"{source} has no class {', '.join(unused)} to rename; it has {', '.join(there)}.")
    return done


def _once(splits: Splits, problems: list[str]) -> Splits:
    """Each image once: what is listed twice counts in the last of its splits, what has two labels not at all."""
    places: dict[Any, list[tuple[Split, Sample]]] = {}
    for split in (split for split in SPLITS if split in splits):
        for sample in splits[split]:
            file = os.path.abspath(sample.image) if isinstance(sample.image, Path) else id(sample)
            places.setdefault((file, sample.box), []).append((split, sample))
    doubled = [those for those in places.values() if len(those) > 1]
    unsure = [those for those in doubled if len({meaning(sample.label) for _, sample in those}) > 1]
    moved = [those for those in doubled if len({split for split, _ in those}) > 1 and those not in unsure]
    if unsure:
        (_, first), *rest = unsure[0]
        other = next(sample.label for _, sample in rest if meaning(sample.label) != meaning(first.label))
        example = f"for example {first.name} ({first.label}, {other})"
        problems.insert(0, f"{len(unsure)} images are listed under two labels and were left out, {example}.")
    if len(doubled) > len(unsure):
        example = next(those for those in doubled if those not in unsure)[0][1].name
        also = f"; {len(moved)} of them, in two splits, count in test before val before train" if moved else ""
        said = f"images are listed twice and count once, for example {example}{also}."
        problems.insert(0, f"{len(doubled) - len(unsure)} {said}")
    out = {id(sample) for those in doubled for _, sample in (those if those in unsure else those[:-1])}
    return {split: [sample for sample in those if id(sample) not in out] for split, those in splits.items()}


def _relabel(splits: Splits, names: Mapping[str, str], own: bool, problems: list[str]) -> Splits:
    """Call each class by its name in `names`, which are listed by their meaning; splits without samples are dropped.

    With `own` the samples of other classes are left out, else they raise InputError.
    """
    kept: Splits = {}
    for split in (split for split in SPLITS if split in splits):
        for sample in splits[split]:
            label, votes = names.get(meaning(sample.label)), sample.votes
            if label is None and not own:
                try:
                    canonical(sample.label, names.values())
                except InputError as error:
                    raise InputError(f"{sample.name}: {error}") from error
            if label is not None:
                if votes is not None:
                    shares = {names[voted]: share for voted, share in votes.items() if voted in names}
                    votes = {voted: share / sum(shares.values()) for voted, share in shares.items()}
                kept.setdefault(split, []).append(replace(sample, label=label, votes=votes))
    others = Counter(
        meaning(each.label) for those in splits.values() for each in those if meaning(each.label) not in names
    )
    if others:
        which = ", ".join(f"{label} {count}" for label, count in sorted(others.items())[:LISTED])
        more = f" and {len(others) - LISTED} more" if len(others) > LISTED else ""
        problems.append(
            f"{others.total()} images are of other classes than {', '.join(names.values())}: {which}{more}."
        )
    return kept


def _require_classes(dataset: Dataset, source: str, expected: str, training: bool) -> None:
    """Raise InputError unless there are images, and training images of each class if there are any for training."""
    first = dataset.problems[: 2 if dataset.problems and dataset.problems[0].endswith(":") else 1]
    hint = f" ({' '.join(first).rstrip('.')})" if first else ""
    if not dataset.splits:
        raise InputError(f"{source} contains no images of {', '.join(dataset.labels)}{hint}. {expected}")
    present = {sample.label for sample in dataset.splits.get("train", ())}
    if training and present and (missing := [label for label in dataset.labels if label not in present]):
        raise InputError(
            f"{source} has no training images of {', '.join(missing)}{hint}. Add some, or name the classes that "
            f"there are: data.labels=[{', '.join(label for label in dataset.labels if label in present)}]."
        )
