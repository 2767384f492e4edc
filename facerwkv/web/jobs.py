"""Videos in a queue: one thread analyses them, one by one, in a temporary folder that is removed with the service."""

import logging
import queue
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from fastapi import HTTPException
from filelock import FileLock, Timeout

from facerwkv.core.errors import InputError
from facerwkv.inference.predictor import Predictor
from facerwkv.web.guard import Limits
from facerwkv.web.threads import start
from facerwkv.web.videos import Cancelled, Job, JobOptions, State, work_on

PREFIX = "facerwkv-serve-"
LOCK = "lock"
TICK = 5.0
"""Seconds after which an idle worker looks for expired jobs."""
logger = logging.getLogger("facerwkv")


@contextmanager
def locked_folder() -> Iterator[Path]:
    """A temporary folder, locked while the block runs and removed after it.

    The folders that killed services left, whose locks are free, are removed first.
    """
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError, Timeout):  # another user's, or in use
            if (folder / LOCK).is_file() and not folder.is_symlink():
                with FileLock(folder / LOCK, timeout=0):
                    shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True) as name, FileLock(Path(name) / LOCK):
        yield Path(name)


class Jobs:
    """All videos of the service, by id. `stop` it, wait for its `worker`, and remove the folder."""

    def __init__(self, predictor: Predictor, limits: Limits):
        self.predictor, self.limits = predictor, limits
        self._open = ExitStack()
        self.folder = self._open.enter_context(locked_folder())
        self._jobs: dict[str, Job] = {}
        self._queue: queue.Queue[Job | None] = queue.Queue()
        self._lock = threading.Lock()
        self.worker = start(self._work)

    @contextmanager
    def receiving(self) -> Iterator[Job]:
        """A new job for an upload; removed again unless it was added. HTTPException 429 above the limit."""
        self.expire()
        with self._lock:
            if len(self._jobs) >= self.limits.jobs:
                raise HTTPException(429, f"There are {self.limits.jobs} videos already. Delete one, or wait.")
            job = Job(secrets.token_urlsafe(16), Path(tempfile.mkdtemp(dir=self.folder)))
            self._jobs[job.id] = job
        try:
            yield job
        finally:
            if job.options is None:
                self._remove(job)

    def add(self, job: Job, source: str, options: JobOptions) -> None:
        """Put a received video in the queue."""
        job.source, job.options = source, options
        self._queue.put(job)

    def get(self, id: str) -> Job:
        """HTTPException 404 if there is no such job."""
        self.expire()
        job = self._jobs.get(id)
        if job is None or job.options is None:
            raise HTTPException(404, "There is no such video: it was deleted, or it expired.")
        return job

    def delete(self, id: str) -> None:
        """Cancel a job and remove its files; the worker removes those of the job that it is working on."""
        job = self.get(id)
        with self._lock:
            job.cancelled.set()
            self._jobs.pop(id, None)
            running = job.state == "running"
        if not running:
            self._remove(job)

    def expire(self) -> None:
        """Remove the jobs that ended more than `kept_seconds` ago."""
        oldest = time.monotonic() - self.limits.kept_seconds
        for job in list(self._jobs.values()):
            if job.ended is not None and job.ended < oldest:
                self._remove(job)

    def stop(self) -> None:
        """Cancel all jobs, and end the worker with the one it is at."""
        for job in list(self._jobs.values()):
            job.cancelled.set()
        self._queue.put(None)

    def remove_folder(self) -> None:
        self._open.close()

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
            state: State = "failed"
            try:
                work_on(job, self.predictor, self.limits)
                job.upload.unlink()
                job.progress, state = 1.0, "done"
            except Cancelled:
                state = "cancelled"
            except InputError as error:
                job.message = str(error)
            except Exception:
                logger.exception("A video failed.")
                job.message = "The service failed on this video. What went wrong is in its log."
            if state == "failed":
                shutil.rmtree(job.folder, ignore_errors=True)
            with self._lock:
                job.state, job.ended, cancelled = state, time.monotonic(), job.cancelled.is_set()
            if cancelled:
                self._remove(job)
