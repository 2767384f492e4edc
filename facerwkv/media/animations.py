"""Animated GIF, WebP, PNG and AVIF → frames, through Pillow: it knows them all, and which pixels of a frame remain."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from facerwkv.media.container import UnreadableVideo, check_size
from facerwkv.media.images import open_image

_SHORTEST, _USUAL = 0.011, 0.1
"""Seconds: a frame that says less than the first is shown for the second, as browsers do."""


class Shown(NamedTuple):
    """A frame, its `time` from the start and its `duration`, in seconds."""

    time: float
    duration: float
    rgb: np.ndarray


def animation_frames(path: str | Path, name: str, kind: str) -> Iterator[Shown]:
    """Each frame as it is shown, transparency over white. UnreadableVideo, after those before, where one is damaged."""
    time, count, last = 0.0, 0, None
    try:
        with Image.open(path, formats=[kind]) as image:
            check_size(*image.size, name)
            total = None if kind == "GIF" else getattr(image, "n_frames", 1)  # a GIF would be read to its end for it
            number = int(bool(image.info.get("default_image")))  # a PNG's for those who show no animation
            while total is None or number < total:
                try:
                    image.seek(number)
                except EOFError:
                    break
                rgb = open_image(image.copy(), name=name)
                duration = float(image.info.get("duration") or 0) / 1000
                duration = duration if duration >= _SHORTEST else _USUAL
                yield Shown(time, duration, rgb)
                time, number, count = time + duration, number + 1, count + 1
        cut = kind == "GIF" and not Path(path).read_bytes().rstrip(b"\0\r\n ").endswith(b";")
    except UnreadableVideo:
        raise
    except Exception as error:  # decoders fail on damaged data in every way there is
        last, cut = error, True
    if cut and count:
        why = "it is damaged or cut short"
        raise UnreadableVideo(f"{name} stops at {time:.1f} s: {why}. What came before is kept.") from last
    if cut:
        raise UnreadableVideo(f"{name} cannot be read: it is damaged or cut short.") from last
