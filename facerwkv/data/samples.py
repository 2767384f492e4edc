"""What a data set is made of."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from facerwkv.core.labels import EXPRESSIONS
from facerwkv.media.geometry import Box
from facerwkv.media.images import open_image

Split = Literal["train", "val", "test"]
Scope = Literal["train", "val", "test", "all"]
"""What can be scored: a split, or all images."""
Splits = dict[Split, list["Sample"]]

SPLITS: tuple[Split, ...] = get_args(Split)
UNKNOWN = "unknown"
"""The value of an attribute that cannot be read."""
MARKS = ("native", "usage")
"""The attributes that say how the data set writes a sample, not who is shown."""


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One labelled image.

    name: the path below the root, or "fer2013.csv:17" (rows count from 0). image: a file; or uint8 (H, W) or (H, W, 3)
    RGB; or a picklable callable that returns such an array. label: a canonical name, or one of the user's classes.
    box: the face as x1, y1, x2, y2 in pixels of the upright image; it may leave the image on the right and below.
    group: the clip, subject or image that must not stand on both sides of a grouped split. votes: the share of each
    label, sum 1. attributes: by name and in words, who is shown ("gender": "female"), and the data set's own MARKS.
    """

    name: str
    image: Path | np.ndarray | Callable[[], np.ndarray]
    label: str
    box: Box | None = None
    group: str | None = None
    votes: Mapping[str, float] | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class DatasetSpec:
    """A line of DATASETS. `published` holds the images per split that the authors name; `terms` bind the user.

    `read(root, problems)` returns the samples of the splits that the set has, and appends to `problems` what it had to
    leave out. Its labels may be aliases ("Angry"). `crops`: a shell pattern of the names of images that are nothing but
    a face, cut out by the authors: its box is the whole image.
    """

    name: str
    read: Callable[[Path, list[str]], Splits]
    layout: str
    terms: str
    source: str
    labels: tuple[str, ...] = EXPRESSIONS
    published: Mapping[Split, int] = field(default_factory=dict)
    crops: str = ""
    sometimes: tuple[str, ...] = ()
    """Labels that only some of its releases have."""


@dataclass(frozen=True)
class Dataset:
    """The samples of the splits that exist (none is empty), the class order, and what was left out and why."""

    spec: DatasetSpec
    root: Path
    labels: tuple[str, ...]
    splits: Splits
    problems: list[str]


def read_image(sample: Sample) -> np.ndarray:
    """The sample's image as uint8 (H, W, 3) RGB. Raises UnreadableImage."""
    if isinstance(sample.image, Path):
        return open_image(sample.image)
    return open_image(sample.image() if callable(sample.image) else sample.image, name=sample.name)


def mark(sample: Sample) -> bytes:
    """Bytes that change with an image's content: its pixels, or a file's name, size and time, or a renderer's repr."""
    image = sample.image
    if isinstance(image, np.ndarray):
        return repr(image.shape).encode() + image.tobytes()
    if not isinstance(image, Path):
        return repr(image).encode()
    try:
        status = image.stat()
    except OSError:
        return os.fsencode(image.absolute()) + b":missing"
    allowed = os.access(image, os.R_OK)  # so that a file left out for its permissions is read once they are mended
    return os.fsencode(image.absolute()) + f":{status.st_size}:{status.st_mtime_ns}:{allowed}".encode()
