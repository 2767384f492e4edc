"""Any image that a person can hand over → one uint8 RGB array."""

import re
import threading
from contextlib import nullcontext, suppress
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image, ImageFile, ImageOps

from facerwkv.core.errors import InputError

MAX_PIXELS = 100_000_000
"""Larger images are refused from their header, before a pixel is decoded."""

FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")
ANIMATED = frozenset({".gif", ".webp", ".png", ".apng", ".avif"})
"""The endings of images that may be animations."""
_MARKS = {"GIF": (0, b"GIF8"), "WEBP": (8, b"WEBP"), "PNG": (0, b"\x89PNG"), "AVIF": (4, b"ftypavi")}
# Pillow reads an image's pixels and EXIF when they are first asked for; two threads that ask at once get neither.
_LOADING = [threading.Lock() for _ in range(64)]
_ORIENTATION = 0x0112
_JPEG_END, _JPEG_SCAN = b"\xff\xd9", b"\xff\xda"
_DAMAGE = re.compile(rb"\xff[^\x00\xd0-\xd7\xd9\xff]")  # no marker that may stand in a scan

Channels = Literal["rgb", "bgr"]


@cache
def endings() -> tuple[str, ...]:
    """The endings of the files that are taken from a folder as images, in lower case: ".jpg", ".png", ..."""
    return tuple(ending for ending, kind in Image.registered_extensions().items() if kind in FORMATS)


class UnreadableImage(InputError):
    """One image cannot be read: the message names it and says why."""


ImageSource = str | Path | bytes | Image.Image | np.ndarray


class NamedImage(NamedTuple):
    """An image and what it is called in results and messages."""

    name: str
    data: ImageSource


def open_image(
    source: ImageSource, channels: Channels = "rgb", name: str = "", max_pixels: int = MAX_PIXELS
) -> np.ndarray:
    """Read an image as uint8 (H, W, 3), RGB, upright.

    A file is judged by its content, not its extension. Its EXIF rotation is applied; of an animation the first frame
    counts; transparency lies over white; grey is repeated, 16-bit values are scaled, CMYK and palettes converted.
    An array is uint8 (H, W) or (H, W, 3), in the order that `channels` says; files and PIL images know their own.
    Messages use `name` for an image that is no file. Raises UnreadableImage.
    """
    name = name or (str(source) if isinstance(source, str | Path) else "") or "The given image"
    if channels not in ("rgb", "bgr"):
        raise InputError(f'channels={channels!r} is not known: write "rgb" or "bgr".')
    if isinstance(source, np.ndarray):
        return _from_array(source, channels, name)
    if not isinstance(source, str | Path | bytes | Image.Image):
        raise UnreadableImage(
            f"{name} is of type {type(source).__name__}; give a path, bytes, a PIL image or a uint8 array (H, W, 3)."
        )
    image = source if isinstance(source, Image.Image) else _open(source, name)
    with nullcontext() if image is source else image:
        width, height = image.size
        if width * height > max_pixels:
            raise UnreadableImage(
                f"{name} cannot be read: it has {width} x {height} pixels, more than the {max_pixels:,} that are "
                "allowed. Make it smaller first."
            )
        plain = _decode_plain_jpeg(image) if image is not source else None
        if plain is not None:
            return plain
        try:
            with _LOADING[id(image) // 16 % len(_LOADING)] if image is source else nullcontext():
                image.load()
                if _turned(image):
                    with suppress(Exception):
                        image = ImageOps.exif_transpose(image)
            return np.array(_to_rgb(image))
        except Exception as error:  # decoders fail on damaged data in every way there is
            raise UnreadableImage(f"{name} cannot be read: its data is damaged or cut short ({error}).") from error


def animation_kind(path: str | Path) -> str | None:
    """Which of the kinds that may be animated a file is, by its first bytes; None for every other file."""
    try:
        with open(path, "rb") as file:
            first = file.read(12)
    except OSError:
        return None
    return next((kind for kind, (at, mark) in _MARKS.items() if first[at:].startswith(mark)), None)


def is_animation(path: str | Path) -> bool:
    """Whether a file is an image with several frames."""
    kind = animation_kind(path)
    try:
        if kind:
            with Image.open(path, formats=[kind]) as image:
                return bool(getattr(image, "is_animated", False))
    except Exception:  # what is wrong with it is said when it is read as an image
        pass
    return False


def _turned(image: Image.Image) -> bool:
    try:
        return image.getexif().get(_ORIENTATION, 1) != 1
    except Exception:  # damaged EXIF must not cost the image
        return False


def _open(source: str | Path | bytes, name: str) -> ImageFile.ImageFile:
    """Read the header. Formats that start other programs (EPS) or have no mark of their own (TGA) are not tried."""
    Image.init()
    formats = [each for each in FORMATS if each in Image.OPEN]
    try:
        return Image.open(BytesIO(source) if isinstance(source, bytes) else source, formats=formats)
    except Image.UnidentifiedImageError:
        size = len(source) if isinstance(source, bytes) else Path(source).stat().st_size
        reason = f"its content is none of the known formats ({', '.join(FORMATS)})" if size else "it is empty"
    except Image.DecompressionBombError:
        reason = f"it has more than the {MAX_PIXELS:,} pixels that are allowed. Make it smaller first"
    except FileNotFoundError:
        reason = "there is no such file"
    except IsADirectoryError:
        reason = "it is a folder"
    except OSError as error:
        reason = error.strerror or str(error)
    except Exception as error:
        reason = f"its header is damaged ({error})"
    raise UnreadableImage(f"{name} cannot be read: {reason}.")


def _decode_plain_jpeg(image: Image.Image) -> np.ndarray | None:
    """The very pixels that Pillow gives, without its copies; None unless it is a whole, upright JPEG in RGB or grey."""
    file = getattr(image, "fp", None)
    if file is None or image.format != "JPEG" or image.mode not in ("RGB", "L") or _turned(image):
        return None
    file.seek(0)
    data = file.read()
    if data[-2:] != _JPEG_END or _DAMAGE.search(data, data.rfind(_JPEG_SCAN) + 2):
        return None  # cut short or damaged, which OpenCV would fill with grey, or something behind it
    import cv2

    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:  # as when it returns None: Pillow has the last word
        return None


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("32-bit pixels have no agreed range; save it with 8 or 16 bits")
        return Image.fromarray(((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point pixels have no agreed range; save it with 8 or 16 bits")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def _from_array(array: np.ndarray, channels: Channels, name: str) -> np.ndarray:
    grey = array.ndim == 2
    if array.dtype != np.uint8 or not (grey or (array.ndim == 3 and array.shape[2] == 3)) or array.size == 0:
        raise UnreadableImage(
            f"{name} is {array.dtype} {array.shape}; wanted is uint8 (H, W, 3) with values 0 to 255, or uint8 (H, W)."
        )
    if grey:
        return np.repeat(array[:, :, None], 3, axis=2)
    return np.ascontiguousarray(array[:, :, ::-1]) if channels == "bgr" else array
