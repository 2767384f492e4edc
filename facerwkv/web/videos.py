"""One uploaded video → its results as JSON and CSV, and a drawn video."""

import errno
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fastapi import HTTPException

from facerwkv.core.errors import InputError
from facerwkv.inference.drawn import DrawnVideo
from facerwkv.inference.predictor import Predictor
from facerwkv.inference.results import Result
from facerwkv.inference.sinks import table_columns, writer
from facerwkv.inference.stream import stream
from facerwkv.media.frames import UnreadableVideo, duration, video_size
from facerwkv.web.answers import ServiceOptions
from facerwkv.web.guard import Limits

TABLES, DRAWN = ("results.json", "results.csv"), "drawn.mp4"
FILES = (*TABLES, DRAWN)
FORMATS = "mov,matroska,avi,asf,flv,mpeg,mpegts,mpegvideo,mxf,ogg,yuv4mpegpipe,h264,hevc"
"""Files that contain their frames: a playlist would have others of this machine's files read."""
BATCH = 8

State = Literal["queued", "running", "done", "failed", "cancelled"]


class Cancelled(Exception):
    """Nobody wants the results any more."""


class JobOptions(ServiceOptions):
    """The options of a video."""

    draw: bool = True
    """Also draw the results as a video."""


@dataclass
class Job:
    """A video and how far it is. `progress` is 0 to 1, or None while the length is not known."""

    id: str
    folder: Path
    source: str = ""
    options: JobOptions | None = None
    state: State = "queued"
    progress: float | None = 0.0
    frames: int = 0
    fps: float = 0.0
    seconds: float | None = None
    message: str = ""
    cancelled: threading.Event = field(default_factory=threading.Event)
    ended: float | None = None
    owner: str = ""
    turn: int = 0

    @property
    def upload(self) -> Path:
        return self.folder / "upload"

    @property
    def files(self) -> list[str]:
        return [name for name in FILES if self.state == "done" and (self.folder / name).is_file()]

    def to_dict(self) -> dict[str, Any]:
        names = "id", "source", "state", "progress", "frames", "fps", "seconds", "message", "files"
        return {name: getattr(self, name) for name in names}


def check_video(path: Path, name: str, pixels: int) -> None:
    """HTTPException 415 for a file that is no video, 413 if its frames have more than `pixels`."""
    try:
        width, height = video_size(path, name, FORMATS)
    except UnreadableVideo as error:
        sentence = f"{name} is no video that can be read, or it is damaged or cut short."
        raise HTTPException(415, str(error) if "has no video track" in str(error) else sentence) from error
    if width * height > pixels:
        raise HTTPException(413, f"{name} has {width} x {height} pixels, more than the {pixels:,} that are allowed.")


def work_on(job: Job, predictor: Predictor, limits: Limits) -> None:
    """Write the job's files, and say in it how far it is. InputError where nothing can be read; Cancelled."""
    options = job.options or JobOptions()
    job.seconds, until = duration(job.upload), time.monotonic() + limits.seconds

    def heed() -> None:
        if job.cancelled.is_set():
            raise Cancelled

    def watch() -> None:
        heed()
        if time.monotonic() > until:
            raise UnreadableVideo(f"{limits.seconds:,} seconds of work are allowed. What came before is kept.")

    try:
        with ExitStack() as open_files:
            columns = table_columns(True, options.threshold)
            tables = [open_files.enter_context(writer(job.folder / name, predictor.labels, columns)) for name in TABLES]
            drawn = DrawnVideo(job.folder / DRAWN, job.upload, options, heed)
            open_files.callback(drawn.close)
            whole = options.model_copy(update={"batch_size": BATCH, "errors": "result"})
            results = stream(predictor, job.upload, whole, name=job.source, watch=watch)
            for result in _watched(job, results, options, limits):
                for write in tables:
                    write(result)
                if options.draw and result.status != "unreadable":
                    drawn.add(result)
    except InputError as error:
        number = getattr(error.__cause__, "errno", None)
        if number is None or isinstance(error, UnreadableVideo):
            raise
        full = number == errno.ENOSPC  # a sentence without this machine's paths
        why = "disk is full. Delete a video there." if full else "files cannot be written. Ask its owner."
        raise InputError(f"The service's {why}") from error


def _watched(job: Job, results: Iterator[Result], options: JobOptions, limits: Limits) -> Iterator[Result]:
    """The results up to the limits; the job says how far they are."""
    started, end = time.monotonic(), options.end
    if job.seconds:
        end = min(end or job.seconds, job.seconds)
    try:
        for result in results:
            took, now = time.monotonic() - started, result.time or 0.0
            if result.status == "unreadable":
                job.message = result.message
                if not job.frames:
                    raise UnreadableVideo(result.message)
            else:
                job.frames += 1
                job.fps = job.frames / max(took, 1e-9)
                share = max(0.0, now - options.start) / max((end or 0.0) - options.start, 1e-9)
                job.progress = None if end is None else min(1.0, share)
            yield result
            if job.frames >= limits.frames or took > limits.seconds:
                enough = job.frames >= limits.frames
                limit = f"{limits.frames:,} frames" if enough else f"{limits.seconds:,} seconds of work"
                job.message = f"It stops at {now:.1f} s: {limit} are allowed. What came before is kept."
                return
    except UnreadableVideo as error:  # the time is over
        if not job.frames:
            raise
        job.message = str(error)
