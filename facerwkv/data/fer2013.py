"""FER2013's pixels, and FERPlus: its images with ten votes each."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from facerwkv.core.errors import InputError
from facerwkv.core.labels import EXPRESSIONS
from facerwkv.data import readers
from facerwkv.data.folders import by_class, class_homes, file_sample, first_of
from facerwkv.data.readers import MissingLayout, from_rows
from facerwkv.data.samples import Sample, Split, Splits


def fer2013(root: Path, problems: list[str]) -> Splits:
    """The csv of pixels; or the folders of its mirror, where `test` contains PublicTest and PrivateTest together."""
    tables = (root, *(root / name for name in ("fer2013.csv", "icml_face_data.csv", "train.csv")))
    if path := next((path for path in tables if path.is_file()), None):
        rows = ((sample.name, sample) for sample in readers.pixel_rows(path, problems) if sample)
        return from_rows(rows, lambda sample: (readers.USAGE[sample.attributes["usage"]], sample), problems)
    if homes := class_homes(root, problems, EXPRESSIONS):
        return by_class(root, homes, problems, EXPRESSIONS)
    raise MissingLayout(f"{root} contains neither fer2013.csv nor the folders train and test.")


FERPLUS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
_VOTED = (*FERPLUS, "unknown", "NF")


def ferplus(root: Path, problems: list[str], keep_votes: bool = False) -> Splits:
    """FER2013's images with ten votes each, joined by the order of rows (the number in `ferNNNNNNN.png` is no row).

    Single votes are removed first. An image counts when more than half of the votes name one expression; or, with
    `keep_votes`, when one has more votes than "unknown" and than "not a face", and then it keeps their shares.
    """
    folder = root.parent if root.is_file() else root
    if (folder / "FER2013Train/label.csv").is_file():
        return _ferplus_folders(folder, problems, keep_votes)
    images = readers.pixel_rows(first_of(folder, "fer2013.csv", "icml_face_data.csv"), problems)
    judged = list(readers.csv_rows(first_of(folder, "fer2013new.csv"), required=("Usage", *_VOTED)))
    usages = [row["Usage"] for _, row in judged]
    if len(images) != len(judged) or any(a and a.attributes["usage"] != b for a, b in zip(images, usages, strict=True)):
        raise InputError(
            f"The rows of fer2013.csv ({len(images)}) and fer2013new.csv ({len(judged)}) in {folder} do not belong "
            "together; both must be complete and in their original order."
        )

    def parse(pair: tuple[Sample | None, Mapping[str, str]]) -> tuple[Split, Sample] | None:
        sample, row = pair
        kept = sample and _judged(sample, [int(row[name]) for name in _VOTED], row["Usage"], keep_votes)
        return (readers.USAGE[row["Usage"]], kept) if kept else None

    rows = ((line, (sample, row)) for sample, (line, row) in zip(images, judged, strict=True))
    return from_rows(rows, parse, problems)


def _judged(sample: Sample, counts: list[int], usage: str, keep_votes: bool) -> Sample | None:
    """The sample with the label on which its voters agree, None where they do not."""
    votes = np.array(counts)
    votes[votes <= 1] = 0
    expressions, others = votes[: len(FERPLUS)], votes[len(FERPLUS) :]
    if expressions.max() <= (others.max() if keep_votes else votes.sum() / 2):
        return None
    winner = int(expressions.argmax())
    shares = {name: float(share) for name, share in zip(FERPLUS, expressions / expressions.sum(), strict=True)}
    votes_kept = {name: share for name, share in shares.items() if share} if keep_votes else None
    attributes = {"native": str(winner), "usage": usage}
    return replace(sample, label=FERPLUS[winner], votes=votes_kept, attributes=attributes)


def _ferplus_folders(root: Path, problems: list[str], keep_votes: bool) -> Splits:
    """FER2013Train, FER2013Valid and FER2013Test with images and label.csv: file, "(0, 0, 48, 48)", ten votes."""
    splits: Splits = {}
    for name, usage in zip(("FER2013Train", "FER2013Valid", "FER2013Test"), readers.USAGE, strict=True):

        def parse(row: Mapping[str, str], home: Path = root / name, usage: str = usage) -> tuple[Split, Sample] | None:
            sample = file_sample(root, home / row["file"], "", "neutral")
            kept = _judged(sample, [int(float(row[each])) for each in _VOTED], usage, keep_votes)
            return (readers.USAGE[usage], kept) if kept else None

        if (root / name / "label.csv").is_file():
            rows = readers.csv_rows(root / name / "label.csv", header=["file", "box", *_VOTED])
            splits |= from_rows(rows, parse, problems)
    return splits
