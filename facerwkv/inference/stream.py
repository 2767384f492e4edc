"""Frames → tracks → smoothed results, a drawn video."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby, starmap
from pathlib import Path
from typing import Any

import numpy as np

from facerwkv.core.errors import InputError
from facerwkv.inference.predictor import Mode, OnNoFace, Predictor, load
from facerwkv.inference.results import Face, Result
from facerwkv.inference.temporal import Temporal
from facerwkv.media.draw import COLOURS
from facerwkv.media.frames import (
    TIMEOUT,
    Part,
    Raw,
    VideoWriter,
    duration,
    is_camera,
    is_live,
    is_video,
    pyav,
    read_frames,
    title,
)
from facerwkv.media.frames import Source as VideoSource
from facerwkv.media.frames import seconds as to_seconds
from facerwkv.media.tracks import Tracker

STRIP = 12
"""The timeline is this part of the image's height."""
PAPER = (18, 20, 24)

Smooth = Callable[[np.ndarray], np.ndarray]


def stream(
    model: Predictor | str | Path | None,
    source: VideoSource | Iterable[tuple[float, np.ndarray]],
    *,
    stride: int = 1,
    fps: float | None = None,
    start: float | str = 0.0,
    end: float | str | None = None,
    smooth: str | None = None,
    mode: Mode = "auto",
    on_no_face: OnNoFace = "empty",
    batch_size: int = 32,
    timeout: float = TIMEOUT,
    temporal: bool = False,
) -> Iterator[Result]:
    """The results of a video's frames as they come, in memory that does not grow with its length.

    `model` is a Predictor, or what `load` takes. `source` is a file, a camera's number, a stream's address, or any
    iterable of (seconds, uint8 (H, W, 3) RGB). Every result has `time`, `frame` and `faces`, and every face a `track`
    that stays the same while the face is seen, and for a second after. `stride`, `fps`, `start` and `end` (seconds, or
    "mm:ss") choose frames; `smooth` is "ema:0.6" (a new frame counts 0.6) or "median:5" (frames), by track; `mode`,
    `on_no_face` and `batch_size` are those of `predict_iter`, except that "error" is for a video without any face. A
    camera's and a stream's frames wait for no batch. With `temporal`, a face's earlier frames count too: a causal
    model's state is carried on, one for each track. What cannot be read, or ends too early, gives a last result with
    status "unreadable" that says why. InputError for options that are not known, for a model that carries no state, and
    without PyAV.
    """
    part = Part(stride, fps, _moment(start), None if end is None else _moment(end))
    follow = Follower(smooth)
    predictor = model if isinstance(model, Predictor) else load(model)
    images: Iterable[Any]
    if isinstance(source, str | Path | int):
        if not is_camera(source):
            pyav()
        images, name, ahead = read_frames(source, part, timeout), title(source), 1 if is_live(source) else None
    else:
        images, name, ahead = part.of(_given(source)), "frames", None
    lenient: OnNoFace = "empty" if on_no_face == "error" else on_no_face
    found: Iterator[Result]
    if temporal:
        found = starmap(Temporal(predictor, follow.tracker), predictor.open_frames(images, name, mode, lenient))
    else:
        found = predictor.predict_frames(images, name, mode, lenient, batch_size, ahead)
    results = (follow(result) for result in found)
    return _with_faces(results, name) if on_no_face == "error" else results


def _moment(at: float | str) -> float:
    return to_seconds(at) if isinstance(at, str) else float(at)


def _given(frames: Iterable[tuple]) -> Iterator[Raw]:
    for count, frame in enumerate(frames):
        time, rgb, number = (*frame, count)[:3]
        yield Raw(time, number, lambda rgb=rgb: rgb)  # type: ignore[misc]


def _with_faces(results: Iterable[Result], name: str) -> Iterator[Result]:
    """The results, and after them a failed one if there was no face in any."""
    found, failed, last = False, False, Result(name, "no_face")
    for last in results:
        found, failed = found or bool(last.faces), failed or last.failed
        yield last
    if not (found or failed):
        message = f"{name}: no face was found in any frame. Choose scene to classify them whole."
        yield replace(last, message=message)


def predict_sources(
    predictor: Predictor, sources: Iterable[str], progress: bool, batch_size: int, **options: Any
) -> Iterator[Result]:
    """Results of images and videos in the order of their names; options as in `stream`.

    With `progress`, a bar with the frames that are done a second stands on stderr while a video is read.
    """
    kept = {name: options[name] for name in ("mode", "on_no_face") if name in options}
    for moving, group in groupby(sources, is_video):
        if not moving:
            yield from predictor.predict_iter(group, batch_size=batch_size, **kept)
            continue
        for source in group:
            results = stream(predictor, source, batch_size=batch_size, **options)
            yield from _shown(results, source, options.get("start", 0.0), options.get("end")) if progress else results


def _shown(results: Iterable[Result], source: str, start: float | str, end: float | str | None) -> Iterator[Result]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    length, first = duration(source), _moment(start)
    last = length if end is None else min(_moment(end), length or _moment(end))
    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title(source), total=last and last - first, rate="")
        for count, result in enumerate(results, 1):
            yield result
            took = bar.tasks[0].elapsed or 0
            rate = f"{result.time or 0:.1f} s, {count / took:.1f} frames/s" if took else ""
            bar.update(task, completed=(result.time or 0) - first, rate=rate)


class Follower:
    """Gives the faces of successive results their tracks, and smooths their probabilities where `smooth` says how."""

    def __init__(self, smooth: str | None = None):
        self._make = smoother(smooth)
        self.tracker = Tracker()
        self._smooth: dict[int | None, Smooth] = {}

    def __call__(self, result: Result) -> Result:
        if result.status == "unreadable" or result.time is None:
            return result
        boxes = iter(self.tracker(result.time, [face.box for face in result.faces if face.box]))
        result.faces[:] = [self._smoothed(face, next(boxes) if face.box else None) for face in result.faces]
        alive = {None, *self.tracker.alive}
        self._smooth = {track: smooth for track, smooth in self._smooth.items() if track in alive}
        return result

    def _smoothed(self, face: Face, track: int | None) -> Face:
        if self._make is None:
            return replace(face, track=track)
        smooth = self._smooth.setdefault(track, self._make())
        probs = dict(zip(face.probs, smooth(np.array([*face.probs.values()])).tolist(), strict=True))
        label = max(probs, key=probs.__getitem__)
        return replace(face, track=track, label=label, score=probs[label], probs=probs)


def smoother(text: str | None) -> Callable[[], Smooth] | None:
    """What makes a new smoothing of probabilities (C,): "ema:WEIGHT", "median:FRAMES", or None for none."""
    if text is None:
        return None
    kind, _, number = text.partition(":")
    try:
        if kind == "ema" and 0 < float(number) <= 1:
            return lambda: Exponential(float(number))
        if kind == "median" and int(number) >= 1:
            return lambda: Median(int(number))
    except ValueError:
        pass
    raise InputError(f"{text!r} is no smoothing: write ema:WEIGHT, above 0 to 1, or median:FRAMES, 1 or more.")


class Exponential:
    """The mean of all before, in which the newest counts `weight`, the one before weight x (1 - weight), ..."""

    def __init__(self, weight: float):
        self.weight = weight
        self._mean: np.ndarray | None = None

    def __call__(self, probs: np.ndarray) -> np.ndarray:
        self._mean = probs if self._mean is None else self._mean + self.weight * (probs - self._mean)
        return self._mean


class Median:
    """The median of the last `count`, by label, scaled so that the sum is 1."""

    def __init__(self, count: int):
        self._last: deque[np.ndarray] = deque(maxlen=count)

    def __call__(self, probs: np.ndarray) -> np.ndarray:
        self._last.append(probs)
        middle = np.median(self._last, axis=0)
        return middle / middle.sum() if middle.sum() > 0 else probs


class DrawnVideo:
    """Results of one video → an H.264 file: the frames with their faces drawn, and below them a timeline. Close it.

    The timeline moves one pixel to the left with every frame; its right column shows the probabilities of the largest
    face, stacked, in the colours of the labels.
    """

    def __init__(self, path: Path):
        self.path, self.last = path, -1.0
        self._writer = VideoWriter(path)
        self._strip: np.ndarray | None = None

    def add(self, result: Result) -> None:
        """InputError if it cannot be written; what was written before plays."""
        image = np.asarray(result.plot())
        if self._strip is None or self._strip.shape[1] != image.shape[1]:
            self._strip = np.full((max(16, image.shape[0] // STRIP), image.shape[1], 3), PAPER, np.uint8)
        self._strip[:, :-1] = self._strip[:, 1:]
        self._strip[:, -1] = _column(result.faces, len(self._strip))
        self.last = result.time or 0.0
        self._writer.write(self.last, np.vstack([image, self._strip]))

    def close(self) -> None:
        self._writer.close()


def _column(faces: Sequence[Face], height: int) -> np.ndarray:
    """The probabilities of the largest face from top to bottom, RGB (height, 3)."""
    if not faces:
        return np.full((height, 3), PAPER, np.uint8)
    probs = max(faces, key=_area).probs
    ends = (np.cumsum([*probs.values()]) * height).round().astype(int)
    colours = np.array([tuple(bytes.fromhex(colour[1:])) for colour in COLOURS], np.uint8)
    number = np.searchsorted(ends, np.arange(height), side="right").clip(max=len(probs) - 1)
    return colours[number % len(colours)]


def _area(face: Face) -> float:
    x1, y1, x2, y2 = face.box or (0, 0, 0, 0)
    return (x2 - x1) * (y2 - y1)
