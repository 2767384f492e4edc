"""Crops of several images → batches → each image's result: one way for the predictor, the service and Ray's workers."""

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import islice
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np

from facerwkv.core.threads import map_ahead
from facerwkv.inference.options import Options
from facerwkv.inference.results import Crop, Face, Opened, Result

if TYPE_CHECKING:
    from facerwkv.inference.predictor import Predictor

NOTHING = Opened({}, (), Options())
HELD = 256 * 2**20
"""Bytes of pixels that wait for their faces' batch."""


@dataclass(eq=False)
class Entry:
    """An image in a batch: `future` will be its result."""

    batch: "Batch"
    future: "Future[Result]" = field(default_factory=Future)
    opened: Opened | None = None
    since: float = field(default_factory=time.monotonic)


@dataclass(eq=False)
class Batch:
    """Images that are classified together once it is closed and all of them were opened."""

    size: int
    entries: list[Entry] = field(default_factory=list)
    closed: bool = False


@dataclass(eq=False)
class Batcher:
    """Groups images into batches. An image joins before it is opened, so a batch has images in the order in which they
    came, and each batch is classified by the thread that opens its last image. Any number of threads may use it.

    `classify` gives a face for each of several crops, each with its own options, and is called with at most `most`.
    """

    classify: Callable[[list[Crop], list[Options]], list[Face]]
    most: int
    _open: Batch | None = field(default=None, init=False)
    _closed: list[Batch] = field(default_factory=list, init=False)
    _crowds: list[Batch] = field(default_factory=list, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    _in_crowd: threading.Lock = field(default_factory=threading.Lock, init=False)

    @property
    def waits(self) -> bool:
        """Whether a closed batch waits for an image that is still being opened."""
        return bool(self._closed)

    def join(self, size: int, last: bool = False, future: "Future[Result] | None" = None) -> Entry:
        """A new entry in the batch that is open; a new batch takes `size` images. `last`: it waits for no more.
        `future` will be the image's result."""
        with self._lock:
            batch = self._open = self._open or Batch(size)
            entry = Entry(batch, future or Future())
            batch.entries.append(entry)
            if last or len(batch.entries) >= batch.size:
                self._close(batch)
            return entry

    def put(self, entry: Entry, opened: Opened | Exception) -> None:
        """An image was opened, or failed. `size` crops close a batch too. What is due is classified."""
        with self._lock:
            entry.opened, batch = opened if isinstance(opened, Opened) else NOTHING, entry.batch
            if len(entry.opened.crops) > self.most:
                self._part(entry)
            elif sum(len(other.opened.crops) for other in batch.entries if other.opened) >= batch.size:
                self._close(batch)
        if isinstance(opened, Exception):
            entry.future.set_exception(opened)
        elif not opened.crops:
            entry.future.set_result(opened.result())
        self._classify()

    def flush(self) -> None:
        """Classify what was opened, without waiting for more images."""
        with self._lock:
            if self._open:
                self._close(self._open)
        self._classify()

    def leave_behind(self, patience: float) -> None:
        """Images whose opening takes over `patience` seconds leave their batch: the others do not wait for them."""
        with self._lock:
            for batch in list(self._closed):
                slow = [each for each in batch.entries if not each.opened and time.monotonic() - each.since > patience]
                for entry in slow if len(slow) < len(batch.entries) else ():
                    self._part(entry)
        self._classify()

    def _part(self, entry: Entry) -> None:
        """The others of its batch do not wait for this image."""
        if len(entry.batch.entries) > 1:
            entry.batch.entries.remove(entry)
            entry.batch = Batch(1, [entry])
        self._close(entry.batch)

    def _is_crowd(self, batch: Batch) -> bool:
        return any(entry.opened and len(entry.opened.crops) > self.most for entry in batch.entries)

    def _close(self, batch: Batch) -> None:
        if not batch.closed:
            batch.closed = True
            self._closed.append(batch)
        self._open = None if self._open is batch else self._open

    def _classify(self) -> None:
        """Classify the closed batches all of whose images were opened; no other thread gets them.

        One thread at a time classifies images of more than `most` faces: the others go on.
        """
        with self._lock:
            due = [batch for batch in self._closed if all(entry.opened for entry in batch.entries)]
            self._closed = [batch for batch in self._closed if batch not in due]
            self._crowds += filter(self._is_crowd, due)
        self._finish([batch for batch in due if not self._is_crowd(batch)])
        while self._crowds and self._in_crowd.acquire(blocking=False):
            try:
                self._finish([self._crowds.pop(0)] if self._crowds else [])
            finally:
                self._in_crowd.release()

    def _finish(self, batches: list[Batch]) -> None:
        for batch in batches:
            queue = [(entry, entry.opened) for entry in batch.entries if entry.opened and entry.opened.crops]
            batch.entries.clear()  # in a cycle, their pixels would stay until Python looks for cycles
            crops = [(crop, opened.options) for _, opened in queue for crop in opened.crops]
            faces: list[Face] = []
            try:
                size = even_batch(len(crops), self.most)
                for start in range(0, len(crops), size):
                    part = crops[start : start + size]
                    faces += self.classify([crop for crop, _ in part], [options for _, options in part])
            except Exception as error:
                for entry, _ in queue:
                    entry.future.set_exception(error)
                continue
            found = iter(faces)
            for entry, opened in queue:
                entry.future.set_result(opened.result(list(islice(found, len(opened.crops)))))


def even_batch(count: int, most: int) -> int:
    """The size of the batches, of at most `most`, into which `count` divides evenly."""
    return ceil(count / ceil(count / most)) if count else 1


def in_threads(predictor: "Predictor", sources: Iterable[Any], options: Options, threads: int) -> Iterator[Result]:
    """A result for each source, in order, as in `Predictor.predict_iter`.

    The thread that opens a batch's last image classifies it, on one core once there are more images than one batch
    holds: the other threads go on meanwhile. Of names, which hold no pixels, a batch is taken ahead.
    """
    waiting, joined = deque[Entry](), 0

    def classify(crops: list[Crop], each: list[Options]) -> list[Face]:
        return predictor.classify(crops, each, beside=threads > 1 and joined > options.batch_size)

    batcher = Batcher(classify, options.batch_size)

    def joining() -> Iterator[tuple[Entry, Any, int]]:
        nonlocal joined
        for number, source in enumerate(sources):
            joined = number + 1
            yield batcher.join(options.batch_size), source, number

    def open_one(item: tuple[Entry, Any, int]) -> Entry:
        entry, source, number = item
        try:
            batcher.put(entry, predictor.open(source, options, number))
        except Exception as error:
            batcher.put(entry, error)
        return entry

    def ahead(item: tuple[Entry, Any, int]) -> int:
        return options.batch_size if isinstance(item[1], str | os.PathLike) else 0

    for entry in map_ahead(open_one, joining(), threads, ahead):
        waiting.append(entry)
        if entry.opened and len(waiting) >= most_held(entry.opened):
            batcher.flush()
            yield waiting.popleft().future.result()
        while waiting and waiting[0].future.done():
            yield waiting.popleft().future.result()
    batcher.flush()
    while waiting:
        yield waiting.popleft().future.result()


def most_held(opened: Opened) -> int:
    """How many images like this one may wait."""
    pixels = opened.fields.get("image")
    return max(1, HELD // max(1, pixels.nbytes)) if isinstance(pixels, np.ndarray) else sys.maxsize
