"""Folders and tables of a data set → samples, and the list of what was left out."""

import csv
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TypeVar

from facerwkv.data.samples import SPLITS, Box, Sample, Split, Splits
from facerwkv.errors import InputError
from facerwkv.labels import canonical

Row = TypeVar("Row")

SPLIT_NAMES: Mapping[str, Split] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
PICTURES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".avif"),
    *(".gif", ".bmp", ".tif", ".tiff", ".jp2", ".ppm", ".pgm", ".pnm"),
)


CORNERS = ("x1", "y1", "x2", "y2")


class MissingLayout(InputError):
    """The folder does not look like the data set; who knows the layout adds it to the message."""


@cache
def meaning(name: str) -> str:
    """The expression that a folder or a cell names, else the name in lower case: "Angry" is "anger"."""
    try:
        return canonical(name)
    except InputError:
        return name.strip().lower()


def folders(root: Path) -> list[Path]:
    """The visible folders in `root`, by name."""
    return sorted(child for child in root.iterdir() if _visible(child.name) and child.is_dir()) if root.is_dir() else []


def split_folders(root: Path) -> dict[Split, Path]:
    """The folders of `root` that are splits by their names."""
    found = {SPLIT_NAMES[child.name.lower()]: child for child in folders(root) if child.name.lower() in SPLIT_NAMES}
    return {split: found[split] for split in SPLITS if split in found}


def first_of(root: Path, *places: str) -> Path:
    """The first of the places that exists below `root`. Raises MissingLayout."""
    for place in places:
        if (root / place).exists():
            return root / place
    raise MissingLayout(f"{root} holds no {' or '.join(places)}.")


def pictures(folder: Path) -> list[Path]:
    """Every visible file below `folder` whose extension is a picture's, by name."""
    found = []
    for where, inner, files in os.walk(folder):
        inner[:] = sorted(filter(_visible, inner))
        found += [Path(where, name) for name in sorted(filter(_visible, files)) if name.lower().endswith(PICTURES)]
    return found


def by_class(root: Path, folder: Path, problems: list[str], known: tuple[str, ...] | None = None) -> list[Sample]:
    """The pictures of `folder`/CLASS/, named by their path below `root`.

    With `known` a folder of another name is left out and listed; without, every folder is a class.
    """
    samples = []
    for child in folders(folder):
        if known and meaning(child.name) not in known:
            problems.append(f"{child} is none of the classes; it was left out.")
            continue
        found = pictures(child)
        if not found:
            problems.append(f"{child} holds no pictures.")
        for path in found:
            name = path.relative_to(root).as_posix()
            samples.append(Sample(name, path, child.name, attributes={"native": child.name}))
    return samples


def from_rows(
    rows: Iterable[tuple[str, Row]], parse: Callable[[Row], tuple[Split, Sample] | None], problems: list[str]
) -> Splits:
    """The samples of a table's rows, each row with its place for messages.

    `parse` returns None for a row that does not count, and raises ValueError for a malformed one, which is listed like
    a row whose file is missing.
    """
    splits: Splits = {}
    for place, row in rows:
        try:
            parsed = parse(row)
            if parsed and isinstance(parsed[1].image, Path) and not parsed[1].image.is_file():
                raise ValueError(f"{parsed[1].image} does not exist")
        except KeyError as error:
            problems.append(f"{place} was left out: it has no {error.args[0]}.")
        except (ValueError, IndexError, OSError) as error:
            problems.append(f"{place} was left out: {error}.")
        else:
            if parsed:
                splits.setdefault(parsed[0], []).append(parsed[1])
    return splits


def native(number: str, names: Mapping[int, str]) -> str:
    """The name of a data set's own class number. Raises ValueError."""
    if not number.strip().isdecimal() or int(number) not in names:
        raise ValueError(f"its class is {number!r}, none of {min(names)} to {max(names)}")
    return names[int(number)]


def text_rows(path: Path) -> Iterator[tuple[str, list[str]]]:
    """The cells of a table that is separated by spaces."""
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        for number, line in enumerate(file, 1):
            if cells := line.split():
                yield f"{path.name}:{number}", cells


def csv_rows(path: Path, required: Iterable[str] = (), header: list[str] | None = None) -> Iterator[tuple[str, dict]]:
    """The rows of a CSV file by column; `header` names the columns of a file that does not begin with them.

    Raises InputError where a required column is missing.
    """
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file)
        first = next(reader, [])
        columns = header if header and header[0] not in first else [cell.strip() for cell in first]
        if missing := [column for column in required if column not in columns]:
            raise InputError(f"{path} lacks the column {', '.join(missing)}; its first line is {','.join(first)!r}.")
        if columns is header:
            yield f"{path.name}:1", dict(zip(columns, first, strict=False))
        for cells in reader:
            if cells:
                yield (
                    f"{path.name}:{reader.line_num}",
                    dict(zip(columns, (cell.strip() for cell in cells), strict=False)),
                )


def face_box(x1: float, y1: float, x2: float, y2: float) -> Box:
    """A box without its part left of the image or above it. Raises ValueError where nothing is left."""
    box = (max(x1, 0.0), max(y1, 0.0), x2, y2)
    if not (box[0] < x2 < float("inf") and box[1] < y2 < float("inf")):
        raise ValueError(f"its box {x1:g} {y1:g} {x2:g} {y2:g} is empty")
    return box


def progress(items: Iterable[Row], what: str, total: int) -> Iterable[Row]:
    """The items, with a progress bar on a terminal's error output that vanishes at the end."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(items, what, total, console=console, transient=True, disable=not console.is_terminal)


def _visible(name: str) -> bool:
    return not name.startswith(".") and name != "__MACOSX"
