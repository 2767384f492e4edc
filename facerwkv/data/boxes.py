"""The face's box of every image of a data set: from a file, or from the detector, whose answers are kept."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path, PurePosixPath

from facerwkv.core.devices import cores
from facerwkv.core.errors import InputError
from facerwkv.core.files import cache_folder
from facerwkv.core.threads import map_ahead
from facerwkv.data.kept import kept
from facerwkv.data.readers import CORNERS, SPLIT_NAMES, csv_rows, face_box, meaning, text_rows
from facerwkv.data.samples import Sample, Splits, read_image
from facerwkv.media.faces import FaceDetector
from facerwkv.media.geometry import Box, area, whole_pixels
from facerwkv.media.images import UnreadableImage

DETECT = "detect"
SIZED = (("x", "y", "width", "height"), ("x", "y", "w", "h"), ("x1", "y1", "w", "h"))
STORE = "faces.jsonl"  # a line per image: its mark, its largest face or null


def add_boxes(splits: Splits, boxes: str, problems: list[str]) -> Splits:
    """The samples with boxes: those of a file `path,label,x1,y1,x2,y2`, or of the files of a folder (train.txt and
    test.txt), or with "detect", where a sample has none, its largest face. Images that got no box are listed in
    `problems`. Raises InputError where the file names no image."""
    samples = [sample for split in splits.values() for sample in split]
    bare = [sample for sample in samples if sample.box is None]
    if boxes == DETECT:
        detected = iter(with_faces(samples))
        boxed = {split: list(islice(detected, len(those))) for split, those in splits.items()}
    else:
        place = Path(boxes)
        files = (
            sorted(file for file in place.iterdir() if file.suffix in (".txt", ".csv")) if place.is_dir() else [place]
        )
        listed = {tail: box for file in files for tail, box in _read_boxes(file, problems).items()}
        boxed = {
            split: [replace(each, box=listed.get(_tail(each.name), each.box)) for each in those]
            for split, those in splits.items()
        }
    without = [sample.name for those in boxed.values() for sample in those if sample.box is None]
    if boxes != DETECT and len(without) == len(samples):
        raise InputError(f"{boxes} names none of the images; its paths must be like {without[0] if without else ''}.")
    if without and boxes == DETECT:
        problems.append(
            f"The detector found no face in {len(without)} of {len(bare)} images, for example {without[0]}; "
            "transform.no_box says what counts as the face there."
        )
    elif without:
        problems.append(f"{boxes} has no box for {len(without)} of {len(samples)} images, for example {without[0]}.")
    return boxed


def with_faces(samples: Sequence[Sample]) -> list[Sample]:
    """The samples in their order; those without a box with their largest face, in whole pixels as prediction has it."""
    bare = [sample for sample in samples if sample.box is None]
    faces = iter(largest_faces(bare, cache_folder() / STORE) if bare else [])
    boxes = (sample.box or next(faces) for sample in samples)
    whole = (box and whole_pixels(box, sys.maxsize, sys.maxsize) for box in boxes)
    return [replace(sample, box=sample.box or box) for sample, box in zip(samples, whole, strict=True)]


def largest_faces(samples: Sequence[Sample], store: Path) -> list[Box | None]:
    """Each sample's largest face, or None; those that `store` knows are not searched again. Errors as in `kept`."""
    found = kept(samples, store, _search, "Detecting faces", "The detected faces")
    return [tuple(box) if box else None for box in found]


def _search(samples: Sequence[Sample]) -> Iterator[tuple[Sample, Box | None]]:
    if not samples:
        return
    detector = FaceDetector()

    def face(sample: Sample) -> tuple[Sample, Box | None]:
        try:
            faces = detector(read_image(sample))
        except UnreadableImage:  # reported when the image itself is wanted
            faces = []
        return sample, max(((face.x1, face.y1, face.x2, face.y2) for face in faces), key=area, default=None)

    yield from map_ahead(face, samples, cores())


def _read_boxes(path: Path, problems: list[str]) -> dict[tuple[str, ...], Box]:
    """The boxes of lines `path,label,x1,y1,x2,y2` by the end of the path, separated by commas or spaces. The label is
    not read: the folder has it. Where most boxes would be empty, or the header says so, the last two numbers are width
    and height. A path without its split has that of the file's name, train.txt."""
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        first = file.readline()
    if "," in first or ";" in first:
        rows = list(csv_rows(path, header=["path", "label", *CORNERS]))
    else:
        rows = [(line, _spaced(cells)) for line, cells in text_rows(path)]
    sized = {"width", "w"} & rows[0][1].keys() if rows else ()
    read: list[tuple[str, str, list[float]]] = []
    for line, row in rows:
        try:
            names = next((each for each in SIZED if set(each) <= row.keys()), CORNERS) if sized else CORNERS
            read.append((line, row["path"], [float(row[name]) for name in names]))
        except (ValueError, KeyError) as error:
            problems.append(f"{line} was left out: {error}.")
    if sized or 2 * sum(x2 <= x1 or y2 <= y1 for _, _, (x1, y1, x2, y2) in read) > len(read):
        problems += [] if sized else [f"{path} is read as x, y, width, height: as corners most boxes would be empty."]
        read = [(line, name, [x, y, x + width, y + height]) for line, name, (x, y, width, height) in read]
    boxes = {}
    for line, name, corners in read:
        try:
            whole = f"{path.stem}/{name}" if path.stem.lower() in SPLIT_NAMES and _bare(name) else name
            boxes[_tail(whole)] = face_box(*corners)
        except ValueError as error:
            problems.append(f"{line} was left out: {error}.")
    return boxes


def _spaced(cells: list[str]) -> dict[str, str]:
    """A line `path label x1 y1 x2 y2`, or without the label; a path may contain spaces."""
    numbers = cells[-5:] if len(cells) > 5 and cells[-5].isdecimal() else cells[-4:]
    name = " ".join(cells[: len(cells) - len(numbers)])
    return {"path": name} | dict(zip(CORNERS, numbers[-4:], strict=False))


def _bare(name: str) -> bool:
    """Whether a path has no more than a class and a file."""
    return len(PurePosixPath(name.replace("\\", "/")).parts) < 3


def _tail(name: str) -> tuple[str, ...]:
    """The last two folders, however they are spelled ("Angry", "Anger"), and the file."""
    *parents, file = PurePosixPath(name.replace("\\", "/")).parts[-3:]
    return (*(SPLIT_NAMES.get(parent.lower(), meaning(parent)) for parent in parents), file)
