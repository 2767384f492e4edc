"""What the data sets of `datasets.py` are read with: the names of splits and classes, tables of rows, boxes.

Sets that lack a validation or a test split get one from `splits.py`; nothing here invents one. Whatever has to be left
out is appended, with the reason, to a list `problems`.
"""

import csv
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TypeVar

import numpy as np

from facerwkv.core.errors import InputError, first_line
from facerwkv.core.labels import canonical
from facerwkv.data.samples import Sample, Split, Splits
from facerwkv.media.geometry import Box

Item = TypeVar("Item")

SPLIT_NAMES: Mapping[str, Split] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "publictest"), "val"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation", "privatetest"), "test"),
}
"""The names of splits in lower case. An `eval` beside a test split is val, see `named_splits`."""
CORNERS = ("x1", "y1", "x2", "y2")


class MissingLayout(InputError):
    """The folder does not look like the data set; `load_dataset` adds the expected layout to the message."""


def named_splits(names: Iterable[str]) -> dict[str, Split]:
    """The split that each of these names means, those that mean none left out."""
    found = {name: SPLIT_NAMES[name.lower()] for name in names if name.lower() in SPLIT_NAMES}
    if any(split == "test" and not name.lower().startswith("eval") for name, split in found.items()):
        found |= {name: "val" for name in found if name.lower().startswith("eval")}
    return found


@cache
def meaning(name: str) -> str:
    """The expression that a folder or a cell names, else the name in lower case: "Angry" is "anger"."""
    try:
        return canonical(name)
    except InputError:
        return name.strip().lower()


def from_rows(
    rows: Iterable[tuple[str, Item]], parse: Callable[[Item], tuple[Split, Sample] | None], problems: list[str]
) -> Splits:
    """The samples of a table's rows, each row with its file and line for messages.

    `parse` returns None for a row that does not count, and raises ValueError for a malformed one, which is listed like
    a row whose file is missing.
    """
    splits: Splits = {}
    start, count = len(problems), 0
    for line, row in rows:
        count += 1
        try:
            if parsed := parse(row):
                split, sample = parsed
                if isinstance(sample.image, Path) and not sample.image.is_file():
                    raise ValueError(f"{sample.image} does not exist")
                splits.setdefault(split, []).append(sample)
        except KeyError as error:
            problems.append(f"{line} was left out: it has no {error.args[0]}.")
        except (ValueError, IndexError, OSError) as error:
            problems.append(f"{line} was left out: {error}.")
    if (left_out := len(problems) - start) > 1:
        problems.insert(start, f"{left_out} of {count} rows or files were left out; the first:")
    return splits


def class_name(number: str, names: Mapping[int, str]) -> str:
    """The name of a data set's own class number. Raises ValueError."""
    if not number.strip().isdecimal() or int(number) not in names:
        raise ValueError(f"its class is {number!r}, none of {min(names)} to {max(names)}")
    return names[int(number)]


def npy_number(path: Path) -> str:
    """The one value in a .npy file, as text. Raises ValueError for whatever else is in it."""
    try:
        with path.open("rb") as file:  # np.load would take a zip, too
            return str(np.lib.format.read_array(file, allow_pickle=False).item())
    except Exception as error:  # damaged headers raise nearly anything
        raise ValueError(first_line(error)) from error


def text_rows(path: Path) -> Iterator[tuple[str, list[str]]]:
    """The cells of a table that is separated by spaces."""
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        for number, line in enumerate(file, 1):
            if cells := line.split():
                yield f"{path.name}:{number}", cells


def csv_rows(
    path: Path, required: Iterable[str] = (), header: list[str] | None = None, lower: bool = False
) -> Iterator[tuple[str, dict]]:
    """The rows of a CSV file by column; `header` names the columns of a file that does not begin with them.

    Cells are separated by commas, or as the first line has them, by semicolons or tabs; empty rows do not count. lower:
    the columns' names are wanted in lower case.
    Raises InputError where a required column is missing.
    """
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        line = file.readline()
        file.seek(0)
        reader = csv.reader(file, delimiter=max(",;\t", key=line.count))
        first = next(reader, [])
        columns = header if header and header[0] not in first else [cell.strip() for cell in first]
        columns = [column.lower() for column in columns] if lower else columns
        if missing := [column for column in required if column not in columns]:
            raise InputError(f"{path} lacks the column {', '.join(missing)}; its first line is {','.join(first)!r}.")
        if columns is header:
            yield f"{path.name}:1", dict(zip(columns, first, strict=False))
        for cells in reader:
            if not any(map(str.strip, cells)):
                continue
            row = dict(zip(columns, (cell.strip() for cell in cells), strict=False))
            yield f"{path.name}:{reader.line_num}", row


FER2013 = dict(enumerate(("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")))
USAGE: Mapping[str, Split] = {"Training": "train", "PublicTest": "val", "PrivateTest": "test"}


def pixel_rows(path: Path, problems: list[str], names: Mapping[int, str] = FER2013) -> list[Sample | None]:
    """The rows of fer2013.csv in order, so that an index is the row in the file; None stands for a malformed one.

    A table without the column Usage is all training. names: of the numbers in the column emotion.
    """

    def sample(name: str, cells: Mapping[str, bytes]) -> Sample:
        number, usage = cells["emotion"].decode(), cells.get("usage", b"Training").decode()
        pixels = np.fromstring(cells["pixels"], dtype=np.int32, sep=" ")
        if usage not in USAGE:
            raise ValueError(f"its Usage is {usage!r}, none of {', '.join(USAGE)}")
        if pixels.size != 48 * 48 or pixels.min() < 0 or pixels.max() > 255:
            raise ValueError("its pixels are not 2,304 values of 0 to 255")
        face = pixels.astype(np.uint8).reshape(48, 48)
        return Sample(name, face, class_name(number, names), attributes={"native": number, "usage": usage})

    samples: list[Sample | None] = []
    with path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)  # numpy's remark on text that is no number
        header = [cell.strip(' "\r\n').lower() for cell in file.readline().decode("utf-8-sig", "replace").split(",")]
        if not {"emotion", "pixels"} <= set(header):
            raise InputError(f"{path} does not begin with the header emotion,pixels,Usage; is it FER2013's csv?")
        for row, line in enumerate(file):
            cells = dict(zip(header, (cell.strip(b' "\r\n') for cell in line.split(b",")), strict=False))
            try:
                samples.append(sample(f"{path.name}:{row}", cells))
            except (ValueError, KeyError, DeprecationWarning) as error:
                problems.append(f"{path.name}:{row} was left out: {error}.")
                samples.append(None)
    if (left_out := samples.count(None)) > 1:
        problems.insert(len(problems) - left_out, f"{left_out} of {len(samples)} rows were left out; the first:")
    return samples


def face_box(x1: float, y1: float, x2: float, y2: float) -> Box:
    """A box, cut off at the image's left and upper edges. Raises ValueError where nothing is left."""
    box = (max(x1, 0.0), max(y1, 0.0), x2, y2)
    if not (box[0] < x2 < float("inf") and box[1] < y2 < float("inf")):
        raise ValueError(f"its box {x1:g} {y1:g} {x2:g} {y2:g} is empty")
    return box


def progress(items: Iterable[Item], what: str, total: int) -> Iterable[Item]:
    """The items, with a progress bar on a terminal's error output that vanishes at the end."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True, markup=False)
    return track(items, what, total, console=console, transient=True, disable=not console.is_terminal)
