"""What a person names: images, folders, patterns, videos, cameras, streams."""

import glob
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from facerwkv.media.images import ANIMATED, endings, is_animation

VideoSource = str | Path | int
"""A file, a stream's address, or a camera's number."""
VIDEO_ENDINGS = frozenset(
    f".{name}"
    for name in (
        *("mp4", "m4v", "mov", "mkv", "webm", "avi", "wmv", "flv", "mpg", "mpeg", "ts", "mts", "m2ts", "mxf", "3gp"),
        *("ogv", "y4m", "h264", "h265"),
    )
)
_URL = re.compile(r"(rtsps?|rtmps?|https?|srt|udp|rtp|tcp)://", re.IGNORECASE)


def is_video(source: object) -> bool:
    """Whether a source means a video: a stream's address, a camera's number, a name that ends as a video's, or an
    animated image, whose first bytes are read."""
    if not isinstance(source, str | Path | int):
        return False
    ending = Path(str(source)).suffix.lower()
    if ending in ANIMATED and not is_stream(source):
        return is_animation(str(source))
    return ending in VIDEO_ENDINGS or is_stream(source) or is_camera(source)


def is_stream(source: VideoSource) -> bool:
    """Whether a source is a stream's address."""
    return bool(_URL.match(str(source)))


def is_camera(source: VideoSource) -> bool:
    """Whether a source is a camera's number, and no file has that name."""
    return isinstance(source, int) or (isinstance(source, str) and source.isdecimal() and not os.path.exists(source))


def is_live(source: VideoSource) -> bool:
    """Whether frames come as they are taken: a camera, or a stream other than http."""
    return is_camera(source) or (is_stream(source) and not str(source).lower().startswith("http"))


def title(source: VideoSource) -> str:
    """What a source is called in results and messages: its name, without the password of an address."""
    return f"camera {source}" if is_camera(source) else re.sub(r"(?<=://)[^/@]*@", "", str(source))


def expand_sources(arguments: Iterable[str], stdin: Iterable[str] = ()) -> Iterator[str]:
    """The images that a command line means, one by one.

    A folder means the images in it and below, in natural order (2 before 10), hidden ones left out; a pattern (*, ?,
    [...], **) what fits it; "-" the list on `stdin`, one name per line or NUL between names. What means nothing comes
    out as it is, for prediction to report.
    """
    for argument in arguments:
        if argument == "-":
            listed = (name for line in stdin for name in line.rstrip("\r\n").split("\0"))
            yield from expand_sources(name for name in listed if name.strip() not in ("", "-"))
        elif glob.has_magic(argument) and not os.path.lexists(argument):
            found = sorted(glob.iglob(argument, recursive=True), key=_natural)
            yield from (image for path in found for image in images_in(path)) if found else [argument]
        else:
            yield from images_in(argument)


def images_in(path: str) -> Iterator[str]:
    """The images below a folder; a file, and a folder without images, as it is."""
    empty = True
    for folder, folders, names in os.walk(path):
        folders[:] = sorted((name for name in folders if not name.startswith(".")), key=_natural)
        for name in sorted(names, key=_natural):
            if name.lower().endswith(endings()) and not name.startswith("."):
                empty = False
                yield os.path.join(folder, name)
    if empty:
        yield path


def _natural(name: str) -> list[tuple[int, str]]:
    """A sorting key in which 2 comes before 10."""
    return [(int(part), "") if part.isdecimal() else (-1, part.lower()) for part in re.split(r"(\d+)", name)]
