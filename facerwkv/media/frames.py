"""Video file, camera, stream → (time, RGB frame); frames → video file. PyAV is imported when it is needed."""

import heapq
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from facerwkv.core.errors import InputError
from facerwkv.media import container as files
from facerwkv.media.animations import animation_frames
from facerwkv.media.container import Clock, UnreadableVideo, Watch, length_of, opened, pyav, rate_of, start_of
from facerwkv.media.display import deinterlaced, display_size, to_rgb
from facerwkv.media.images import animation_kind, is_animation
from facerwkv.media.sound import Sound
from facerwkv.media.sources import VideoSource, is_camera, is_live, is_stream, title

TIMEOUT = 15.0
"""Seconds that a stream may send nothing."""
KEYFRAMES = 30
"""A key frame and a piece of the file each time this many frames are written: what a kill can cost."""
_TICKS = 90_000
_OPENING = threading.Lock()


class Frame(NamedTuple):
    """`time` in seconds on the file's clock, `rgb` uint8 (H, W, 3) upright, `number` in the video, from 0.

    The clock is 0 where the first track begins, video or sound. `duration` is for how many seconds the frame is shown,
    0 where that is not known.
    """

    time: float
    rgb: np.ndarray
    number: int
    duration: float = 0.0

    @classmethod
    def of(cls, given: Any, count: int) -> "Frame":
        """What a caller gave as a frame, (seconds, image) or (seconds, image, number), after `count` others.

        The image is checked when it is read. InputError for anything else.
        """
        match given:
            case [Real() as seconds, image, *more] if len(more) < 3 and math.isfinite(seconds):
                return cls(float(seconds), image, *(more or [count]))
        what = type(given).__name__ + (f" of {len(given)}" if isinstance(given, list | tuple) else "")
        raise InputError(f"Frame {count} is {what}; give (seconds, image) or (seconds, image, number) for each frame.")


class Raw(NamedTuple):
    """A frame whose image is made when it is asked for."""

    time: float
    number: int
    rgb: Callable[[], np.ndarray]
    duration: float = 0.0


@dataclass(frozen=True, slots=True)
class Selection:
    """Which frames: each `stride`-th, at most `fps` per second, those from `start` to before `end` (seconds).

    InputError for numbers that mean nothing.
    """

    stride: int = 1
    fps: float | None = None
    start: float = 0.0
    end: float | None = None

    def __post_init__(self) -> None:
        if self.stride < 1:
            raise InputError(f"stride is {self.stride}; it must be 1 or more.")
        if self.fps is not None and not 0 < self.fps < math.inf:
            raise InputError(f"fps is {self.fps}; it must be above 0.")
        if not 0 <= self.start < math.inf or (self.end is not None and not self.start < self.end):
            raise InputError(f"start is {self.start:g} s and end {self.end} s; choose 0 <= start < end.")

    def of(self, frames: Iterable[Raw]) -> Iterator[Frame]:
        """The selected frames; only they are converted."""
        count, due = 0, self.start
        for frame in frames:
            if frame.time < self.start - 1e-6:
                continue
            if self.end is not None and frame.time >= self.end:
                return
            count += 1
            if (count - 1) % self.stride or (self.fps and frame.time < due - 1e-6):
                continue
            if self.fps:
                due = self.start + (math.floor((frame.time - self.start) * self.fps + 1e-6) + 1) / self.fps
            yield Frame(frame.time, frame.rgb(), frame.number, frame.duration)


def read_frames(
    source: VideoSource,
    selection: Selection | None = None,
    timeout: float = TIMEOUT,
    name: str | None = None,
    watch: Watch | None = None,
) -> Iterator[Frame]:
    """The frames of a video file, of a camera by its number (0 is the first), or of a stream by its address.

    As a player shows them: the default track, upright, with square pixels, deinterlaced, HDR as SDR, in RGB. Times are
    the file's and increase strictly, so a variable frame rate is kept. Damaged pieces are passed over. After a seek
    (`selection.start`) numbers follow from the average rate. One frame is held at a time. Messages use `name` (by
    default the source's). A file's reader calls `watch`. UnreadableVideo, after the frames before, where a video ends
    too early, a stream breaks off or sends nothing for `timeout` seconds, or there is nothing to read; InputError
    without PyAV.
    """
    selection, name, empty = selection or Selection(), name or title(source), True
    if is_camera(source):
        raw = _camera(int(str(source)))
    elif not is_stream(source) and (kind := animation_kind(str(source))):
        raw = _animated(str(source), name, kind, watch)
    else:
        raw = _decoded(source, selection.start, timeout, name, watch)
    for frame in selection.of(raw):
        empty = False
        yield frame
    if empty:
        where = f" from {selection.start:g} s on; start earlier" if selection.start else ""
        raise UnreadableVideo(f"{name} has no frames{where or ': it is empty or damaged'}.")


def duration(source: VideoSource) -> float | None:
    """When a video file's longest track ends, as it says, in seconds on its clock; None where that is not known."""
    if is_camera(source) or is_stream(source) or animation_kind(str(source)):
        return None
    with suppress(UnreadableVideo), opened(source, TIMEOUT, str(source)) as container:
        return length_of(container)
    return None


def video_size(path: str | Path, name: str, formats: str | None = None) -> tuple[int, int]:
    """Width and height of a video file's frames, before they are turned; `formats` as in `opened`. UnreadableVideo."""
    if animation_kind(path) and is_animation(path):
        with Image.open(path) as image:
            return image.size
    with opened(path, TIMEOUT, name, formats) as container:
        track = files.video_track(container, name)
        return display_size(track, track.codec_context.width, track.codec_context.height)


def _camera(number: int) -> Iterator[Raw]:
    """A camera through OpenCV, whose wheels know cameras where PyAV's do not."""
    import cv2

    with _OPENING:
        level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        capture = cv2.VideoCapture(number)
        cv2.utils.logging.setLogLevel(level)
    try:
        started, count, last = time.monotonic(), 0, 0.0
        while capture.isOpened():
            there, bgr = capture.read()
            if not there:
                raise UnreadableVideo(f"Camera {number} stopped after {last:.1f} s. Is it still plugged in?")
            last = time.monotonic() - started
            yield Raw(last, count, lambda bgr=bgr: cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))  # type: ignore[misc]
            count += 1
    finally:
        capture.release()
    raise UnreadableVideo(
        f"There is no camera {number}, or it may not be used. Plug it in, close other programs that use it, or choose "
        "another number."
    )


def _animated(path: str, name: str, kind: str, watch: Watch | None) -> Iterator[Raw]:
    for number, (at, duration, rgb) in enumerate(animation_frames(path, name, kind)):
        if watch:
            watch()
        yield Raw(at, number, partial(np.asarray, rgb), duration)


def _decoded(source: VideoSource, start: float, timeout: float, name: str, watch: Watch | None) -> Iterator[Raw]:
    """The frames of a file or a stream from the key frame before `start` on."""
    with opened(source, timeout, name) as container:
        track = files.video_track(container, name)
        rate, clock = rate_of(track), Clock(container, 1 / rate_of(track))
        sought = bool(start) and not is_live(source) and _sought(container, track, start)
        decoder, before, shown = _Decoder(container, track, watch), 0, 0.0
        for count, frame in enumerate(deinterlaced(decoder.frames())):
            at = clock(None if frame.pts is None else float(frame.pts * (frame.time_base or track.time_base)))
            if sought and at > start:
                break
            if sought:
                before = round((at - float((track.start_time or 0) * track.time_base) + start_of(container)) * rate)
                sought = False
            duration = float((frame.duration or 0) * (frame.time_base or track.time_base))
            shown, size = at + (duration or 1 / rate), display_size(track, frame.width, frame.height)
            files.check_size(*size, name)
            yield Raw(at, before + count, partial(to_rgb, frame, size), duration)
        if not sought and shown >= start and (why := decoder.broken(source, shown, timeout)):
            end = files.end_of(container, track)
            length = f" of {end:.1f} s" if end and end > shown else ""
            raise UnreadableVideo(f"{name} stops at {shown:.1f} s{length}: {why}. What came before is kept.")
    if sought:  # it went too far
        yield from _decoded(source, 0.0, timeout, name, watch)


def _sought(container: Any, track: Any, start: float) -> bool:
    """Whether reading goes on at the key frame before `start`; what cannot be sought is read from its start."""
    form = container.format.name
    by_order = form == "mpeg" or (form == "avi" and track.codec_context.has_b_frames)  # stamps follow from those before
    if by_order or container.start_time is None:
        return False
    try:
        container.seek(int((start + start_of(container)) / track.time_base), stream=track)
    except pyav().error.FFmpegError:
        return False
    return True


class _Decoder:
    """The frames of a track, and what became of those that do not come."""

    def __init__(self, container: Any, track: Any, watch: Watch | None):
        self.container, self.track, self.watch = container, track, watch
        self.reached, self.lost = 0.0, 0
        self.failure: Exception | None = None
        self._stamps: list[int] | None = [] if container.format.name == "avi" else None

    def frames(self) -> Iterator[Any]:
        """What can be decoded. Frames of an AVI, which has the times of decoding only, get those in their order."""
        av = pyav()
        for packet in self._packets():
            try:
                frames = packet.decode() if packet else self.track.decode(None)
            except av.error.InvalidDataError:
                self.lost += 1
                continue
            except av.error.FFmpegError as error:
                self.failure = error
                return
            if self._stamps is not None and packet and packet.dts is not None:
                heapq.heappush(self._stamps, packet.dts)
            for frame in frames:
                self.lost = 0
                if self._stamps:
                    frame.pts = heapq.heappop(self._stamps)
                yield frame

    def _packets(self) -> Iterator[Any]:
        """The track's packets, and None, which empties the decoder, if the source fails before its end."""
        try:
            for packet in self.container.demux():
                if self.watch:
                    self.watch()
                if packet.pts is not None:
                    ends = float((packet.pts + (packet.duration or 0)) * packet.time_base) - start_of(self.container)
                    self.reached = max(self.reached, ends)
                if packet.stream.index == self.track.index:
                    yield packet
        except (pyav().error.FFmpegError, OSError) as error:
            self.failure = error
            yield None

    def broken(self, source: VideoSource, shown: float, timeout: float) -> str:
        """Why a video whose last frame ends at `shown` seconds is not whole; empty if it is."""
        short, damage = files.is_short(self.container, self.track, shown, self.reached), "it is damaged or cut short"
        if isinstance(self.failure, pyav().error.ExitError):
            return f"nothing came for {timeout:g} s"
        if self.lost or short:
            return damage
        if self.failure and short is None:
            return "the connection was lost" if is_stream(source) else damage
        if is_stream(source) and short is None and self.container.size <= 0:
            return "the stream ended"
        return damage if not is_stream(source) and files.is_cut(self.container) else ""


class VideoWriter:
    """Frames → an H.264 file, .mp4: `write(time, rgb)` with uint8 (H, W, 3) RGB and growing times in seconds; close it.

    `start` is the time of the file's start (None: the first frame's), `sound` what is heard from there on. The file has
    the first frame's size, made even; others are scaled to it. It consists of pieces of about a second, so after a kill
    or a full disk it plays to the last of them. InputError if it cannot be written.
    """

    def __init__(self, path: str | Path, rate: float = 25.0, start: float | None = None, sound: Sound | None = None):
        self.path, self.rate, self.sound = Path(path), rate, sound
        self._container: Any = None
        self._stream: Any = None
        self._start, self._last = start, -1
        self._waiting: Any = None  # the last packet: the next says how long its frame is shown

    def write(self, time: float, rgb: np.ndarray) -> None:
        with self._failing():
            if self._container is None:
                self._start = time if self._start is None else self._start
                self._open(*rgb.shape[:2])
            self._last = max(self._last + 1, round((time - (self._start or 0.0)) * _TICKS))
            height, width = rgb.shape[:2]
            if height % 2 or width % 2:  # yuv420p needs an even number: the last row and column are repeated
                rgb = np.pad(rgb, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            frame = pyav().VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
            frame = frame.reformat(self._stream.width, self._stream.height, format="yuv420p")
            frame.pts, frame.time_base = self._last, Fraction(1, _TICKS)
            self._mux(self._stream.encode(frame))
            self._container.mux([*self.sound.until(time)] if self.sound else [])

    def _open(self, height: int, width: int) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Pieces that reach the disk at once, and an ordinary file, whose tracks may start late, once it is closed.
        flags = {"movflags": "hybrid_fragmented+frag_keyframe", "flush_packets": "1", "use_editlist": "1"}
        self._container = pyav().open(f"file:{self.path}", "w", format="mp4", options=flags)
        self._stream = self._container.add_stream("libx264", rate=Fraction(self.rate).limit_denominator(1001))
        self._stream.width, self._stream.height = width + width % 2, height + height % 2
        self._stream.pix_fmt, self._stream.gop_size = "yuv420p", KEYFRAMES
        self._stream.codec_context.options = {"preset": "veryfast", "crf": "23", "bf": "0"}
        self._stream.codec_context.time_base = Fraction(1, _TICKS)
        if self.sound:
            self.sound.add_to(self._container)

    def _mux(self, packets: Iterable[Any], end: int | None = None) -> None:
        """Write packets but for the last, each as long as it is to the next; with `end`, the last too, up to there."""
        for packet in packets:
            if self._waiting is not None:
                self._waiting.duration = packet.pts - self._waiting.pts
                self._container.mux(self._waiting)
            self._waiting = packet
        if end is not None and self._waiting is not None:
            self._waiting.duration = max(1, end - self._waiting.pts)
            self._container.mux(self._waiting)

    def close(self, end: float | None = None) -> None:
        """End the file, and its last frame at `end` seconds (None: after 1 / rate); nothing happens a second time."""
        container = self._container
        if container is not None:
            with self._failing(), ExitStack() as closing:
                closing.callback(container.close)
                ticks = self._last + round(_TICKS / self.rate)
                if end is not None:
                    ticks = max(self._last + 1, round((end - (self._start or 0.0)) * _TICKS))
                self._mux(self._stream.encode(None), ticks)
                if self.sound:
                    container.mux([*self.sound.rest((self._start or 0.0) + ticks / _TICKS)])
        self._container = None
        if self.sound:
            self.sound.close()

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """A failure closes the file, so that what was written plays, and becomes a sentence."""
        try:
            yield
        except (pyav().error.FFmpegError, OSError) as error:
            container, self._container = self._container, None
            if container is not None:
                with suppress(Exception):
                    container.close()
            raise InputError(
                f"Cannot write {self.path}: {error.strerror or error}. What was written plays; free some space or "
                f"choose another folder, then continue with --start "
                f"{(self._start or 0.0) + max(0, self._last) / _TICKS:.1f}"
            ) from error
