"""One function per data set: its folder → samples per split, with its native numbering mapped by name.

Sets that lack a validation or a test split get one from `splits.py`; nothing here invents one. Where authors publish a
"validation" set on which everyone reports scores (AffectNet, SFEW), it is `test`, so that no model is chosen on it.
Each function takes the root and a list to which it appends what it had to leave out; the table is in `datasets.py`.
"""

import csv
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from facerwkv.core.errors import InputError
from facerwkv.core.labels import EXPRESSIONS, EXPRESSIONS_8, canonical
from facerwkv.data.samples import SPLITS, UNKNOWN, Box, Sample, Split, Splits
from facerwkv.media.images import endings

Row = TypeVar("Row")

SPLIT_NAMES: Mapping[str, Split] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}

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


def list_images(folder: Path) -> list[Path]:
    """Every visible file below `folder` whose extension is an image's, by name."""
    found = []
    for where, inner, files in os.walk(folder):
        inner[:] = sorted(filter(_visible, inner))
        found += [Path(where, name) for name in sorted(filter(_visible, files)) if name.lower().endswith(endings())]
    return found


def by_class(root: Path, folder: Path, problems: list[str], known: tuple[str, ...] | None = None) -> list[Sample]:
    """The images of `folder`/CLASS/, named by their path below `root`.

    With `known` a folder of another name is left out and listed; without, every folder is a class.
    """
    samples = []
    for child in folders(folder):
        if known and meaning(child.name) not in known:
            problems.append(f"{child} is none of the classes; it was left out.")
            continue
        found = list_images(child)
        if not found:
            problems.append(f"{child} holds no images.")
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


def caer_s(root: Path, problems: list[str]) -> Splits:
    """Frames of clips in folders of classes. Either split may write Anger or Angry."""
    for base in (root, root / "CAER-S"):
        if {"train", "test"} <= split_folders(base).keys():
            homes = split_folders(base)
            return {split: by_class(root, home, problems, EXPRESSIONS) for split, home in homes.items()}
    raise MissingLayout(f"{root} holds no folders train and test.")


FER2013 = dict(enumerate(("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")))
USAGE: Mapping[str, Split] = {"Training": "train", "PublicTest": "val", "PrivateTest": "test"}


def fer2013(root: Path, problems: list[str]) -> Splits:
    """The csv of pixels; or the folders of its mirror, where `test` holds PublicTest and PrivateTest together."""
    path = root if root.is_file() else root / "fer2013.csv"
    if path.is_file():
        splits: Splits = {}
        for sample in _fer2013_rows(path, problems):
            if sample:
                splits.setdefault(USAGE[sample.attributes["usage"]], []).append(sample)
        return splits
    if homes := split_folders(root):
        return {split: by_class(root, home, problems, EXPRESSIONS) for split, home in homes.items()}
    raise MissingLayout(f"{root} holds neither fer2013.csv nor the folders train and test.")


def _fer2013_rows(path: Path, problems: list[str]) -> list[Sample | None]:
    """Every row in order; None stands for a malformed one, so that a place in the list is the place in the file."""
    samples: list[Sample | None] = []
    with path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)  # numpy's remark on text that is no number
        header = [cell.strip().lower() for cell in file.readline().decode(errors="replace").split(",")]
        if not {"emotion", "pixels", "usage"} <= set(header):
            raise InputError(f"{path} does not begin with the header emotion,pixels,Usage; is it FER2013's csv?")
        for row, line in enumerate(file):
            cells = dict(zip(header, (cell.strip(b' "\r\n') for cell in line.split(b",")), strict=False))
            try:
                samples.append(_fer2013_sample(f"{path.name}:{row}", cells))
            except (ValueError, KeyError, DeprecationWarning) as error:
                problems.append(f"{path.name}:{row} was left out: {error}.")
                samples.append(None)
    return samples


def _fer2013_sample(name: str, cells: Mapping[str, bytes]) -> Sample:
    number, usage = cells["emotion"].decode(), cells["usage"].decode()
    pixels = np.fromstring(cells["pixels"], dtype=np.int32, sep=" ")
    if usage not in USAGE:
        raise ValueError(f"its Usage is {usage!r}, none of {', '.join(USAGE)}")
    if pixels.size != 48 * 48 or pixels.min() < 0 or pixels.max() > 255:
        raise ValueError("its pixels are not 2,304 values of 0 to 255")
    face = pixels.astype(np.uint8).reshape(48, 48)
    return Sample(name, face, native(number, FER2013), attributes={"native": number, "usage": usage})


FERPLUS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
_VOTED = (*FERPLUS, "unknown", "NF")


def ferplus(root: Path, problems: list[str], keep_votes: bool = False) -> Splits:
    """FER2013's images with ten votes each, joined by the order of rows (the number in `ferNNNNNNN.png` is no row).

    Votes that stand alone are removed first. An image counts when more than half of the votes name one expression; or,
    with `keep_votes`, when one has more votes than "unknown" and than "not a face". Then the shares of the expressions
    are kept.
    """
    folder = root.parent if root.is_file() else root
    images = _fer2013_rows(first_of(folder, "fer2013.csv"), problems)
    judged = list(csv_rows(first_of(folder, "fer2013new.csv"), required=("Usage", *_VOTED)))
    usages = [row["Usage"] for _, row in judged]
    if len(images) != len(judged) or any(a and a.attributes["usage"] != b for a, b in zip(images, usages, strict=True)):
        raise InputError(
            f"The rows of fer2013.csv ({len(images)}) and fer2013new.csv ({len(judged)}) in {folder} do not belong "
            "together; both must be complete and in their original order."
        )

    def parse(pair: tuple[Sample | None, Mapping[str, str]]) -> tuple[Split, Sample] | None:
        sample, row = pair
        votes = np.array([int(row[name]) for name in _VOTED])
        shares = _shares(np.where(votes > 1, votes, 0), majority=not keep_votes)
        if sample is None or shares is None:
            return None
        label = max(FERPLUS, key=lambda name: shares.get(name, 0))
        attributes = {"native": str(FERPLUS.index(label)), "usage": row["Usage"]}
        kept = replace(sample, label=label, votes=shares if keep_votes else None, attributes=attributes)
        return USAGE[row["Usage"]], kept

    rows = ((place, (sample, row)) for sample, (place, row) in zip(images, judged, strict=True))
    return from_rows(rows, parse, problems)


def _shares(votes: np.ndarray, majority: bool) -> dict[str, float] | None:
    """The expressions' shares of the votes (10,), or None where too few voters agree on one."""
    expressions = votes[: len(FERPLUS)]
    needed = votes.sum() / 2 if majority else votes[len(FERPLUS) :].max()
    if expressions.max() <= needed:
        return None
    shares = expressions / expressions.sum()
    return {name: float(share) for name, share in zip(FERPLUS, shares, strict=True) if share}


RAF_DB = dict(enumerate(("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral"), 1))
_PERSON = {
    "gender": ("male", "female", "unsure"),
    "race": ("Caucasian", "African-American", "Asian"),
    "age": ("0-3", "4-19", "20-39", "40-69", "70+"),
}
_LANDMARKS = 5


def rafdb(root: Path, problems: list[str]) -> Splits:
    """The list of labels, the aligned faces (else the originals) and, where they lie there, gender, race and age."""
    base = root / "basic" if (root / "basic").is_dir() else root
    labels = first_of(base, "EmoLabel/list_patition_label.txt", "EmoLabel/list_partition_label.txt")
    images = first_of(base, "Image/aligned", "Image/original")
    ending = "_aligned.jpg" if images.name == "aligned" else ".jpg"

    def parse(cells: list[str]) -> tuple[Split, Sample]:
        file, number = cells
        stem = Path(file).stem
        path = images / (stem + ending)
        attributes = {"native": number} | _person(base / "Annotation/manual" / f"{stem}_manu_attri.txt", problems)
        name = path.relative_to(root).as_posix()
        return SPLIT_NAMES[file.split("_")[0]], Sample(name, path, native(number, RAF_DB), attributes=attributes)

    return from_rows(text_rows(labels), parse, problems)


def _person(path: Path, problems: list[str]) -> dict[str, str]:
    """Gender, race and age: the three lines after those of the five landmarks; UNKNOWN where the file is damaged."""
    if not path.is_file():
        return {}
    try:
        numbers = path.read_text().split()[2 * _LANDMARKS :][: len(_PERSON)]
        found = zip(_PERSON.items(), numbers, strict=True)
        return {kind: native(number, dict(enumerate(names))) for (kind, names), number in found}
    except (ValueError, OSError):
        problems.append(f"{path} does not say {', '.join(_PERSON)}; they count as unknown for its image.")
        return dict.fromkeys(_PERSON, UNKNOWN)


AFFECTNET = dict(enumerate(("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger", "contempt")))
_NO_EXPRESSION = ("8", "9", "10")  # none, uncertain, no face
_AFFECTNET_COLUMNS = [
    *("subDirectory_filePath", "face_x", "face_y", "face_width", "face_height"),
    *("facial_landmarks", "expression", "valence", "arousal"),
]


def affectnet(root: Path, problems: list[str]) -> Splits:
    """The release of 2021 (a folder of .npy files) or the older one (csv files); the published validation is `test`."""
    homes: dict[Split, Path] = {"train": root / "train_set", "test": root / "val_set"}
    if any(home.is_dir() for home in homes.values()):
        return {split: _affectnet_npy(root, home, split, problems) for split, home in homes.items() if home.is_dir()}
    lists = first_of(root, "Manual_Annot_files", "Manually_Annotated_file_lists")
    images = first_of(root, "Manually_Annotated_Images", "Manually_Annotated/Manually_Annotated_Images", ".")

    def parse(row: Mapping[str, str], split: Split) -> tuple[Split, Sample] | None:
        path = images / row["subDirectory_filePath"]
        x, y, width, height = (float(row[f"face_{side}"]) for side in ("x", "y", "width", "height"))
        sample = _affectnet_sample(root, path, row["expression"], face_box(x, y, x + width, y + height))
        return (split, sample) if sample else None

    splits: Splits = {}
    files: dict[Split, str] = {"train": "training.csv", "test": "validation.csv"}
    for split, file in files.items():
        if (lists / file).is_file():
            rows = csv_rows(lists / file, header=_AFFECTNET_COLUMNS)
            splits |= from_rows(rows, partial(parse, split=split), problems)
    return splits


def _affectnet_npy(root: Path, home: Path, split: Split, problems: list[str]) -> list[Sample]:
    def parse(path: Path) -> tuple[Split, Sample] | None:
        number = str(np.load(path, allow_pickle=False).item())
        image = home / "images" / path.name.replace("_exp.npy", ".jpg")
        sample = _affectnet_sample(root, image, number)
        return (split, sample) if sample else None

    files = sorted((home / "annotations").glob("*_exp.npy"))
    rows = ((str(path), path) for path in progress(files, f"Reading the annotations of {home.name}", len(files)))
    return from_rows(rows, parse, problems).get(split, [])


def _affectnet_sample(root: Path, path: Path, number: str, box: Box | None = None) -> Sample | None:
    if number in _NO_EXPRESSION:
        return None
    name = path.relative_to(root).as_posix()
    return Sample(name, path, native(number, AFFECTNET), box, attributes={"native": number})


def ck48(root: Path, problems: list[str]) -> Splits:
    """Folders of classes; a file's name begins with its subject."""
    home = root if any(meaning(child.name) in EXPRESSIONS_8 for child in folders(root)) else first_of(root, "CK+48")
    samples = by_class(root, home, problems, CK48)
    return {"train": [replace(sample, group=Path(sample.name).name.split("_")[0]) for sample in samples]}


CK48 = tuple(label for label in EXPRESSIONS_8 if label != "neutral")


def jaffe(root: Path, problems: list[str]) -> Splits:
    """Files named subject.CODEn.id."""

    def parse(path: Path) -> tuple[Split, Sample]:
        named = re.fullmatch(r"([A-Z]{2})\.([A-Z]{2})\d+\.\d+", path.stem)
        if not named or meaning(named[2]) not in EXPRESSIONS:
            raise ValueError("its name is not of the form KA.AN1.39.tiff")
        name = path.relative_to(root).as_posix()
        return "train", Sample(name, path, meaning(named[2]), group=named[1], attributes={"native": named[2]})

    return from_rows(((str(path), path) for path in list_images(root)), parse, problems)


def sfew(root: Path, problems: list[str]) -> Splits:
    """Film frames in folders of classes, whole or (where only those lie there) aligned; published validation is `test`.

    Its own Test folder has no labels and is not read.
    """
    names: dict[Split, str] = {"train": "Train", "test": "Val"}
    homes = {
        split: first_of(root, name, f"{name}_Aligned_Faces", f"{name}_Aligned_Faces_new")
        for split, name in names.items()
    }
    return {split: by_class(root, home, problems, EXPRESSIONS) for split, home in homes.items()}


def expw(root: Path, problems: list[str]) -> Splits:
    """One line per face: image, face number, top, left, right, bottom, confidence, label."""
    labels = first_of(root, "data/label/label.lst", "data/label.lst", "label/label.lst", "label.lst")
    images = first_of(root, "data/image/origin", "data/image", "image/origin", "image")

    def parse(cells: list[str]) -> tuple[Split, Sample]:
        file, face, *sides, _, number = cells
        top, left, right, bottom = map(float, sides)
        path, box = images / file, face_box(left, top, right, bottom)
        name = f"{path.relative_to(root).as_posix()}#{face}"
        return "train", Sample(name, path, native(number, FER2013), box, group=file, attributes={"native": number})

    return from_rows(text_rows(labels), parse, problems)


def imagefolder(root: Path, problems: list[str]) -> Splits:
    """Folders of classes, below train, val and test where there are such folders."""
    homes = split_folders(root) or {"train": root}
    return {split: by_class(root, home, problems) for split, home in homes.items()}


_MANIFEST = ("path", "label", *CORNERS, "group", "split")


def manifest(root: Path, problems: list[str]) -> Splits:
    """A CSV file whose paths are relative to it; columns that it does not know (gender, age, ...) become attributes."""
    if not root.is_file():
        raise MissingLayout(f"{root} is no file.")

    def parse(row: Mapping[str, str]) -> tuple[Split, Sample]:
        row = {column: cell for column, cell in row.items() if cell}
        split = SPLIT_NAMES.get(row.get("split", "train").lower())
        if split is None:
            raise ValueError(f"its split is {row['split']!r}, none of train, val, test")
        path, label = row["path"], row["label"]
        box = face_box(*(float(row[corner]) for corner in CORNERS)) if any(map(row.get, CORNERS)) else None
        extra = {column: cell for column, cell in row.items() if column not in _MANIFEST}
        sample = Sample(path, root.parent / path, label, box, row.get("group"), attributes={"native": label} | extra)
        return split, sample

    return from_rows(csv_rows(root, required=("path", "label")), parse, problems)


def toy(root: Path, problems: list[str]) -> Splits:
    """Rendered scenes; the root is no folder but options: `seed=1,train=70,val=14,test=14,context=1`."""
    from facerwkv.data.toy.scenes import COUNTS, toy_samples

    defaults = {"seed": 0, "context": 0} | {str(split): count for split, count in COUNTS.items()}
    given = dict(part.partition("=")[::2] for part in str(root).split(",") if part != ".")
    if wrong := [f"{key}={value}" for key, value in given.items() if key not in defaults or not value.isdecimal()]:
        raise InputError(f"toy does not know {', '.join(wrong)}; its options are numbers: {', '.join(defaults)}.")
    options = defaults | {key: int(value) for key, value in given.items()}
    return toy_samples(options["seed"], {split: options[split] for split in COUNTS}, bool(options["context"]))
