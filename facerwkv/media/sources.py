"""What a person names: images, folders, patterns, videos, cameras, streams."""

import glob
import logging
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from facerwkv.media.arrays import is_array
from facerwkv.media.images import ANIMATED, NamedImage, endings, is_animation, is_buffer, is_image_url

VideoSource = str | Path | int
"""A file, a stream's address, or a camera's number."""
VIDEO_ENDINGS = frozenset(
    f".{name}"
    for name in (
        *("mp4", "m4v", "mov", "mkv", "webm", "avi", "wmv", "flv", "mpg", "mpeg", "ts", "mts", "m2ts", "mxf", "3gp"),
        *("ogv", "y4m", "h264", "h265"),
    )
)
DRAWN = re.compile(r"_drawn(-\d+)?\.(jpg|mp4)$")
"""How the drawings that `--save-media` writes end: they are no sources."""
LISTED = 3
logger = logging.getLogger("facerwkv")
_URL = re.compile(r"(rtsps?|rtmps?|https?|srt|udp|rtp|tcp)://", re.IGNORECASE)


def is_video(source: object) -> bool:
    """Whether a source means a video: a stream's address, a camera's number, a name that ends as a video's, or an
    animated image, whose first bytes are read."""
    if isinstance(source, os.PathLike):
        source = os.fsdecode(source)
    if not isinstance(source, str | int) or (is_stream(source) and is_image_url(source)):
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
    if isinstance(source, bool):
        return False
    return isinstance(source, int) or (isinstance(source, str) and source.isdecimal() and not os.path.exists(source))


def is_live(source: VideoSource) -> bool:
    """Whether frames come as they are taken: a camera, or a stream other than http."""
    return is_camera(source) or (is_stream(source) and not str(source).lower().startswith("http"))


def title(source: VideoSource) -> str:
    """What a source is called in results and messages: its name, without the password of an address."""
    return f"camera {source}" if is_camera(source) else re.sub(r"(?<=://)[^/@]*@", "", str(source))


def is_group(source: object) -> bool:
    """Whether a source means several images: a folder, or a pattern that is no file's name."""
    if not isinstance(source, str | os.PathLike):
        return False
    name = os.fsdecode(source)
    return os.path.isdir(name) or (glob.has_magic(name) and not os.path.lexists(name) and not is_stream(name))


def is_one(source: Any) -> bool:
    """Whether a source is at most one image: what is no image either counts, and is refused when it is read."""
    if isinstance(source, str | os.PathLike | bytes | Image.Image | NamedImage | Mapping) or hasattr(source, "read"):
        return True
    if hasattr(source, "__next__"):
        return False
    if hasattr(source, "columns"):  # a table: which of them has the sources?
        return True
    if hasattr(source, "shape") and is_array(source):
        return source.ndim < 4 and not (source.ndim == 1 and getattr(source.dtype, "kind", "") in ("O", "U", "S"))
    return is_buffer(source) or not (hasattr(source, "__iter__") or hasattr(source, "__getitem__"))


def each_image(sources: Any) -> Iterator[Any]:
    """The sources one by one, with the images that a folder or a pattern means in its place."""
    for source in [sources] if is_one(sources) else sources:
        yield from expand_sources([os.fsdecode(source)]) if is_group(source) else [source]


def why_no_image(source: object, name: str, reason: str) -> str:
    """The sentence on a source that could not be read as an image: what it is instead, or else the `reason`."""
    path = os.fsdecode(source) if isinstance(source, str | os.PathLike) else ""
    if os.path.isdir(path):
        left = LeftOut()
        if not any(True for _ in images_in(path, left)):
            return f"{name} is a folder without images{f'; in it: {left}' if left else ''}."
    if is_group(source) and not os.path.isdir(path):
        return f"{name} cannot be read: no file fits this pattern."
    if is_video(source) and (not path or is_stream(path) or is_camera(path) or os.path.isfile(path)):
        what = "a camera" if is_camera(source) else "a video"  # type: ignore[arg-type]
        command = f"facerwkv predict {shlex.quote(str(source))}"
        return f"{name} is {what}, and an image is wanted. Give it to facerwkv.stream, or type {command}"
    return reason


def expand_sources(arguments: Iterable[str], stdin: Iterable[str] = ()) -> Iterator[str]:
    """The images that a command line means, one by one.

    A folder means the images in it and below, in natural order (2 before 10), hidden ones left out; a pattern (*, ?,
    [...], **) what fits it; "-" the list on `stdin`, one name per line or NUL between names. Neither means our own
    drawings, DRAWN. What means nothing comes out as it is, for prediction to report; what lies in a folder beside
    images is counted in a warning.
    """
    for argument in arguments:
        if argument == "-":
            listed = (name for line in stdin for name in line.rstrip("\r\n").split("\0"))
            yield from expand_sources(name for name in listed if name.strip() not in ("", "-"))
        elif glob.has_magic(argument) and not os.path.lexists(argument):
            found = sorted(
                (path for path in glob.iglob(argument, recursive=True) if not DRAWN.search(path)), key=_natural
            )
            yield from (image for path in found for image in expand_sources([path])) if found else [argument]
        else:
            empty, left = True, LeftOut()
            for path in images_in(argument, left):
                empty = False
                yield path
            if empty:
                yield argument
            elif left:
                logger.warning("%s: not read: %s.", argument, left)


class LeftOut(dict[str, list[str]]):
    """What is in a folder and not read: kind → names."""

    def add(self, kind: str, name: object) -> None:
        self.setdefault(kind, []).append(os.path.basename(str(name)))

    def __str__(self) -> str:
        texts = []
        for kind, names in self.items():
            more = ", ..." if len(names) > LISTED else ""
            texts.append(f"{len(names)} {kind}{'s' * (len(names) > 1)} ({', '.join(names[:LISTED])}{more})")
        return ", ".join(texts)


def images_in(path: str, left: LeftOut) -> Iterator[str]:
    """The images below a folder, or the file; `left` gets what is not read. None where a folder has no images."""
    if not os.path.isdir(path):
        yield path
        return
    known = endings()
    for folder, folders, names in os.walk(path, onerror=lambda error: left.add("closed folder", error.filename)):
        folders[:] = sorted((name for name in folders if not name.startswith(".")), key=_natural)
        for name in folders:
            if os.path.islink(os.path.join(folder, name)):
                left.add("linked folder", name)
        for name in sorted((name for name in names if not name.startswith(".")), key=_natural):
            ending = os.path.splitext(name)[1].lower()
            if ending in known and not DRAWN.search(name):
                yield os.path.join(folder, name)
                continue
            kind = "drawing" if DRAWN.search(name) else "video" if ending in VIDEO_ENDINGS else "other file"
            left.add(kind if ending else "file without an ending", name)


def _natural(name: str) -> list[tuple[int, str]]:
    """A sorting key in which 2 comes before 10."""
    return [(int(part), "") if part.isdecimal() else (-1, part.lower()) for part in re.split(r"(\d+)", name)]
