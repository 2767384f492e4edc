"""Images decoded and resized once: a uint8 memory map per split, so that epochs after the first read no image file.

A cache is two files, KEY.npy (N, h, w, c) and KEY.json (which images could not be read). The key covers what every
sample is made of and the geometry, so a changed image or setting leads to another file, never to a stale one.
"""

import hashlib
import json
import logging
import math
import multiprocessing
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from filelock import FileLock, Timeout
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from facerwkv.core.devices import cores
from facerwkv.core.errors import InputError
from facerwkv.core.files import atomic, write_text
from facerwkv.data.readers import progress
from facerwkv.data.samples import Sample, mark, read_image
from facerwkv.data.transforms import EvalTransform, TransformConfig
from facerwkv.media.images import UnreadableImage

FORMAT = 1
CHUNK = 64  # images decoded between two writes
MANY_DRAWN = 256  # rendered images from which starting processes pays
GEOMETRY = ("image_size", "crop", "no_box", "margin", "in_chans", "interpolation")
_note = logging.getLogger(__name__).warning


@dataclass(frozen=True)
class Cache:
    """The images of a list of samples, row by row in its order; a row of `unreadable` (row → reason) is zeros.

    The file is opened on first use and anew in every process, so that a Cache travels to workers as a path.
    """

    path: Path
    unreadable: Mapping[int, str]

    @cached_property
    def array(self) -> np.ndarray:
        """uint8 (N, h, w, c), read-only."""
        return np.load(self.path, mmap_mode="r", allow_pickle=False)

    def __reduce__(self):
        return Cache, (self.path, self.unreadable)


@dataclass(frozen=True)
class Stored:
    """A cache of a folder: its key, bytes, days since it was built, and what is in it."""

    key: str
    bytes: int
    days: float
    about: str


def list_caches(folder: Path) -> list[Stored]:
    """The caches in a folder, the newest first; what a build left behind that did not end is one, too."""
    found = []
    for path in folder.glob("*.npy") if folder.is_dir() else ():
        about = "not whole: its build did not end"
        with suppress(OSError, ValueError, AttributeError):
            about = str(json.loads(path.with_suffix(".json").read_text(encoding="utf-8")).get("about", "images"))
        status = path.stat()
        found.append(Stored(path.stem, status.st_size, (time.time() - status.st_mtime) / 86_400, about))
    return sorted(found, key=lambda each: each.days)


def remove_caches(folder: Path, keys: Sequence[str], everything: bool = False) -> list[Stored]:
    """Remove the caches whose keys begin so, or all of them; those removed. InputError for a key that is none's."""
    there = list_caches(folder)
    if not keys and not everything:
        raise InputError("Name the caches to remove, or all of them. See them: facerwkv data cache list")
    for key in keys:
        if not any(each.key.startswith(key) for each in there):
            raise InputError(f"{folder} has no cache {key!r}. See them: facerwkv data cache list")
    gone = [each for each in there if everything or any(each.key.startswith(key) for key in keys)]
    for each in gone:
        for ending in (".json", ".npy", ".lock"):  # without its .json a cache is none
            (folder / f"{each.key}{ending}").unlink(missing_ok=True)
    return gone


def open_cache(samples: Sequence[Sample], config: TransformConfig, folder: Path, what: str = "images") -> Cache:
    """The cache of these samples under this geometry; it is built, with a progress bar, where there is none.

    Of several processes that ask at once, one builds and the others wait. An interrupted build leaves nothing that
    counts; a damaged file is built anew. Raises InputError where the disk is too small or may not be written, and
    where no image at all can be read.
    """
    digest = hashlib.blake2b(f"{FORMAT} {config.model_dump_json(include=set(GEOMETRY))}".encode(), digest_size=16)
    for sample in samples:
        digest.update(mark(sample))
        digest.update(repr(sample.box if config.sees_faces else None).encode())
    shape = (len(samples), *config.image_size, config.channels)
    path = folder / f"{digest.hexdigest()}.npy"
    if cache := _load(path, shape):
        return cache
    lock = FileLock(path.with_suffix(".lock"))  # the system lets go of it when a process dies
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            held = lock.acquire(timeout=0)
        except Timeout:
            _note(f"Another process builds the cache {path}; waiting for it.")
            held = lock.acquire()
    except OSError as error:
        raise InputError(
            f"Cannot write the cache in {folder}: {error.strerror or error}. "
            "Name another folder with data.cache=FOLDER, or do without: data.cache=false."
        ) from error
    with held:
        return _load(path, shape) or _build(samples, EvalTransform(config), path, shape, what)


def _load(path: Path, shape: tuple[int, ...]) -> Cache | None:
    """The cache if it is there and whole. The .json is written last: without it, a build did not end."""
    if not path.with_suffix(".json").is_file():
        return None
    try:
        described = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        cache = Cache(path, {int(row): reason for row, reason in described["unreadable"].items()})
        if cache.array.shape != shape or cache.array.dtype != np.uint8:
            raise ValueError(f"it contains {cache.array.dtype} {cache.array.shape}")
    except (OSError, ValueError, EOFError, KeyError, AttributeError, TypeError) as error:
        _note(f"The cache {path} is damaged ({error}); it is built again.")
        return None
    return cache


def _build(samples: Sequence[Sample], transform: EvalTransform, path: Path, shape: tuple[int, ...], what: str) -> Cache:
    for left_over in path.parent.glob(f".{path.name}.*.part"):  # of a build that was killed
        left_over.unlink()
    needed, free = math.prod(shape), shutil.disk_usage(path.parent).free
    if needed > free:
        raise InputError(
            f"The cache of {shape[0]} images needs {needed:,} bytes in {path.parent}, where {free:,} are free. "
            "Do without it (data.cache=false), choose a smaller transform.image_size, or name another folder: "
            "data.cache=FOLDER."
        )
    path.with_suffix(".json").unlink(missing_ok=True)
    unreadable: dict[int, str] = {}
    with atomic(path) as partial, partial.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        images = _images(_Images(samples, transform))
        for row, image in enumerate(progress(images, f"Caching {what}", len(samples))):
            if isinstance(image, str):
                unreadable[row] = image
                image = np.zeros(shape[1:], np.uint8)
            file.write(image.data)
        if len(unreadable) == len(samples):
            raise InputError(f"None of the {len(samples)} {what} can be read. The first: {unreadable[0]}")
        file.flush()
        os.fsync(file.fileno())
    about = (
        f"{len(samples)} {what}, {shape[1]} x {shape[2]}, from {os.fsencode(samples[0].name).decode(errors='replace')}"
    )
    described = {"format": FORMAT, "unreadable": unreadable, "about": about}
    write_text(path.with_suffix(".json"), json.dumps(described) + "\n")
    return Cache(path, unreadable)


class _Images(TorchDataset):
    """A row's image, or the reason why it cannot be read."""

    def __init__(self, samples: Sequence[Sample], transform: EvalTransform):
        self.samples, self.transform = samples, transform

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, row: int) -> np.ndarray | str:
        sample = self.samples[row]
        try:
            return self.transform(read_image(sample), sample.box)
        except UnreadableImage as error:  # which names its file
            return str(error)
        except InputError as error:
            return f"{sample.name}: {error}"


def _as_it_is(image: Any) -> Any:
    """In place of PyTorch's tensors; a function with a name, since other systems than Linux pickle it for a worker."""
    return image


def _images(images: _Images) -> Iterator[np.ndarray | str]:
    """The images in order: of files by threads, since decoding lets others run; rendered ones by processes, since
    drawing holds Python's lock."""
    rendered = sum(callable(sample.image) for sample in images.samples)
    if rendered < MANY_DRAWN or multiprocessing.parent_process():  # a worker may have no workers of its own
        with ThreadPoolExecutor(cores()) as pool:
            for start in range(0, len(images), CHUNK):
                yield from pool.map(images.__getitem__, range(start, min(start + CHUNK, len(images))))
        return
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # here, not in the workers: threads do not survive a fork, and OpenCV waits for them
    try:
        yield from DataLoader(images, batch_size=None, num_workers=cores(), collate_fn=_as_it_is)
    finally:
        cv2.setNumThreads(threads)
