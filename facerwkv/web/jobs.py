"""Videos in a queue: one thread works on them, one by one, in a temporary folder that goes when the service ends."""

import logging
import queue
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fastapi import HTTPException
from filelock import FileLock, Timeout

from facerwkv.core.errors import InputError
from facerwkv.inference.predictor import Predictor
from facerwkv.web.guard import Limits
from facerwkv.web.videos import Cancelled, Job, Plan, State, work_on

PREFIX = "facerwkv-serve-"
LOCK = "lock"


class Workplace:
    """A folder at `path`, locked while this process lives. Close it, and it is gone."""

    def __init__(self) -> None:
        _clear()
        self._folder = tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True)
        self.path = Path(self._folder.name)
        self._lock = FileLock(self.path / LOCK)
        self._lock.acquire()

    def close(self) -> None:
        self._lock.release()
        self._folder.cleanup()


def _clear() -> None:
    """Remove the folders whose lock nobody holds any more."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError, Timeout):  # another person's, or in use
            if (folder / LOCK).is_file() and not folder.is_symlink():
                with FileLock(folder / LOCK, timeout=0):
                    shutil.rmtree(folder, ignore_errors=True)


TICK = 5.0
"""Seconds after which an idle worker looks for what has expired."""
logger = logging.getLogger("facerwkv")


class Jobs:
    """The videos that are there, by id. Close it, and everything is removed."""

    def __init__(self, predictor: Predictor, limits: Limits):
        self.predictor, self.limits = predictor, limits
        self._place = Workplace()
        self._jobs: dict[str, Job] = {}
        self._queue: queue.Queue[Job | None] = queue.Queue()
        self._lock = threading.Lock()
        self._worker = threading.Thread(target=self._work, daemon=True)
        self._worker.start()

    @contextmanager
    def receiving(self) -> Iterator[Job]:
        """A place for an upload, which is gone again if it was not added. HTTPException 429 if there is none."""
        self.expire()
        with self._lock:
            if len(self._jobs) >= self.limits.jobs:
                raise HTTPException(429, f"There are {self.limits.jobs} videos already. Delete one, or wait.")
            job = Job(secrets.token_urlsafe(16), Path(tempfile.mkdtemp(dir=self._place.path)))
            self._jobs[job.id] = job
        try:
            yield job
        finally:
            if job.plan is None:
                self._remove(job)

    def add(self, job: Job, source: str, plan: Plan) -> None:
        """Put a video that was received in the queue."""
        job.source, job.plan = source, plan
        self._queue.put(job)

    def get(self, id: str) -> Job:
        """HTTPException 404 if there is no such job."""
        self.expire()
        job = self._jobs.get(id)
        if job is None or job.plan is None:
            raise HTTPException(404, "There is no such video: it was deleted, or it expired.")
        return job

    def delete(self, id: str) -> None:
        """Cancel a job and remove all of it; the worker clears up after the one that it is working on."""
        job = self.get(id)
        with self._lock:
            job.cancelled.set()
            self._jobs.pop(id, None)
            running = job.state == "running"
        if not running:
            self._remove(job)

    def expire(self) -> None:
        """Remove what has been kept for long enough."""
        oldest = time.monotonic() - self.limits.kept_seconds
        for job in [job for job in list(self._jobs.values()) if job.ended is not None and job.ended < oldest]:
            self._remove(job)

    def close(self) -> None:
        """Cancel all, wait for the worker, remove the folder."""
        for job in list(self._jobs.values()):
            job.cancelled.set()
        self._queue.put(None)
        self._worker.join()
        self._place.close()

    def _remove(self, job: Job) -> None:
        with self._lock:
            self._jobs.pop(job.id, None)
        shutil.rmtree(job.folder, ignore_errors=True)

    def _work(self) -> None:
        while True:
            try:
                job = self._queue.get(timeout=TICK)
            except queue.Empty:
                self.expire()
                continue
            if job is None:
                return
            with self._lock:
                if job.cancelled.is_set():
                    continue
                job.state = "running"
            state = self._finish(job)
            with self._lock:
                job.state, job.ended, cancelled = state, time.monotonic(), job.cancelled.is_set()
            if cancelled:
                self._remove(job)

    def _finish(self, job: Job) -> State:
        """Work on a job; what goes wrong is its message."""
        try:
            work_on(job, self.predictor, self.limits)
            job.upload.unlink()
            job.progress = 1.0
            return "done"
        except Cancelled:
            return "cancelled"
        except InputError as error:
            job.message = str(error)
        except Exception:
            logger.exception("A video failed.")
            job.message = "The service failed on this video. What went wrong is in its log."
        shutil.rmtree(job.folder, ignore_errors=True)
        return "failed"
