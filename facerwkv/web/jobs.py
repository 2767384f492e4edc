"""Videos in a queue: one thread analyses them, one by one, in a temporary folder that is removed with the service."""

import logging
import secrets
import shutil
import tempfile
import threading
import time
from collections import Counter
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
    """All videos of the service, by id. `stop` it, wait for its `worker`, and remove the folder.

    One video is analysed at a time. Who sent several waits for the first of others between them.
    """

    def __init__(self, predictor: Predictor, limits: Limits):
        self.predictor, self.limits = predictor, limits
        self._open = ExitStack()
        self.folder = self._open.enter_context(locked_folder())
        self._jobs: dict[str, Job] = {}
        self._turn, self._stopped = 0, False
        self._changed = threading.Condition()
        self.worker = start(self._work)

    @contextmanager
    def receiving(self) -> Iterator[Job]:
        """A new job for an upload; its folder is removed again unless it was added. HTTPException 429 as in `add`."""
        with self._changed:
            self._check_room()
        job = Job(secrets.token_urlsafe(16), Path(tempfile.mkdtemp(dir=self.folder)))
        try:
            yield job
        finally:
            if job.options is None:
                shutil.rmtree(job.folder, ignore_errors=True)

    def add(self, job: Job, source: str, options: JobOptions, owner: str = "") -> None:
        """Let a received video wait for its turn. HTTPException 429 if too many wait."""
        with self._changed:
            self._check_room()
            turns = [other.turn + 1 for other in self._jobs.values() if other.owner == owner]
            job.source, job.options, job.owner, job.turn = source, options, owner, max(self._turn, *turns, 0)
            self._jobs[job.id] = job
            self._changed.notify()
        self.make_room()

    def counts(self) -> Counter[str]:
        """How many jobs are in which state."""
        return Counter(job.state for job in list(self._jobs.values()))

    def _check_room(self) -> None:
        if sum(job.ended is None for job in self._jobs.values()) >= self.limits.jobs:
            headers = {"Retry-After": "60"}
            raise HTTPException(429, f"{self.limits.jobs} videos are waiting already. Try again later.", headers)

    def of(self, owner: str) -> list[Job]:
        """The jobs of an owner, oldest first."""
        self.make_room()
        return [job for job in list(self._jobs.values()) if job.owner == owner]

    def get(self, id: str) -> Job:
        """HTTPException 404 if there is no such job."""
        self.make_room()
        if (job := self._jobs.get(id)) is None:
            raise HTTPException(404, "There is no such video: it was deleted, it expired, or it made room for others.")
        return job

    def delete(self, id: str) -> None:
        """Cancel a job and remove its files; the worker removes those of the job that it is working on."""
        job = self.get(id)
        with self._changed:
            job.cancelled.set()
            self._jobs.pop(id, None)
            running = job.state == "running"
        if not running:
            self._remove(job)

    def make_room(self) -> None:
        """Remove the jobs that ended more than `kept_seconds` ago, and the oldest where more than `kept` ended."""
        ended = sorted((job.ended, job.id) for job in list(self._jobs.values()) if job.ended is not None)
        oldest = time.monotonic() - self.limits.kept_seconds
        for count, (since, id) in enumerate(ended):
            job = self._jobs.get(id)
            if job and (since < oldest or count < len(ended) - self.limits.kept):
                self._remove(job)

    def stop(self) -> None:
        """Cancel all jobs, and end the worker with the one it is at."""
        with self._changed:
            self._stopped = True
            for job in self._jobs.values():
                job.cancelled.set()
            self._changed.notify()

    def remove_folder(self) -> None:
        self._open.close()

    def _remove(self, job: Job) -> None:
        with self._changed:
            self._jobs.pop(job.id, None)
        shutil.rmtree(job.folder, ignore_errors=True)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopped or self._next(), TICK)
                if self._stopped:
                    return
                if job := self._next():
                    job.state, self._turn = "running", job.turn
            if job:
                self._finish(job)
            self.make_room()

    def _next(self) -> Job | None:
        waiting = [job for job in self._jobs.values() if job.state == "queued"]
        return min(waiting, key=lambda job: job.turn, default=None)

    def _finish(self, job: Job) -> None:
        """Work on a job, and say in it how it ended."""
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
        with self._changed:
            job.state, job.ended, cancelled = state, time.monotonic(), job.cancelled.is_set()
        if cancelled:
            self._remove(job)
