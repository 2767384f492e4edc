"""Video file, camera, stream → (time, RGB frame); frames → video file. PyAV is imported here, when it is needed."""

import importlib
import math
import os
import re
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

ENDINGS = frozenset(
    f".{name}"
    for name in (
        *("mp4", "m4v", "mov", "mkv", "webm", "avi", "wmv", "flv", "mpg", "mpeg", "ts", "mts", "m2ts", "mxf", "3gp"),
        *("ogv", "y4m", "h264", "h265"),
    )
)
TIMEOUT = 15.0
"""Seconds that a stream may say nothing."""
SLACK = 1.0
"""Seconds that a file may end before the length that it claims."""
KEYFRAMES = 30
"""A key frame and a piece of the file every so many frames: what a kill can cost."""

_URL = re.compile(r"(rtsps?|rtmps?|https?|srt|udp|rtp|tcp)://", re.IGNORECASE)
_PROTOCOLS = "rtsp,rtp,rtmp,rtmps,udp,tcp,tls,http,https,httpproxy,srt,crypto"  # no file: a stream names none here
_TICKS = 90_000

Source = str | Path | int


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
class Part:
    """Which frames: every `stride`-th, at most `fps` a second, those from `start` to before `end` (seconds).

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
        """The frames of this part; only they are converted."""
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


def seconds(text: str) -> float:
    """The seconds that "90", "1:30" or "0:01:30.5" means. InputError for anything else."""
    if not re.fullmatch(r"(\d+:){0,2}\d+(\.\d*)?", text):
        raise InputError(f"{text!r} is no time: write seconds, 90.5, or minutes and seconds, 1:30.5.")
    total = 0.0
    for part in text.split(":"):
        total = 60 * total + float(part)
    return total


def is_video(source: object) -> bool:
    """Whether a source means a video: a stream's address, a camera's number, or a name that ends as a video's."""
    if not isinstance(source, str | Path | int):
        return False
    return is_camera(source) or bool(_URL.match(str(source))) or Path(str(source)).suffix.lower() in ENDINGS


def is_camera(source: object) -> bool:
    """Whether a source is a camera's number, and no file has that name."""
    return isinstance(source, int) or (isinstance(source, str) and source.isdecimal() and not os.path.exists(source))


def is_live(source: object) -> bool:
    """Whether frames come as they are taken: a camera, or a stream other than http."""
    return is_camera(source) or (bool(_URL.match(str(source))) and not str(source).lower().startswith("http"))


def title(source: Source) -> str:
    """What a source is called in results and messages: its name, without a password that its address holds."""
    return f"camera {source}" if is_camera(source) else re.sub(r"(?<=://)[^/@]*@", "", str(source))


def read_frames(source: Source, part: Part | None = None, timeout: float = TIMEOUT) -> Iterator[Frame]:
    """The frames of a video file, of a camera by its number (0 is the first), or of a stream by its address.

    Upright as the file says, in RGB, with the time that the file says, so a variable frame rate is kept. Damaged pieces
    are passed over. After a seek (`part.start`) numbers follow from the average rate. One frame is held at a time.
    UnreadableVideo, after the frames before, where a video ends too early, a stream says nothing for `timeout` seconds,
    or there is nothing to read; InputError if PyAV is not installed.
    """
    part, empty = part or Part(), True
    raw = _camera(int(str(source))) if is_camera(source) else _decoded(source, part.start, timeout)
    for frame in part.of(raw):
        empty = False
        yield frame
    if empty:
        where = f" from {part.start:g} s on; start earlier" if part.start else ""
        raise UnreadableVideo(f"{title(source)} has no frames{where or ': it is empty or damaged'}.")


def duration(source: Source) -> float | None:
    """The seconds that a video file says it has; None where that is not known."""
    if is_camera(source) or _URL.match(str(source)):
        return None
    with suppress(UnreadableVideo), _opened(source, TIMEOUT) as container:
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
def _opened(source: Source, timeout: float) -> Iterator[Any]:
    """The container. A name that is no address is a file, whatever it looks like, and may name files only."""
    av, options, limit = pyav(), {"max_pixels": str(MAX_PIXELS)}, None
    place = str(source)
    if _URL.match(place):
        options |= {"protocol_whitelist": _PROTOCOLS}
        options |= {"rtsp_transport": "tcp"} if place.lower().startswith("rtsp") else {}
        limit = timeout
    else:
        _check_file(place)
        place, options["protocol_whitelist"] = f"file:{place}", "file"
    try:
        container = av.open(place, options=options, timeout=limit, metadata_errors="replace")
    except av.error.ExitError as error:
        raise UnreadableVideo(f"{title(source)} did not answer within {timeout:g} s. Is its address right?") from error
    except (av.error.FFmpegError, OSError) as error:
        raise UnreadableVideo(f"{title(source)} cannot be read: {_reason(error)}.") from error
    with container:
        yield container


def _check_file(path: str) -> None:
    """UnreadableVideo for what is no file with something in it."""
    if not os.path.exists(path):
        raise UnreadableVideo(f"{path} cannot be read: there is no such file.")
    if os.path.isdir(path) or (os.path.isfile(path) and not os.path.getsize(path)):
        raise UnreadableVideo(f"{path} cannot be read: it is {'a folder' if os.path.isdir(path) else 'empty'}.")


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return "it is no video, or it is damaged or cut short" if "nvalid data" in text else text.lower()


def _decoded(source: Source, start: float, timeout: float) -> Iterator[Raw]:
    """The frames of a file or a stream from the key frame before `start` on."""
    at, ends, length = 0.0, 0.0, ""
    with _opened(source, timeout) as container:
        stream = _track(container, title(source))
        rate, origin = float(stream.average_rate or stream.guessed_rate or 25), stream.start_time or 0
        before = 0 if is_live(source) else _sought(container, stream, origin, start)
        try:
            for count, frame in enumerate(_frames(container, stream)):
                at = count / rate if frame.pts is None else float((frame.pts - origin) * stream.time_base)
                before = round(at * rate) if before is None else before
                ends = at + float((frame.duration or 0) * stream.time_base)
                _check_size(frame.width, frame.height, title(source))
                yield Raw(at, before + count, lambda frame=frame: _upright(frame))  # type: ignore[misc]
            claimed = _claimed(container, stream) or 0.0
            if start <= ends < claimed - SLACK:
                at, length = ends, f" of {claimed:.1f} s"
                raise EOFError
        except (EOFError, TimeoutError) as error:
            why = f"nothing came for {timeout:g} s" if isinstance(error, TimeoutError) else "it is damaged or cut short"
            text = f"{title(source)} stops at {at:.1f} s{length}: {why}. What came before is kept."
            raise UnreadableVideo(text) from error


def _sought(container: Any, stream: Any, origin: int, start: float) -> int | None:
    """Go to the key frame before `start`. The number of frames left out: 0, or None for "as many as the rate says"."""
    if not start:
        return 0
    try:
        container.seek(origin + int(start / stream.time_base), stream=stream)
    except pyav().error.FFmpegError:  # what cannot be sought is read from its start
        return 0
    return None


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


def _track(container: Any, name: str) -> Any:
    """The first track of moving images, set to decode on several threads."""
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

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, time: float, rgb: np.ndarray) -> None:
        av = pyav()
        with self._failing():
            if self._container is None:
                self._start = time
                self._open(av, *rgb.shape[:2])
            self._last = max(self._last + 1, round((time - self._start) * _TICKS))
            size = {"width": self._stream.width, "height": self._stream.height}
            frame = av.VideoFrame.from_ndarray(_even(rgb), format="rgb24").reformat(**size, format="yuv420p")
            frame.pts, frame.time_base = self._last, Fraction(1, _TICKS)
            self._container.mux(self._stream.encode(frame))

    def _open(self, av: Any, height: int, width: int) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Pieces that reach the disk at once, and an ordinary file once it is closed.
        flags = {"movflags": "hybrid_fragmented+frag_keyframe", "flush_packets": "1"}
        self._container = av.open(f"file:{self.path}", "w", format="mp4", options=flags)
        quality = {"preset": "veryfast", "crf": "23", "bf": "0"}
        self._stream = self._container.add_stream("libx264", rate=Fraction(self.rate).limit_denominator(1001))
        self._stream.width, self._stream.height = width + width % 2, height + height % 2
        self._stream.pix_fmt, self._stream.gop_size = "yuv420p", KEYFRAMES
        self._stream.codec_context.options = quality
        self._stream.codec_context.time_base = Fraction(1, _TICKS)

    def close(self) -> None:
        """End the file; nothing happens a second time."""
        container, self._container = self._container, None
        if container is None:
            return
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
                f"choose another folder, then go on with --start {self._start + max(0, self._last) / _TICKS:.1f}"
            ) from error


def _even(rgb: np.ndarray) -> np.ndarray:
    """The last row and column repeated where there is an odd number of them, as yuv420p needs."""
    height, width = rgb.shape[:2]
    if height % 2 or width % 2:
        rgb = np.pad(rgb, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return np.ascontiguousarray(rgb)
