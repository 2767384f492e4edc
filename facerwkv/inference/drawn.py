"""Results → drawn images and videos: one file per source, in its source's place below a folder."""

import json
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from facerwkv.core.files import atomic
from facerwkv.inference.options import Options
from facerwkv.inference.results import Result
from facerwkv.media.container import Watch
from facerwkv.media.draw import COLOURS
from facerwkv.media.frames import VideoWriter, duration
from facerwkv.media.geometry import area
from facerwkv.media.sound import Sound

INDEX = ".sources.jsonl"
"""In the folder of drawings: a line [drawing, source] each."""
STRIP = 12
"""The timeline's height is the image's divided by this."""
PAPER = (18, 20, 24)


class DrawnVideo:
    """Results of one video → an H.264 file: the frames with their faces drawn, and below them a timeline. Close it.

    The timeline moves one pixel to the left with every frame; its right column shows the probabilities of the largest
    face, stacked, in the colours of the labels. Where the video is a file, `video`, the drawn one sounds as it does,
    from the options' start on, unless they say no audio; otherwise it begins with the first frame. The sound's reader
    calls `watch`.
    """

    def __init__(
        self, path: Path, video: str | Path | None = None, options: Options | None = None, watch: Watch | None = None
    ):
        self.path, self.video, self.options = path, video, options or Options()
        self.last, self._end = -1.0, 0.0
        sound = Sound(video, self.options.start, watch) if video and self.options.audio else None
        self._writer = VideoWriter(path, start=self.options.start if video else None, sound=sound)
        self._strip: np.ndarray | None = None

    def add(self, result: Result) -> None:
        """InputError if it cannot be written; what was written before plays."""
        image = np.asarray(result.plot())
        if self._strip is None or self._strip.shape[1] != image.shape[1]:
            self._strip = np.full((max(16, image.shape[0] // STRIP), image.shape[1], 3), PAPER, np.uint8)
        self._strip[:, :-1] = self._strip[:, 1:]
        self._strip[:, -1] = PAPER
        if result.faces:
            probs = max(result.faces, key=lambda face: area(face.box or (0, 0, 0, 0))).probs
            ends = (np.cumsum([*probs.values()]) * len(self._strip)).round().astype(int)
            colours = np.array([tuple(bytes.fromhex(colour[1:])) for colour in COLOURS], np.uint8)
            number = np.searchsorted(ends, np.arange(len(self._strip)), side="right").clip(max=len(probs) - 1)
            self._strip[:, -1] = colours[number % len(colours)]
        now = result.time or 0.0
        since, thinned = max(0.0, now - self.last), self.options.stride > 1 or self.options.fps is not None
        if result.duration and not thinned:
            self._end = now + result.duration
        else:  # as long as the frame before it, or where none was
            self._end = now + (since if self.last >= 0 else result.duration or 1 / self._writer.rate)
        self.last = now
        self._writer.write(now, np.vstack([image, self._strip]))

    def close(self) -> None:
        """The last frame is shown as long as it is in the video; where frames are left out, up to the next of them."""
        ends = [self._end, self.options.end, duration(self.video) if self.video else None]
        self._writer.close(min(end for end in ends if end is not None))


class Media:
    """A folder of drawn images and videos: `media(result)` adds one and returns its path, or None for an unread one.

    A drawing has its source's place: `a/party.jpg` becomes `a/party_drawn.jpg` below the folder, and `talk.mkv`
    `talk_drawn.mp4`. The place is relative to that of `roots`, or to the working folder, in which the source lies;
    elsewhere it is left out. A name that exists is taken for the same source again, as the file INDEX tells, and
    otherwise becomes `party_drawn-2.jpg`: no source overwrites another's drawing, in this run or a later one. Frames of
    one source, in their order, are one video, with the source's sound if it is a file and `options`, those of the
    prediction, say audio. Close it.
    """

    def __init__(self, folder: str | Path, options: Options | None = None, roots: Sequence[str] = ()):
        self.folder, self.options, self.roots = Path(folder), options, roots
        self._owners: dict[str, str] = {}
        with suppress(OSError, ValueError, TypeError):
            self._owners.update(map(json.loads, (self.folder / INDEX).read_text(encoding="utf-8").splitlines()))
        self._video: tuple[str, DrawnVideo] | None = None

    def __call__(self, result: Result) -> Path | None:
        if result.status == "unreadable":
            return None
        if result.frame is None:
            path, drawn = self._path(result.source, ".jpg"), result.plot()
            with atomic(path) as partial:
                drawn.save(partial, "JPEG", quality=92)
            return path
        if self._video is None or self._video[0] != result.source or (result.time or 0) <= self._video[1].last:
            self.close()
            video = result.source if Path(result.source).is_file() else None
            self._video = result.source, DrawnVideo(self._path(result.source, ".mp4"), video, self.options)
        self._video[1].add(result)
        return self._video[1].path

    def close(self) -> None:
        """End the video that is being written."""
        video, self._video = self._video, None
        if video:
            video[1].close()

    def _path(self, source: str, ending: str) -> Path:
        file = os.path.isfile(source)
        owner = os.path.abspath(source) if file else ""
        name = self._place(owner) if file else re.sub(r"[^\w-]+", "_", source).strip("_")[:80] or "image"
        name = os.path.splitext(name)[0] if file else name
        count, key = 1, f"{name}_drawn{ending}"
        while (known := self._owners.get(key.lower())) is not None or (self.folder / key).exists():
            if file and known == owner:
                return self.folder / key
            count += 1
            key = f"{name}_drawn-{count}{ending}"
        self._owners[key.lower()] = owner
        with suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / INDEX).open("a", encoding="utf-8") as index:
                index.write(json.dumps([key.lower(), owner]) + "\n")
        return self.folder / key

    def _place(self, path: str) -> str:
        """A file's path below the folder of drawings."""
        for root in map(os.path.abspath, (*self.roots, os.curdir)):
            if path.startswith(os.path.join(root, "")):
                return os.path.relpath(path, root)
        return os.path.basename(path)
