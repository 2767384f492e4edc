"""One uploaded video → its results as JSON and CSV, and a drawn video."""

import errno
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from fastapi import HTTPException

from facerwkv.core.errors import InputError
from facerwkv.inference.predictor import Predictor
from facerwkv.inference.results import Result
from facerwkv.inference.sinks import table_columns, writer
from facerwkv.inference.stream import DrawnVideo, smoother, stream
from facerwkv.media.frames import Part, duration, pyav, seconds
from facerwkv.web.guard import Limits

FILES = ("results.json", "results.csv", "drawn.mp4")
FORMATS = "mov,matroska,avi,asf,flv,mpeg,mpegts,mpegvideo,mxf,ogg,yuv4mpegpipe,h264,hevc"
"""Files that hold their images themselves: a playlist would have others of this machine's files read."""
BATCH = 8

State = Literal["queued", "running", "done", "failed", "cancelled"]


class Cancelled(Exception):
    """Nobody wants the results any more."""


@dataclass(frozen=True)
class Plan:
    """What is asked of a video. InputError for what means nothing."""

    stride: int = 1
    fps: float | None = None
    start: str = "0"
    end: str | None = None
    smooth: str | None = None
    mode: str = "auto"
    on_no_face: str = "empty"
    draw: bool = True
    threshold: float | None = None

    @property
    def options(self) -> dict[str, Any]:
        """What `stream` takes of it."""
        return {name: value for name, value in vars(self).items() if name not in ("draw", "threshold")}

    def __post_init__(self) -> None:
        smoother(self.smooth)
        self.part  # noqa: B018

    @property
    def part(self) -> Part:
        return Part(self.stride, self.fps, seconds(self.start), None if self.end is None else seconds(self.end))


@dataclass
class Job:
    """A video and how far it is. `progress` is 0 to 1, or None while the length is not known."""

    id: str
    folder: Path
    source: str = ""
    plan: Plan | None = None
    state: State = "queued"
    progress: float | None = 0.0
    frames: int = 0
    fps: float = 0.0
    seconds: float | None = None
    message: str = ""
    cancelled: threading.Event = field(default_factory=threading.Event)
    ended: float | None = None

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
    av = pyav()
    options = {"format_whitelist": FORMATS, "protocol_whitelist": "file"}
    try:
        with av.open(f"file:{path}", options=options, metadata_errors="replace") as container:
            sizes = [(track.codec_context.width, track.codec_context.height) for track in container.streams.video]
    except (av.error.FFmpegError, OSError) as error:
        raise HTTPException(415, f"{name} is no video that can be read, or it is damaged or cut short.") from error
    if not sizes:
        raise HTTPException(415, f"{name} has no video track; give a video with images.")
    width, height = sizes[0]
    if width * height > pixels:
        raise HTTPException(413, f"{name} has {width} x {height} pixels, more than the {pixels:,} that are allowed.")


def work_on(job: Job, predictor: Predictor, limits: Limits) -> None:
    """Write the job's files, and say in it how far it is. InputError where nothing can be read; Cancelled."""
    assert job.plan
    job.seconds = duration(job.upload)
    try:
        with ExitStack() as open_files:
            columns = table_columns(True, job.plan.threshold)
            takers = [
                open_files.enter_context(writer(job.folder / name, predictor.labels, columns)) for name in FILES[:2]
            ]
            drawn = DrawnVideo(job.folder / FILES[2])
            open_files.callback(drawn.close)
            for result in _watched(job, stream(predictor, job.upload, batch_size=BATCH, **job.plan.options), limits):
                for take in takers:
                    take(result)
                if job.plan.draw and result.status != "unreadable":
                    drawn.add(result)
    except InputError as error:
        if getattr(error.__cause__, "errno", None) == errno.ENOSPC:
            raise InputError("The service's disk is full. Delete a video there.") from error
        raise InputError(_named(job, str(error))) from error


def _watched(job: Job, results: Iterator[Result], limits: Limits) -> Iterator[Result]:
    """The results under the upload's name, up to the limits; the job says how far they are."""
    assert job.plan
    started, threshold = time.monotonic(), job.plan.threshold
    for result in results:
        result = result if threshold is None else result.with_threshold(threshold)
        result = replace(result, source=job.source, message=_named(job, result.message))
        took = time.monotonic() - started
        if job.cancelled.is_set():
            raise Cancelled
        if result.status == "unreadable":
            job.message = result.message
            if not job.frames:
                raise InputError(result.message)
        else:
            job.frames += 1
            job.fps = job.frames / max(took, 1e-9)
            job.progress = _progress(job, result.time or 0.0)
        yield result
        if job.frames >= limits.frames or took > limits.seconds:
            enough = job.frames >= limits.frames
            limit = f"{limits.frames:,} frames" if enough else f"{limits.seconds:,} seconds of work"
            job.message = f"It stops at {result.time or 0:.1f} s: {limit} are allowed. What came before is kept."
            return


def _progress(job: Job, now: float) -> float | None:
    assert job.plan
    part = job.plan.part
    end = min(part.end or job.seconds, job.seconds) if job.seconds else part.end
    return None if end is None else min(1.0, max(0.0, now - part.start) / max(end - part.start, 1e-9))


def _named(job: Job, text: str) -> str:
    """A sentence without this machine's paths."""
    return text.replace(str(job.upload), job.source).replace(f"{job.folder}/", "")
