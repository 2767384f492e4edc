"""Images from many clients → results: every core looks for faces, and what was found is classified together."""

import asyncio
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from io import BytesIO
from math import ceil
from pathlib import Path

import numpy as np
from fastapi import HTTPException
from PIL import Image

from facerwkv.inference.predictor import Crop, Mode, OnNoFace, Predictor
from facerwkv.inference.results import Result
from facerwkv.media.faces import FaceBox, FaceDetector
from facerwkv.media.images import FORMATS
from facerwkv.web.guard import Limits
from facerwkv.web.uploads import UploadedImage

BATCH = 12
"""The most faces that a batch waits for."""
MOST_THREADS = 8


class ThreadDetectors(threading.local):
    """A face detector of its own for every thread that asks, since one serves one thread at a time."""

    def __init__(self, model: Path | None = None):
        self._detector = FaceDetector(model)

    def __call__(self, rgb: np.ndarray) -> list[FaceBox]:
        return self._detector(rgb)


@dataclass(eq=False)
class Waiting:
    """An image, where its result goes, and what was found in it so far."""

    image: UploadedImage
    mode: Mode
    on_no_face: OnNoFace
    future: "Future[Result]" = field(default_factory=Future)
    result: Result | None = None
    crops: list[Crop] = field(default_factory=list)


@dataclass(eq=False)
class Batch:
    """Images whose faces are classified together: `size` of them, or fewer, if they have more faces or none waits."""

    size: int
    images: list[Waiting] = field(default_factory=list)
    looked: int = 0


class Predictions:
    """`await predictions(images, mode, on_no_face)` gives their results. Close it.

    The predictor's detector must serve several threads. HTTPException 503 where too many images wait.
    """

    def __init__(self, predictor: Predictor, limits: Limits):
        self.predictor, self.limits = predictor, limits
        self._asked = 0
        self._queue: deque[Waiting] = deque()
        self._batch: Batch | None = None
        self._changed = threading.Condition()
        self._closed = False
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(thread_count())]
        for thread in self._threads:
            thread.start()

    async def __call__(
        self, images: Sequence[UploadedImage], mode: Mode = "auto", on_no_face: OnNoFace = "empty"
    ) -> list[Result]:
        waiting = [Waiting(image, mode, on_no_face) for image in images]
        with self._changed:
            if len(self._queue) + len(waiting) > self.limits.waiting:
                raise HTTPException(503, "The service is busy. Try again in a few seconds.", {"Retry-After": "5"})
            self._queue.extend(waiting)
            self._asked += len(waiting)
            self._changed.notify(len(waiting))
        try:
            return await asyncio.gather(*(asyncio.wrap_future(each.future) for each in waiting))
        finally:
            self._asked -= len(waiting)

    def close(self) -> None:
        """Leave what waits, and end when what is worked on is done."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while task := self._next():
            task()

    def _next(self) -> Callable[[], None] | None:
        """The next image to look at, in the batch that is open.

        What is unanswered is divided into batches of one size, in the order in which it came, or some images would
        wait for one batch more than others.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closed)
            if self._closed:
                return None
            each, batch = self._queue.popleft(), self._batch or Batch(even_batch(self._asked))
            batch.images.append(each)
            self._batch = batch if self._queue and len(batch.images) < batch.size else None
            return partial(self._work_on, each, batch)

    def _work_on(self, each: Waiting, batch: Batch) -> None:
        """Look at an image; who looked at the last one of a batch classifies what was found in all of them."""
        self._look(each)
        with self._changed:
            batch.looked += 1
            if self._batch is batch and sum(len(other.crops) for other in batch.images) >= batch.size:
                self._batch = None
            last = self._batch is not batch and batch.looked == len(batch.images)
        if last:
            self._classify([other for other in batch.images if other.crops])

    def _look(self, each: Waiting) -> None:
        if not each.future.set_running_or_notify_cancel():  # its client is gone
            return
        name = each.image.name
        try:
            if message := too_large(each.image, self.limits.pixels):
                each.result = Result(name, "unreadable", message=message)
            else:
                result, each.crops = self.predictor.crops(each.image.data, each.mode, each.on_no_face)
                message = result.message.replace(result.source, name)
                each.result = replace(result, source=name, message=message, image=None)
        except Exception as error:
            each.future.set_exception(error)
            return
        if not each.crops:
            each.future.set_result(each.result)

    def _classify(self, found: Sequence[Waiting]) -> None:
        queue = [(each.result, crop) for each in found for crop in each.crops if each.result]
        try:
            for start in range(0, len(queue), 2 * BATCH):
                self.predictor.classify(queue[start : start + 2 * BATCH])
        except Exception as error:
            for each in found:
                each.future.set_exception(error)
            return
        for each in found:
            assert each.result
            each.future.set_result(each.result)


def even_batch(count: int, most: int = BATCH) -> int:
    """The size of the batches, of `most` or fewer, into which `count` images divide evenly."""
    return ceil(count / ceil(count / most)) if count else 1


def thread_count() -> int:
    return min(MOST_THREADS, os.cpu_count() or 1)


def too_large(image: UploadedImage, pixels: int) -> str:
    """A sentence for an image whose header says that it has more than `pixels`."""
    Image.init()
    formats = [each for each in FORMATS if each in Image.OPEN]
    with suppress(Exception), Image.open(BytesIO(image.data), formats=formats) as opened:
        if opened.width * opened.height > pixels:
            return (
                f"{image.name} has {opened.width} x {opened.height} pixels, more than the {pixels:,} that are allowed. "
                "Make it smaller first."
            )
    return ""
