"""Video file, camera, stream → (time, RGB frame); frames → video file. PyAV is imported when it is needed."""

import importlib
import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from facerwkv.core.errors import InputError
from facerwkv.media.images import MAX_PIXELS
from facerwkv.media.sources import VideoSource, is_camera, is_live, is_stream, title

TIMEOUT = 15.0
"""Seconds that a stream may send nothing."""
SLACK = 1.0
"""Seconds that a file may end before the length that it claims."""
KEYFRAMES = 30
"""A key frame and a piece of the file each time this many frames are written: what a kill can cost."""

_PROTOCOLS = "rtsp,rtp,rtmp,rtmps,udp,tcp,tls,http,https,httpproxy,srt,crypto"  # no file: a stream names none here
_TICKS = 90_000
_OPENING = threading.Lock()


class UnreadableVideo(InputError):
    """A video cannot be read, or not to its end: the message names it and says why and where."""


class Frame(NamedTuple):
    """`time` in seconds from the video's start, `rgb` uint8 (H, W, 3) upright, `number` in the video, from 0."""

    time: float
    rgb: np.ndarray
    number: int


class Raw(NamedTuple):
    """A frame whose image is made when it is asked for."""

    time: float
    number: int
    rgb: Callable[[], np.ndarray]


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
            if frame.time < self.start:
                continue
            if self.end is not None and frame.time >= self.end:
                return
            count += 1
            if (count - 1) % self.stride or (self.fps and frame.time < due - 1e-6):
                continue
            if self.fps:
                due = self.start + (math.floor((frame.time - self.start) * self.fps + 1e-6) + 1) / self.fps
            yield Frame(frame.time, frame.rgb(), frame.number)


def read_frames(
    source: VideoSource, selection: Selection | None = None, timeout: float = TIMEOUT, name: str | None = None
) -> Iterator[Frame]:
    """The frames of a video file, of a camera by its number (0 is the first), or of a stream by its address.

    Upright as the file says, in RGB, with the time that the file says, so a variable frame rate is kept. Damaged pieces
    are passed over. After a seek (`selection.start`) numbers follow from the average rate. One frame is held at a time.
    Messages use `name` (by default the source's). UnreadableVideo, after the frames before, where a video ends too
    early, a stream sends nothing for `timeout` seconds, or there is nothing to read; InputError without PyAV.
    """
    selection, name, empty = selection or Selection(), name or title(source), True
    raw = _camera(int(str(source))) if is_camera(source) else _decoded(source, selection.start, timeout, name)
    for frame in selection.of(raw):
        empty = False
        yield frame
    if empty:
        where = f" from {selection.start:g} s on; start earlier" if selection.start else ""
        raise UnreadableVideo(f"{name} has no frames{where or ': it is empty or damaged'}.")


def duration(source: VideoSource) -> float | None:
    """The seconds that a video file says it has; None where that is not known."""
    if is_camera(source) or is_stream(source):
        return None
    with suppress(UnreadableVideo), _opened(source, TIMEOUT, str(source)) as container:
        return container.duration / 1e6 if container.duration else None
    return None


def pyav() -> Any:
    """PyAV, or InputError that names the extra to install."""
    try:
        return importlib.import_module("av")
    except ImportError as error:
        raise InputError('Reading and writing video needs PyAV: pip install "facerwkv[video]"') from error


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


@contextmanager
def _opened(source: VideoSource, timeout: float, name: str) -> Iterator[Any]:
    """The container. A name that is no address is a file, whatever it looks like, and may name files only."""
    av, options, path = pyav(), {"max_pixels": str(MAX_PIXELS)}, str(source)
    if is_stream(source):
        address, limit = path, timeout
        options |= {"protocol_whitelist": _PROTOCOLS}
        options |= {"rtsp_transport": "tcp"} if path.lower().startswith("rtsp") else {}
    else:
        if not os.path.exists(path):
            raise UnreadableVideo(f"{name} cannot be read: there is no such file.")
        if os.path.isdir(path) or (os.path.isfile(path) and not os.path.getsize(path)):
            raise UnreadableVideo(f"{name} cannot be read: it is {'a folder' if os.path.isdir(path) else 'empty'}.")
        address, limit, options["protocol_whitelist"] = f"file:{path}", None, "file"
    try:
        container = av.open(address, options=options, timeout=limit, metadata_errors="replace")
    except av.error.ExitError as error:
        raise UnreadableVideo(f"{name} did not answer within {timeout:g} s. Is its address right?") from error
    except (av.error.FFmpegError, OSError) as error:
        text = getattr(error, "strerror", None) or str(error)
        reason = "it is no video, or it is damaged or cut short" if "nvalid data" in text else text.lower()
        raise UnreadableVideo(f"{name} cannot be read: {reason}.") from error
    with container:
        yield container


def _decoded(source: VideoSource, start: float, timeout: float, name: str) -> Iterator[Raw]:
    """The frames of a file or a stream from the key frame before `start` on."""
    at, ends, length = 0.0, 0.0, ""
    with _opened(source, timeout, name) as container:
        stream = _video_track(container, name)
        rate, origin = float(stream.average_rate or stream.guessed_rate or 25), stream.start_time or 0
        before: int | None = 0  # frames left out; None: as many as the rate says
        if start and not is_live(source):
            with suppress(pyav().error.FFmpegError):  # what cannot be sought is read from its start
                container.seek(origin + int(start / stream.time_base), stream=stream)
                before = None
        try:
            for count, frame in enumerate(_frames(container, stream)):
                at = count / rate if frame.pts is None else float((frame.pts - origin) * stream.time_base)
                before = round(at * rate) if before is None else before
                ends = at + float((frame.duration or 0) * stream.time_base)
                _check_size(frame.width, frame.height, name)
                yield Raw(at, before + count, lambda frame=frame: _upright(frame))  # type: ignore[misc]
            claimed = _claimed(container, stream) or 0.0
            if start <= ends < claimed - SLACK:
                at, length = ends, f" of {claimed:.1f} s"
                raise EOFError
        except (EOFError, TimeoutError) as error:
            why = f"nothing came for {timeout:g} s" if isinstance(error, TimeoutError) else "it is damaged or cut short"
            text = f"{name} stops at {at:.1f} s{length}: {why}. What came before is kept."
            raise UnreadableVideo(text) from error


def _frames(container: Any, stream: Any) -> Iterator[Any]:
    """What can be decoded. EOFError if the last pieces cannot be, TimeoutError if nothing comes any more."""
    av, lost = pyav(), 0
    try:
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except av.error.InvalidDataError:
                lost += 1
                continue
            for frame in frames:
                lost = 0
                yield frame
    except av.error.ExitError as error:
        raise TimeoutError from error
    except (av.error.FFmpegError, OSError) as error:
        raise EOFError from error
    if lost:
        raise EOFError


def _video_track(container: Any, name: str) -> Any:
    """The first video track, set to decode on several threads."""
    from av.stream import Disposition

    tracks = [track for track in container.streams.video if not track.disposition & Disposition.attached_pic]
    if not tracks:
        raise UnreadableVideo(f"{name} has no video track; give a video with images.")
    tracks[0].thread_type = "AUTO"
    _check_size(tracks[0].codec_context.width, tracks[0].codec_context.height, name)
    return tracks[0]


def _check_size(width: int, height: int, name: str) -> None:
    if width * height > MAX_PIXELS:
        raise UnreadableVideo(
            f"{name} cannot be read: its frames have {width} x {height} pixels, more than the {MAX_PIXELS:,} that are "
            "allowed. Make it smaller first."
        )


def _claimed(container: Any, stream: Any) -> float | None:
    """The seconds that the video's own track is said to have; the file's length may be a longer sound's."""
    if container.format.name == "avi" and stream.frames and stream.average_rate:
        return float(stream.frames / stream.average_rate)  # its length is what is there of it
    if stream.duration:
        return float(stream.duration * stream.time_base)
    if len(container.streams) == 1 and container.duration and container.size > 0:
        return container.duration / 1e6
    return None


def _upright(frame: Any) -> np.ndarray:
    rgb = frame.to_ndarray(format="rgb24")
    turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(rgb, turns)) if turns else rgb


class VideoWriter:
    """Frames → an H.264 file, .mp4: `write(time, rgb)` with uint8 (H, W, 3) RGB and growing times in seconds; close it.

    The first frame's time is the file's start, its size the file's, made even; others are scaled to it. The file
    consists of pieces of about a second, so after a kill or a full disk it plays to the last of them. InputError if it
    cannot be written.
    """

    def __init__(self, path: str | Path, rate: float = 25.0):
        self.path, self.rate = Path(path), rate
        self._container: Any = None
        self._stream: Any = None
        self._start, self._last = 0.0, -1

    def write(self, time: float, rgb: np.ndarray) -> None:
        with self._failing():
            if self._container is None:
                self._start = time
                self._open(*rgb.shape[:2])
            self._last = max(self._last + 1, round((time - self._start) * _TICKS))
            height, width = rgb.shape[:2]
            if height % 2 or width % 2:  # yuv420p needs an even number: the last row and column are repeated
                rgb = np.pad(rgb, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            frame = pyav().VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
            frame = frame.reformat(self._stream.width, self._stream.height, format="yuv420p")
            frame.pts, frame.time_base = self._last, Fraction(1, _TICKS)
            self._container.mux(self._stream.encode(frame))

    def _open(self, height: int, width: int) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Pieces that reach the disk at once, and an ordinary file once it is closed.
        flags = {"movflags": "hybrid_fragmented+frag_keyframe", "flush_packets": "1"}
        self._container = pyav().open(f"file:{self.path}", "w", format="mp4", options=flags)
        self._stream = self._container.add_stream("libx264", rate=Fraction(self.rate).limit_denominator(1001))
        self._stream.width, self._stream.height = width + width % 2, height + height % 2
        self._stream.pix_fmt, self._stream.gop_size = "yuv420p", KEYFRAMES
        self._stream.codec_context.options = {"preset": "veryfast", "crf": "23", "bf": "0"}
        self._stream.codec_context.time_base = Fraction(1, _TICKS)

    def close(self) -> None:
        """End the file; nothing happens a second time."""
        container, self._container = self._container, None
        if container is not None:
            with self._failing(), ExitStack() as closing:
                closing.callback(container.close)
                container.mux(self._stream.encode(None))

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
                f"choose another folder, then continue with --start {self._start + max(0, self._last) / _TICKS:.1f}"
            ) from error
