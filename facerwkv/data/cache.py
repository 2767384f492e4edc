"""Images decoded and resized once, as uint8: one store per data set and geometry, which splits, seeds, models and
processes share.

FOLDER/KEY/about.json          what it is of, and the images' shape
FOLDER/KEY/00000.bin .json     a shard: images one after the other, and the keys of them; images that cannot be read

KEY covers the data set's place and the geometry, an image's key its file or pixels and, for faces, its box: what
changed is decoded anew. Shards are written whole or not at all, the .json last, and never change: a build that was
killed goes on after the last one.
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
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
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

FORMAT = 2
CHUNK = 64  # images decoded between two writes
SHARD = 256_000_000  # bytes of a shard: what a build that is killed loses at most
LARGE = 1_000_000_000  # bytes of which a build says beforehand that it will write them
MANY_DRAWN = 256  # rendered images from which starting processes pays
ABOUT = "about.json"
_note = logging.getLogger(__name__).warning
Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Cache:
    """The images of a list of samples, in its order.

    rows: for each sample its shard and its row in that, int32 (N, 2). unreadable: position → reason; the rows of those
    are -1. Nothing is open: a Cache travels to workers, and images count in no process's memory.
    """

    folder: Path
    shape: Shape
    rows: np.ndarray
    unreadable: Mapping[int, str]

    def image(self, index: int) -> np.ndarray:
        """uint8 (h, w, c), one's own. OSError where the store was removed since."""
        (shard, row), size = self.rows[index].tolist(), math.prod(self.shape)
        pixels = np.fromfile(_files(self.folder, shard)[0], np.uint8, size, offset=row * size)
        if pixels.size < size:
            raise OSError(f"{self.folder} has no image {shard}:{row}")
        return pixels.reshape(self.shape)


@dataclass(frozen=True)
class Stored:
    """A store of a folder: its key, bytes, days since something was added, and what is in it."""

    key: str
    bytes: int
    days: float
    about: str


@dataclass
class _Index:
    """What a store holds: an image's key → its shard and row, or the reason why it cannot be read."""

    places: dict[str, tuple[int, int]]
    unreadable: dict[str, str]
    damaged: list[Path]

    def missing(self, keys: Sequence[str]) -> dict[str, int]:
        """The keys that it does not know, each with its first position."""
        missing: dict[str, int] = {}
        for row, key in enumerate(keys):
            if key not in self.places and key not in self.unreadable:
                missing.setdefault(key, row)
        return missing


def list_caches(folder: Path) -> list[Stored]:
    """The stores in a folder, the newest first; a build that has not ended is as large as it has come."""
    found = []
    for store in (path.parent for path in folder.glob(f"*/{ABOUT}")):
        about, shards = f"{store} is damaged", store.glob("[0-9]*.json")
        with suppress(OSError, ValueError, KeyError, TypeError):
            count = sum(len(json.loads(path.read_text(encoding="utf-8"))["keys"]) for path in shards)
            about = f"{count:,} images, {json.loads((store / ABOUT).read_text(encoding='utf-8'))['about']}"
        statuses = [store.stat()]
        for path in store.iterdir():
            with suppress(FileNotFoundError):  # of a build that goes on
                statuses.append(path.stat())
        newest = max(status.st_mtime for status in statuses)
        size = sum(status.st_size for status in statuses)
        found.append(Stored(store.name, size, (time.time() - newest) / 86_400, about))
    return sorted(found, key=lambda each: each.days)


def remove_caches(folder: Path, keys: Sequence[str], everything: bool = False) -> list[Stored]:
    """Remove the stores whose keys begin so, or all of them; those removed. InputError for a key that is none's, and
    for a store that another process builds."""
    there = list_caches(folder)
    if not keys and not everything:
        raise InputError("Name the caches to remove, or all of them. See them: facerwkv data cache list")
    for key in keys:
        if not any(each.key.startswith(key) for each in there):
            raise InputError(f"{folder} has no cache {key!r}. See them: facerwkv data cache list")
    gone = [each for each in there if everything or any(each.key.startswith(key) for key in keys)]
    for each in gone:
        try:
            with FileLock(folder / f"{each.key}.lock", timeout=0):
                shutil.rmtree(folder / each.key)
        except Timeout as error:
            raise InputError(f"Another process builds the cache {each.key}; wait until it ends, or stop it.") from error
        (folder / f"{each.key}.lock").unlink(missing_ok=True)
    return gone


def open_cache(
    samples: Sequence[Sample], config: TransformConfig, folder: Path, what: str = "images", source: str = ""
) -> Cache:
    """The images of these samples under this geometry; those that the store of `source` lacks are added to it, with a
    progress bar.

    Of several processes that ask at once, one builds and the others wait. An interrupted build leaves whole shards,
    and the next call goes on; a damaged shard is built anew. Raises InputError where the disk is too small or may not
    be written, and where no image at all can be read.
    """
    shape, source = (*config.image_size, config.channels), _place(source)
    store = _store(config, folder, source)
    keys = [_key(sample, config.sees_faces) for sample in samples]
    index = _index(store, math.prod(shape))
    if index.missing(keys):
        with _locked(store):
            index = _index(store, math.prod(shape), quiet=True)
            if missing := index.missing(keys):
                if not (store / ABOUT).is_file():
                    size = f"{shape[0]} x {shape[1]} x {shape[2]}"
                    write_text(store / ABOUT, json.dumps({"format": FORMAT, "about": f"{size}, of {source or what}"}))
                chosen = {key: samples[row] for key, row in missing.items()}
                _build(chosen, EvalTransform(config), store, shape, index, what)
    unreadable = {row: index.unreadable[key] for row, key in enumerate(keys) if key in index.unreadable}
    if samples and len(unreadable) == len(samples):
        raise InputError(f"None of the {len(samples)} {what} can be read. The first: {unreadable[0]}")
    places = np.array([index.places.get(key, (-1, -1)) for key in keys], np.int32)
    return Cache(store, shape, places.reshape(-1, 2), unreadable)


def bytes_there(config: TransformConfig, folder: Path, source: str) -> int:
    """The bytes of images that are kept of a data set under a geometry."""
    return sum(path.stat().st_size for path in _store(config, folder, _place(source)).glob("[0-9]*.bin"))


def _place(source: str) -> str:
    """NAME:ROOT in one spelling."""
    name, _, path = source.partition(":")
    root = Path(os.path.expanduser(path))
    return f"{name}:{root.resolve()}" if path and root.exists() else source


def _store(config: TransformConfig, folder: Path, place: str) -> Path:
    digest = hashlib.blake2b(f"{FORMAT} {place} {config.geometry}".encode(), digest_size=16)
    return folder / digest.hexdigest()


def _key(sample: Sample, sees_faces: bool) -> str:
    box = repr(sample.box if sees_faces else None).encode()
    return hashlib.blake2b(mark(sample) + box, digest_size=16).hexdigest()


def _files(store: Path, shard: int) -> tuple[Path, Path]:
    """A shard's images, and their keys."""
    return store / f"{shard:05d}.bin", store / f"{shard:05d}.json"


def _index(store: Path, size: int, quiet: bool = False) -> _Index:
    """What is whole in a store whose images have `size` bytes. A damaged shard is left out, with a note."""
    index = _Index({}, {}, [])
    for path in sorted(store.glob("[0-9]*.json")):
        images = path.with_suffix(".bin")
        try:
            described = json.loads(path.read_text(encoding="utf-8"))
            keys, unreadable = list(described["keys"]), dict(described["unreadable"])
            if images.stat().st_size != len(keys) * size:
                raise ValueError(f"it contains {images.stat().st_size} bytes")
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            index.damaged.append(path)
            if not quiet:
                _note(f"The cache {images} is damaged ({error}); its images are decoded again.")
            continue
        index.places |= {key: (int(path.stem), row) for row, key in enumerate(keys)}
        index.unreadable |= unreadable
    return index


def _locked(store: Path) -> AbstractContextManager:
    """The lock of a store; the system lets go of it when a process dies."""
    lock = FileLock(store.with_suffix(".lock"))
    try:
        store.mkdir(parents=True, exist_ok=True)
        try:
            return lock.acquire(timeout=0)
        except Timeout:
            _note(f"Another process builds the cache {store}; waiting for it.")
            return lock.acquire()
    except OSError as error:
        raise InputError(
            f"Cannot write the cache in {store.parent}: {error.strerror or error}. "
            "Name another folder with data.cache=FOLDER, or do without: data.cache=false."
        ) from error


def _build(
    samples: Mapping[str, Sample], transform: EvalTransform, store: Path, shape: Shape, index: _Index, what: str
) -> None:
    """Add images to a store and to what is known of it, shard by shard."""
    for left_over in (*store.glob(".*.part"), *index.damaged):  # of a build that was killed
        left_over.unlink()
    size, keys = math.prod(shape), list(samples)
    needed, free = size * len(keys), shutil.disk_usage(store).free
    ways = (
        "Do without it (data.cache=false), choose a smaller transform.image_size, or name another folder: "
        "data.cache=FOLDER."
    )
    if needed > free:
        raise InputError(
            f"The cache of {len(keys)} images needs {needed:,} bytes in {store.parent}, where {free:,} are free. {ways}"
        )
    if needed > LARGE:
        _note(f"{needed / 1e9:,.1f} GB of decoded images will be kept in {store.parent}: facerwkv data cache list")
    first = 1 + max((int(path.stem) for path in store.glob("[0-9]*.bin")), default=-1)
    images = iter(progress(_images(_Images(list(samples.values()), transform)), f"Caching {what}", len(keys)))
    count = max(1, SHARD // size)
    for shard, start in enumerate(range(0, len(keys), count), first):
        file, described = _files(store, shard)
        kept: list[str] = []
        unreadable: dict[str, str] = {}
        try:
            with atomic(file) as partial, partial.open("wb") as writer:
                for key, image in zip(keys[start : start + count], images, strict=False):
                    if isinstance(image, str):
                        unreadable[key] = image
                    else:
                        writer.write(image.data)
                        kept.append(key)
                writer.flush()
                os.fsync(writer.fileno())
            write_text(described, json.dumps({"keys": kept, "unreadable": unreadable}) + "\n")
        except InputError as error:
            if not isinstance(error.__cause__, OSError):
                raise
            raise InputError(
                f"Cannot write the cache {file}: {error.__cause__.strerror}. {start:,} of {len(keys):,} images were "
                f"added and stay; the others need {needed - start * size:,} bytes. Free some and run the same command "
                f"again. {ways}"
            ) from error
        index.places |= {key: (shard, row) for row, key in enumerate(kept)}
        index.unreadable |= unreadable


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
