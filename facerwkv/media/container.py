"""Video file or stream → an open container, its video track and its clock. PyAV is imported when it is needed."""

import importlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from facerwkv.core.errors import InputError
from facerwkv.media.images import MAX_PIXELS
from facerwkv.media.sources import VideoSource, is_stream

_PROTOCOLS = "rtsp,rtp,rtmp,rtmps,udp,tcp,tls,http,https,httpproxy,srt,crypto"  # no file: a stream names none here
_PACKETS = (188, 192, 204)
"""Bytes of an MPEG transport stream's packet, without and with a time stamp or check bytes."""
_BY_HEADER = ("matroska", "flv", "asf", "mxf")
"""Formats whose header has the length of the whole file; FFmpeg may give it to a track."""
ANEW = 0.5
"""Seconds by which time stamps go back where they start anew; less is an error of theirs."""
LEAST = 1e-3
"""Seconds between two frames, at least, where their time stamps are not in order."""


Watch = Callable[[], None]
"""Called at each packet of a file, wanted or not; what it raises ends the reading."""


class UnreadableVideo(InputError):
    """A video cannot be read, or not to its end: the message names it and says why and where."""


def pyav() -> Any:
    """PyAV, or InputError that names the extra to install."""
    try:
        return importlib.import_module("av")
    except ImportError as error:
        raise InputError('Reading and writing video needs PyAV: pip install "facerwkv[video]"') from error


@contextmanager
def opened(source: VideoSource, timeout: float, name: str, formats: str | None = None) -> Iterator[Any]:
    """The container; `formats` are the only ones that are tried, as FFmpeg calls them (None: all).

    A name that is no address is a file, whatever it looks like, and may name files only. UnreadableVideo.
    """
    av, options, path = pyav(), {"max_pixels": str(MAX_PIXELS)}, str(source)
    options |= {"format_whitelist": formats} if formats else {}
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


def video_track(container: Any, name: str) -> Any:
    """The video track that a player shows, set to decode on several threads: the default one, or else the first.

    An image that a file carries as its cover is none. UnreadableVideo where there is none.
    """
    from av.stream import Disposition

    images = Disposition.attached_pic | Disposition.timed_thumbnails
    tracks = [track for track in container.streams.video if track.codec_context and not track.disposition & images]
    if not tracks:
        raise UnreadableVideo(f"{name} has no video track; give a video with images.")
    track = max(tracks, key=lambda track: bool(track.disposition & Disposition.default))
    track.thread_type = "AUTO"
    check_size(track.codec_context.width, track.codec_context.height, name)
    return track


def check_size(width: int, height: int, name: str) -> None:
    """UnreadableVideo for frames of more than MAX_PIXELS."""
    if width * height > MAX_PIXELS:
        raise UnreadableVideo(
            f"{name} cannot be read: its frames have {width} x {height} pixels, more than the {MAX_PIXELS:,} that are "
            "allowed. Make it smaller first."
        )


class Clock:
    """Time stamps of one track, in seconds → its times on the file's clock, which is 0 where the first track begins.

    They increase strictly, from `first` on at the earliest. Where a stamp is missing, it is one `step` after the last;
    where stamps start anew, as in files that were joined, the clock goes on.
    """

    def __init__(self, container: Any, step: float, first: float = 0.0):
        self.step, self.first, self._shift = step, first, -start_of(container)
        self._last: float | None = None

    def __call__(self, stamp: float | None) -> float:
        last = self._last
        if last is None:
            at = 0.0 if stamp is None else max(self.first, stamp + self._shift)
        else:
            at = last + self.step if stamp is None else stamp + self._shift
            if at < last - ANEW:
                self._shift += last + self.step - at
                at = last + self.step
            at = at if at > last else last + LEAST
        self._last = at
        return at


def start_of(container: Any) -> float:
    """The time stamp, in seconds, at which the first of a file's tracks begins."""
    return (container.start_time or 0) / 1e6


def length_of(container: Any) -> float | None:
    """When the longest track ends as the file says, in seconds on its clock; None where it does not say."""
    if not container.duration:
        return None
    return container.duration / 1e6 - (start_of(container) if container.format.name.startswith("matroska") else 0.0)


def end_of(container: Any, track: Any) -> float | None:
    """When the video track ends as the file says, in seconds on its clock; None where it does not say."""
    form = container.format.name
    if form == "avi" and track.frames and track.average_rate:
        return float(track.frames / track.average_rate)  # the file's own length is what is there of it
    with suppress(ValueError):  # Matroska's, "00:00:02.040000000"
        hours, minutes, seconds = track.metadata.get("DURATION", "").split(":")
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds) - start_of(container)
    if track.duration and form.split(",")[0] not in _BY_HEADER:
        return float(((track.start_time or 0) + track.duration) * track.time_base) - start_of(container)
    return None


def is_short(container: Any, track: Any, shown: float, reached: float) -> bool | None:
    """Whether a video ends before the end that it says; None where it says none.

    `shown` is when its last frame ends and `reached` when its last packet of any track does, in seconds. A frame may be
    missing, or 2 % of the length; two where only the length of the whole file is known.
    """
    end, frames = end_of(container, track), 1.5
    if end is None and container.format.name.split(",")[0] in _BY_HEADER:
        end, frames, shown = length_of(container), 2.5, max(shown, reached)
    return None if end is None else shown < end - max(frames / rate_of(track), 0.02 * end)


def is_cut(container: Any) -> bool:
    """Whether a file that does not say its end is cut all the same: its last packet is not whole, or its size is not
    the one in its header, for which FFmpeg takes an ASF's length away."""
    if container.format.name == "asf":
        return not container.duration
    return container.format.name == "mpegts" and all(container.size % size for size in _PACKETS)


def rate_of(track: Any) -> float:
    """Frames per second, on average."""
    return float(track.average_rate or track.guessed_rate or 25)
