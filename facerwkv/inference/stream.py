"""Frames → tracks → smoothed results."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from facerwkv.inference.options import Options
from facerwkv.inference.predictor import Predictor, load
from facerwkv.inference.results import Result, raising
from facerwkv.inference.temporal import Temporal
from facerwkv.media.container import Watch
from facerwkv.media.frames import TIMEOUT, Frame, Raw, duration, pyav, read_frames
from facerwkv.media.sources import VideoSource, is_camera, is_live, is_video, title
from facerwkv.media.tracks import Smooth, Tracker, smoother


def stream(
    model: Predictor | str | Path | None,
    source: VideoSource | Iterable[tuple[float, np.ndarray]],
    options: Options | None = None,
    *,
    name: str | None = None,
    timeout: float = TIMEOUT,
    watch: Watch | None = None,
    **changes: Any,
) -> Iterator[Result]:
    """The results of a video's frames as they come, in memory that does not grow with its length.

    `model` is a Predictor, or what `load` takes. `source` is a file, a camera's number, a stream's address, or any
    iterable of (seconds, uint8 (H, W, 3) RGB); results and messages call it `name` (by default as given). Each result
    has `time`, `frame` and `faces`, and each face a `track` that stays the same while the face is there, and for a
    second after. `options`, or single ones as keywords, are those of `Options`: stride, fps, start and end choose
    frames; `on_no_face="error"` is for a video without any face. A camera's and a stream's frames wait for no batch.
    `watch` is called at each packet of a file, wanted or not, and before faces are classified; what it raises ends all.
    InputError for unknown options, for a model that carries no state where `temporal` is asked for, without PyAV, and,
    after the frames before, for what cannot be read or ends too early; with `errors="result"`, that is a last result
    with status "unreadable" which says why.
    """
    options = Options.of(options, changes)
    follow = Follower(options.smooth)
    predictor = model if isinstance(model, Predictor) else load(model)
    frames: Iterable[Any]
    if isinstance(source, str | Path | int):
        if not is_camera(source):
            pyav()
        name, ahead = name or title(source), 1 if is_live(source) else None
        frames = read_frames(source, options.selection, timeout, name, watch)
    else:
        given = (Frame.of(each, count) for count, each in enumerate(source))
        raw = (Raw(time, number, lambda rgb=rgb: rgb) for time, rgb, number, _ in given)  # type: ignore[misc]
        frames, name, ahead = options.selection.of(raw), name or "frames", None
    lenient = Options.of(options, {"on_no_face": "empty"}) if options.on_no_face == "error" else options
    results: Iterator[Result]
    if options.temporal:
        results = map(Temporal(predictor, follow.tracker), predictor.open_frames(frames, name, lenient, ahead))
    else:
        results = predictor.predict_frames(frames, name, lenient, ahead, watch)
    followed = map(follow, results)
    results = _some_face(followed, name) if options.on_no_face == "error" else followed
    return results if options.errors == "result" else raising(results)


def _some_face(results: Iterable[Result], name: str) -> Iterator[Result]:
    """The results, and after them a failed one if there was no face in any."""
    faces, failed, last = False, False, Result(name, "no_face")
    for last in results:
        faces, failed = faces or bool(last.faces), failed or last.failed
        yield last
    if not (faces or failed):
        message = f"{name}: no face was found in any frame. Choose scene to classify them whole."
        yield replace(last, message=message)


def predict_sources(
    predictor: Predictor, sources: Iterable[str], options: Options | None = None, progress: bool = False
) -> Iterator[Result]:
    """Results of images and videos in the order of their names.

    With `progress`, stderr shows a bar with the frames per second while a video is read.
    """
    options = options or Options()
    for moving, group in groupby(sources, is_video):
        if not moving:
            yield from predictor.predict_iter(group, options)
            continue
        for source in group:
            results = stream(predictor, source, options, errors=options.errors or "result")
            yield from _with_bar(results, source, options) if progress else results


def _with_bar(results: Iterable[Result], source: str, options: Options) -> Iterator[Result]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    length, start = duration(source), options.start
    last = length if options.end is None else min(options.end, length or options.end)
    name, speed = TextColumn("{task.description}", markup=False), TextColumn("{task.fields[rate]}")
    columns = name, BarColumn(), speed, TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True, markup=False), transient=True) as bar:
        task = bar.add_task(title(source), total=last and last - start, rate="")
        for count, result in enumerate(results, 1):
            yield result
            took = bar.tasks[0].elapsed or 0
            rate = f"{result.time or 0:.1f} s, {count / took:.1f} frames/s" if took else ""
            bar.update(task, completed=(result.time or 0) - start, rate=rate)


class Follower:
    """Gives the faces of successive results their tracks, and smooths their probabilities where `smooth` says how.

    At a cut everybody gets a new track, and nothing is smoothed across it, whole images neither.
    """

    def __init__(self, smooth: str | None = None):
        self._make: Callable[[], Smooth] | None = smoother(smooth)
        self.tracker = Tracker()
        self._smooth: dict[int | None, Smooth] = {}

    def __call__(self, result: Result) -> Result:
        if result.status == "unreadable" or result.time is None:
            return result
        rgb = result.image if isinstance(result.image, np.ndarray) else None
        boxes = iter(self.tracker(result.time, [face.box for face in result.faces if face.box], rgb))
        if self.tracker.cut:
            self._smooth.clear()
        faces = []
        for face in result.faces:
            track = next(boxes) if face.box else None
            if self._make is not None:
                smooth = self._smooth.setdefault(track, self._make())
                probs = dict(zip(face.probs, smooth(np.array([*face.probs.values()])).tolist(), strict=True))
                label = max(probs, key=probs.__getitem__)
                face = replace(face, label=label, score=probs[label], probs=probs)
            faces.append(replace(face, track=track))
        alive = {None, *self.tracker.alive}
        self._smooth = {track: smooth for track, smooth in self._smooth.items() if track in alive}
        return replace(result, faces=faces)
