"""Crops of several images → batches → each image's result: one way for the predictor, the service and Ray's workers."""

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
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
    came. Any number of threads may use it.

    `classify` gives a face for each of several crops, each with its own options, and is called with at most `most`: in
    the threads of `pool` where there is one, without which by the thread that opens a batch's last image.
    """

    classify: Callable[[list[Crop], list[Options]], list[Face]]
    most: int
    pool: ThreadPoolExecutor | None = None
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
        for batch in due:
            if not self._is_crowd(batch):
                self.pool.submit(self._finish, batch) if self.pool else self._finish(batch)
        while self._crowds and self._in_crowd.acquire(blocking=False):
            try:
                if self._crowds:
                    self._finish(self._crowds.pop(0))
            finally:
                self._in_crowd.release()

    def _finish(self, batch: Batch) -> None:
        queue = [(entry, entry.opened) for entry in batch.entries if entry.opened and entry.opened.crops]
        batch.entries.clear()  # in a cycle, their pixels would stay until Python looks for cycles
        crops = [(crop, opened.options) for _, opened in queue for crop in opened.crops]
        faces: list[Face] = []
        try:
            size = even_batch(len(crops), self.most)
            for start in range(0, len(crops), size):
                part = crops[start : start + size]
                faces += self.classify([crop for crop, _ in part], [options for _, options in part])
            found = iter(faces)
            results = [opened.result(list(islice(found, len(opened.crops)))) for _, opened in queue]
        except Exception as error:
            for entry, _ in queue:
                entry.future.set_exception(error)
            return
        for (entry, _), result in zip(queue, results, strict=True):
            entry.future.set_result(result)


def even_batch(count: int, most: int) -> int:
    """The size of the batches, of at most `most`, into which `count` divides evenly."""
    return ceil(count / ceil(count / most)) if count else 1


def in_batches(images: Iterable[Opened], batcher: Batcher, ahead: int | None = None) -> Iterator[Result]:
    """The result of each image: it leaves when it and all before it are complete. What `images` raises comes last.

    Fewer than `ahead` images wait for a batch to fill (None: `most` of the batcher), and fewer where they are large.
    As many again wait for the batcher's pool.
    """
    waiting, closed, raised = deque[Entry](), deque[Entry](), list[Exception]()

    def until_raised() -> Iterator[Opened]:
        try:
            yield from images
        except Exception as error:
            raised.append(error)

    for opened in until_raised():
        entry = batcher.join(batcher.most)
        waiting.append(entry)
        batcher.put(entry, opened)
        most = min(ahead or batcher.most, most_held(opened))
        if len(waiting) >= most:
            batcher.flush()
        while waiting and (waiting[0].batch.closed or waiting[0].future.done()):
            closed.append(waiting.popleft())
        while closed and (closed[0].future.done() or len(closed) > most):
            entry = closed.popleft()  # whose pixels are held until the next result is asked for
            yield entry.future.result()
    batcher.pool = None
    batcher.flush()
    for entry in (*closed, *waiting):
        yield entry.future.result()
    for error in raised:
        raise error


def most_held(opened: Opened) -> int:
    """How many images like this one may wait."""
    pixels = opened.fields.get("image")
    return max(1, HELD // max(1, pixels.nbytes)) if isinstance(pixels, np.ndarray) else sys.maxsize


def in_threads(predictor: "Predictor", sources: Iterable[Any], options: Options, threads: int) -> Iterator[Result]:
    """A result for each source, in order, as in `Predictor.predict_iter`, whose images are opened in threads.

    Where the model can compute on one core beside other calls, the same threads classify the batches of long lists, and
    of names, which hold no pixels, a batch is taken ahead; else the caller's thread classifies.
    """
    pool = ThreadPoolExecutor(threads)
    beside = threads > 1 and hasattr(predictor.model, "beside")

    def classify(crops: list[Crop], each: list[Options]) -> list[Face]:
        return predictor.classify(crops, each, beside=bool(batcher.pool))

    batcher = Batcher(classify, options.batch_size, pool if beside else None)

    def ahead(numbered: tuple[int, Any]) -> int:
        return options.batch_size if beside and isinstance(numbered[1], str | os.PathLike) else 0

    try:
        opened = map_ahead(
            lambda each: predictor.open(each[1], options, each[0]), enumerate(sources), threads, ahead, pool
        )
        yield from in_batches(opened, batcher)
    finally:
        pool.shutdown(cancel_futures=True)
