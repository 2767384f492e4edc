"""Images from many clients → results: every core looks for faces, which are classified together."""

import asyncio
import os
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
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


@dataclass(eq=False)
class Request:
    """An image that waits for a thread, and its result."""

    image: NamedImage
    options: Options
    moment: dict[str, Any]
    future: "Future[Result]" = field(default_factory=Future)


class Predictions:
    """`await predictions(images, options)` gives their results. `stop` it.

    What is unanswered is divided into batches of one size, in the order in which it came, or some images would wait for
    one batch more than others. HTTPException 503 where too many images wait.
    """

    def __init__(self, predictor: Predictor, limits: Limits):
        self.predictor, self.limits = predictor, limits
        self._asked = 0
        self._queue: deque[Request] = deque()
        self._batcher = Batcher(predictor.classify, 2 * BATCH)
        self._changed = threading.Condition()
        self._stopped = False
        self.threads = [start(self._work) for _ in range(thread_count())]

    async def __call__(
        self, images: Sequence[NamedImage], options: Options | None = None, **moment: Any
    ) -> list[Result]:
        """`moment` is the `time` and `frame` of the results, if they are of a stream."""
        waiting = [Request(image, options or Options(), moment) for image in images]
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
                    request = self._queue.popleft()
                    if request.future.set_running_or_notify_cancel():
                        entry = self._batcher.join(even_batch(self._asked, BATCH), not self._queue, request.future)
            if request and entry:
                opened: Opened | Exception
                try:
                    image, limit = request.image, self.limits.pixels
                    opened = self.predictor.open(image, request.options, max_pixels=limit, **request.moment)
                except Exception as error:
                    opened = error
                self._batcher.put(entry, opened)
            elif request and not self._queue:  # its client is gone, and nobody comes after it
                self._batcher.flush()
            self._batcher.leave_behind(PATIENCE)


def thread_count() -> int:
    return min(MOST_THREADS, os.cpu_count() or 1)
