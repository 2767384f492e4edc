"""Images from many clients → results: every core looks for faces, which are classified together."""

import asyncio
import heapq
import os
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from fastapi import HTTPException

from facerwkv.inference.batcher import Batcher, even_batch
from facerwkv.inference.options import Options
from facerwkv.inference.predictor import Predictor
from facerwkv.inference.results import Opened, Result
from facerwkv.media.images import NamedImage
from facerwkv.web.guard import Limits
from facerwkv.web.threads import start

BATCH = 12
"""The most images that a batch waits for."""
PATIENCE = 0.25
"""Seconds that a batch waits for an image that is being opened: a hundred megapixels take some."""
MOST_THREADS = 8


@dataclass(order=True)
class Request:
    """An image that waits for a thread, and its result. Those with a lower `turn` are opened first, then older ones.

    `faces` is the list of the faces found so far in each image that was asked for together with it.
    """

    turn: int
    number: int
    image: NamedImage = field(compare=False)
    options: Options = field(compare=False)
    moment: dict[str, Any] = field(compare=False)
    faces: list[int] = field(compare=False)
    future: "Future[Result]" = field(default_factory=Future, compare=False)


class Predictions:
    """`await predictions(images, options)` gives their results. `stop` it.

    `images` and `faces` count what was opened.

    Between the images of one request, those of others have their turn. What is unanswered is divided into batches of
    one size, in the order in which it is opened, or some images would wait for one batch more than others.
    HTTPException 503 where too many images wait.
    """

    def __init__(self, predictor: Predictor, limits: Limits):
        self.predictor, self.limits = predictor, limits
        self._asked = self.images = self.faces = 0
        self._queue: list[Request] = []
        self._turn, self._count = 0, count()
        self._batcher = Batcher(predictor.classify, 2 * BATCH)
        self._changed = threading.Condition()
        self._stopped = False
        self.threads = [start(self._work) for _ in range(thread_count())]

    async def __call__(
        self, images: Sequence[NamedImage], options: Options | None = None, **moment: Any
    ) -> list[Result]:
        """`moment` is the `time` and `frame` of the results, if they are of a stream."""
        waiting: list[Request] = []
        faces: list[int] = []
        with self._changed:
            if len(self._queue) + len(images) > self.limits.waiting:
                raise HTTPException(503, "The service is busy. Try again in a few seconds.", {"Retry-After": "5"})
            for turn, image in enumerate(images, self._turn):
                waiting.append(Request(turn, next(self._count), image, options or Options(), moment, faces))
                heapq.heappush(self._queue, waiting[-1])
            self._asked += len(waiting)
            self._changed.notify(len(waiting))
        try:
            return await asyncio.gather(*(asyncio.wrap_future(each.future) for each in waiting))
        finally:
            self._asked -= len(waiting)

    @property
    def waiting(self) -> int:
        """Images in the queue."""
        return len(self._queue)

    def stop(self) -> None:
        """Leave what waits; each of the `threads` ends with the image it is at."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _work(self) -> None:
        """Take images from the queue, look for faces, and classify the batches that this completes."""
        while True:
            request = entry = None
            with self._changed:
                timeout = PATIENCE if self._batcher.waits else None
                self._changed.wait_for(lambda: self._queue or self._stopped, timeout)
                if self._stopped:
                    return
                if self._queue:
                    request = heapq.heappop(self._queue)
                    self._turn = request.turn
                    if request.future.set_running_or_notify_cancel():
                        entry = self._batcher.join(even_batch(self._asked, BATCH), not self._queue, request.future)
            if request and entry:
                self._batcher.put(entry, self._opened(request))
            elif request and not self._queue:  # its client is gone, and nobody comes after it
                self._batcher.flush()
            self._batcher.leave_behind(PATIENCE)

    def _opened(self, request: Request) -> Opened | Exception:
        try:
            options, limits = request.options, self.limits
            opened = self.predictor.open(request.image, options, max_pixels=limits.pixels, **request.moment)
        except Exception as error:
            return error
        request.faces.append(len(opened.crops))
        with self._changed:
            self.images, self.faces = self.images + 1, self.faces + len(opened.crops)
        if sum(request.faces) <= limits.faces:
            return opened
        message = f"{request.image.name}: with it there are {sum(request.faces):,} faces; {limits.faces:,} are allowed "
        fields = {"source": request.image.name, "status": "unreadable", "message": f"{message}per request."}
        return Opened(fields | request.moment, (), options)


def thread_count() -> int:
    return min(MOST_THREADS, os.cpu_count() or 1)
