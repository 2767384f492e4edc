"""The face's box of every image of a data set: from a file, or from the detector, whose answers are kept."""

import hashlib
import json
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path, PurePosixPath

from filelock import FileLock

from facerwkv.core.devices import cores
from facerwkv.core.errors import InputError
from facerwkv.data.cache import cache_folder
from facerwkv.data.readers import CORNERS, csv_rows, face_box, meaning, progress
from facerwkv.data.samples import Box, Sample, Splits, mark, read_image
from facerwkv.media.faces import FaceDetector
from facerwkv.media.images import UnreadableImage

DETECT = "detect"
FOUND = "faces.jsonl"  # a line an image: its mark, its largest face or null
CHUNK = 64  # images searched between two writes


def add_boxes(splits: Splits, boxes: str, problems: list[str]) -> Splits:
    """The samples with boxes: those of a file `path,label,x1,y1,x2,y2`, or with "detect", where a sample has none, its
    largest face. What got no box is listed in `problems`."""
    return _detected(splits, problems) if boxes == DETECT else _from_file(splits, Path(boxes), problems)


def _detected(splits: Splits, problems: list[str]) -> Splits:
    bare = [sample for samples in splits.values() for sample in samples if sample.box is None]
    if not bare:
        return splits
    found = largest_faces(bare, cache_folder() / FOUND)
    boxed = {
        split: [sample if sample.box else replace(sample, box=found.get(_key(sample))) for sample in samples]
        for split, samples in splits.items()
    }
    without = [sample.name for sample in bare if found.get(_key(sample)) is None]
    if without:
        problems.append(
            f"The detector found no face in {len(without)} of {len(bare)} images, for example {without[0]}; "
            "transform.no_box says what counts as the face there."
        )
    return boxed


def largest_faces(samples: Sequence[Sample], store: Path) -> dict[str, Box | None]:
    """Key of an image → its largest face, or None; what `store` knows is not searched again.

    An interrupted search goes on where it stopped. Of several processes one searches and the others wait.
    """
    try:
        store.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(store.with_suffix(".lock")):
            found = _read(store)
            missing = [sample for sample in samples if _key(sample) not in found]
            with store.open("a", encoding="utf-8") as file:
                for key, box in progress(_search(missing), "Detecting faces", len(missing)):
                    found[key] = box
                    file.write("\n" + json.dumps([key, box]))  # in front, so that a line cut off spoils no other
                    file.flush()
    except OSError as error:
        raise InputError(
            f"The faces found cannot be kept in {store}: {error.strerror or error}. Name another folder in "
            "FACERWKV_HOME."
        ) from error
    return found


def _search(samples: Sequence[Sample]) -> Iterator[tuple[str, Box | None]]:
    own = threading.local()  # a detector serves one thread

    def face(sample: Sample) -> tuple[str, Box | None]:
        if not hasattr(own, "detector"):
            own.detector = FaceDetector()
        try:
            faces = own.detector(read_image(sample))
        except UnreadableImage:  # which is told when the image itself is wanted
            faces = []
        boxes = [(face.x1, face.y1, face.x2, face.y2) for face in faces]
        return _key(sample), max(boxes, key=_area, default=None)

    with ThreadPoolExecutor(cores()) as pool:
        for start in range(0, len(samples), CHUNK):
            yield from pool.map(face, samples[start : start + CHUNK])


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _key(sample: Sample) -> str:
    return hashlib.blake2b(mark(sample), digest_size=16).hexdigest()


def _read(store: Path) -> dict[str, Box | None]:
    """What was found so far; a line that was cut off is searched again."""
    found: dict[str, Box | None] = {}
    lines = store.read_text(encoding="utf-8", errors="replace").splitlines() if store.is_file() else []
    for line in lines:
        try:
            key, box = json.loads(line)
            found[key] = tuple(box) if box else None
        except (ValueError, TypeError):
            continue
    return found


def _from_file(splits: Splits, path: Path, problems: list[str]) -> Splits:
    """Give every sample the box that the file has for it."""
    boxes = _read_boxes(path, problems)
    boxed = {
        split: [replace(sample, box=boxes.get(_tail(sample.name), sample.box)) for sample in samples]
        for split, samples in splits.items()
    }
    without = [sample.name for samples in boxed.values() for sample in samples if sample.box is None]
    if len(without) == sum(map(len, boxed.values())):
        raise InputError(f"{path} names none of the images; its paths must be like {without[0] if without else ''}.")
    if without:
        problems.append(f"{path} has no box for {len(without)} images, for example {without[0]}.")
    return boxed


def _read_boxes(path: Path, problems: list[str]) -> dict[tuple[str, ...], Box]:
    """The boxes of lines `path,label,x1,y1,x2,y2` by the end of the path. The label is not read: the folder has it."""
    boxes = {}
    for place, row in csv_rows(path, header=["path", "label", *CORNERS]):
        try:
            boxes[_tail(row["path"])] = face_box(*(float(row[corner]) for corner in CORNERS))
        except (ValueError, KeyError) as error:
            problems.append(f"{place} was left out: {error}.")
    return boxes


def _tail(name: str) -> tuple[str, ...]:
    """The last two folders, however they are spelled ("Angry", "Anger"), and the file."""
    *homes, file = PurePosixPath(name.replace("\\", "/")).parts[-3:]
    return (*map(meaning, homes), file)
