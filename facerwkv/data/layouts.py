"""Layouts in which any data set may be passed around: Parquet tables, YOLO's folders, the library `datasets`."""

import glob
import importlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from facerwkv.core.errors import InputError, first_line
from facerwkv.data.folders import file_sample, list_images, split_folders
from facerwkv.data.readers import MissingLayout, class_name, face_box, from_rows, named_splits, text_rows
from facerwkv.data.samples import Sample, Split, Splits
from facerwkv.media.images import open_image

IMAGE, LABEL = ("image", "img", "picture", "pixels"), ("label", "labels", "expression", "emotion", "class")
"""The columns of a table, the first that there is."""
Numbers = Mapping[int, str]


def _required(module: str, extra: str, what: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(f'{what} needs {module.partition(".")[0]}: pip install "facerwkv[{extra}]"') from error


@dataclass(frozen=True)
class ParquetImage:
    """An encoded image in a row of a Parquet file. `stamp` is the file's time and size, so that a change is seen."""

    path: Path
    column: str
    group: int
    row: int
    stamp: str

    def __call__(self) -> np.ndarray:
        value = _group(self.path, self.column, self.group, self.stamp)[self.row].as_py()
        return open_image((value.get("bytes") or b"") if isinstance(value, dict) else value, name=str(self))

    def __str__(self) -> str:
        return f"Row {self.row} of group {self.group} of {self.path}"


@lru_cache(maxsize=4)
def _group(path: Path, column: str, group: int, stamp: str) -> Any:
    return importlib.import_module("pyarrow.parquet").ParquetFile(path).read_row_group(group, [column])[column]


def parquet(root: Path, problems: list[str], numbers: Numbers | None = None) -> Splits:
    """Tables with an encoded image and a label in each row, whose file or folder names the split, else train.

    A label that is a number has the name that the table gives it (as Hugging Face writes it), else that in `numbers`.
    Raises MissingLayout where there are none.
    """
    files = [root] if root.suffix == ".parquet" else sorted(root.rglob("*.parquet"))
    if not files:
        raise MissingLayout(f"{root} contains no .parquet files.")
    tables = _required("pyarrow.parquet", "parquet", f"Reading {files[0]}")
    named = {file: (file.name.partition("-")[0].removesuffix(".parquet"), file.parent.name) for file in files}
    meant = named_splits({name for names in named.values() for name in names})
    splits: Splits = {}
    for file in files:
        split: Split = next((meant[name] for name in named[file] if name in meant), "train")
        try:
            table = tables.ParquetFile(file)
            image, label = (_column(table.schema_arrow.names, wanted, file) for wanted in (IMAGE, LABEL))
            names = _names(table.schema_arrow.metadata, label)
            cells = table.read([label])[label].to_pylist()
            groups = [(g, r) for g in range(table.num_row_groups) for r in range(table.metadata.row_group(g).num_rows)]
        except (OSError, ValueError) as error:
            reason = first_line(error)
            raise InputError(f"{file} cannot be read as Parquet: {reason}. Restore it from a copy.") from error
        status, place = file.stat(), file.name if file == root else file.relative_to(root).as_posix()

        def sample(
            row: int,
            file: Path = file,
            cells: list = cells,
            groups: list[tuple[int, int]] = groups,
            image: str = image,
            place: str = place,
            split: Split = split,
            stamp: str = f"{status.st_mtime_ns}:{status.st_size}",
            names: Numbers | None = names or numbers,
        ) -> tuple[Split, Sample]:
            native = str(cells[row])
            value = class_name(native, names) if names and native.isdecimal() else native
            encoded = ParquetImage(file, image, groups[row][0], groups[row][1], stamp)
            return split, Sample(f"{place}:{row}", encoded, value, attributes={"native": native})

        for each, those in from_rows(((f"{place}:{r}", r) for r in range(len(cells))), sample, problems).items():
            splits.setdefault(each, []).extend(those)
    return splits


def _column(names: list[str], wanted: tuple[str, ...], file: Path) -> str:
    found = next((name for each in wanted for name in names if name.lower() == each), None)
    if found is None:
        raise InputError(f"{file} has no column {' or '.join(wanted)}; it has {', '.join(names)}. Rename one of them.")
    return found


def _names(metadata: Mapping[bytes, bytes] | None, label: str) -> Numbers | None:
    """The names of the classes that Hugging Face's library writes into a table."""
    described = json.loads((metadata or {}).get(b"huggingface", b"{}"))
    names = described.get("info", {}).get("features", {}).get(label, {}).get("names")
    return dict(enumerate(names)) if names else None


def yolo(root: Path, problems: list[str]) -> Splits:
    """images/ and labels/ for each split (either folder may be the outer one), and data.yaml with the classes' names.

    labels/NAME.txt has a line per face: class number, then centre x and y, width and height as shares of the image.
    Raises MissingLayout where there are no such folders, InputError where the numbers have no names.
    """
    homes = {split: (home / "images", home / "labels") for split, home in split_folders(root).items()}
    if not any(images.is_dir() for images, _ in homes.values()):
        below = split_folders(root / "images")
        homes = {split: (home, root / "labels" / home.name) for split, home in below.items()}
    if not homes and (root / "images").is_dir():
        homes = {"train": (root / "images", root / "labels")}
    homes = {split: pair for split, pair in homes.items() if all(path.is_dir() for path in pair)}
    if not homes:
        raise MissingLayout(f"{root} contains no folders images and labels.")
    names = _yolo_names(root)

    def faces(home: Path, labels: Path) -> Iterator[tuple[str, tuple[Path, list[str], int]]]:
        for image in list_images(home):
            file = (labels / image.relative_to(home)).with_suffix(".txt")
            rows = list(text_rows(file)) if file.is_file() else [(f"{image}", [])]
            yield from ((line, (image, cells, number)) for number, (line, cells) in enumerate(rows))

    def parse(row: tuple[Path, list[str], int], split: Split) -> tuple[Split, Sample]:
        image, cells, number = row
        if not cells:
            raise ValueError("there is no label of it")
        with Image.open(image) as opened:
            width, height = opened.size
        x, y, w, h = (float(cell) for cell in cells[1:5])
        box = face_box((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height)
        sample = file_sample(root, image, cells[0], class_name(cells[0], names), box, image.name)
        return split, sample if not number else Sample(f"{sample.name}#{number}", image, *_rest(sample))

    splits: Splits = {}
    for split, (home, labels) in homes.items():
        parsed = from_rows(faces(home, labels), lambda row, split=split: parse(row, split), problems)  # type: ignore[misc]
        splits |= parsed
    return splits


def _rest(sample: Sample) -> tuple[Any, ...]:
    return sample.label, sample.box, sample.group, sample.votes, sample.attributes


def _yolo_names(root: Path) -> Numbers:
    import yaml  # of the extra "train"

    for file in (root / "data.yaml", root / "dataset.yaml", root / "data.yml"):
        if file.is_file():
            try:
                names = yaml.safe_load(file.read_text(encoding="utf-8-sig"))["names"]
                pairs = names.items() if isinstance(names, dict) else enumerate(names)
                return {int(number): str(name) for number, name in pairs}
            except (yaml.YAMLError, TypeError, KeyError, ValueError) as error:
                raise InputError(f"{file} has no `names` of the classes ({first_line(error)}). Add them.") from error
    raise InputError(
        f"The labels in {root} are numbers without names. Add a file data.yaml with them, in their order: "
        "names: [anger, contempt, ...]."
    )


@dataclass(frozen=True)
class TableImage:
    """An encoded image in a row of a table of the library `datasets`."""

    table: Any
    column: str
    row: int

    def __repr__(self) -> str:
        return f"{self.table._fingerprint}:{self.row}"

    def __call__(self) -> np.ndarray:
        value = self.table[self.row][self.column]
        return open_image(value["bytes"] or Path(value["path"]), name=f"Row {self.row} of the table")


def hugging_face(root: Path, problems: list[str]) -> Splits:
    """What the library `datasets` reads under a name of the Hub, or from a folder; InputError where it cannot."""
    library = _required("datasets", "hf", f"hf:{root}")
    if glob.has_magic(str(root)):
        raise InputError(
            f"hf:{root} cannot be read: the library `datasets` takes *, ? and [ in a folder's name for a pattern. "
            f"Rename the folder, or give it as imagefolder:{root} if it has a folder for each class."
        )
    saved = any((root / name).is_file() for name in ("dataset_dict.json", "state.json"))
    try:
        read: Callable[[str], Any] = library.load_from_disk if saved else library.load_dataset
        loaded = read(str(root))
    except Exception as error:  # it raises errors of many libraries
        raise InputError(
            f"hf:{root} cannot be read: {first_line(error)}. Give a folder that the library `datasets` reads, or a "
            "name on the Hub and a network."
        ) from error
    tables = dict(loaded) if hasattr(loaded, "keys") else {"train": loaded}
    meant = named_splits(tables)
    splits: Splits = {}
    for name, table in tables.items():
        if name not in meant and len(tables) > 1:
            problems.append(f"{len(table)} images of the split {name} were left out: it is none of train, val, test.")
            continue
        image, label = (_column(table.column_names, wanted, Path(f"hf:{root}")) for wanted in (IMAGE, LABEL))
        names = getattr(table.features[label], "names", None)
        encoded = table.cast_column(image, library.Image(decode=False))
        splits[meant.get(name, "train")] = [
            Sample(
                f"{name}:{row}",
                TableImage(encoded, image, row),
                names[value] if names else str(value),
                attributes={"native": str(value)},
            )
            for row, value in enumerate(table[label])
            if names is None or value >= 0
        ]
    return splits
