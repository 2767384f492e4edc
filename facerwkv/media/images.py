"""Any image that a person or a program can hand over → one uint8 RGB array."""

import inspect
import logging
import math
import os
import re
import threading
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

import numpy as np
from PIL import Image, ImageFile, ImageOps

from facerwkv.core.errors import InputError
from facerwkv.media.arrays import Channels, array_to_rgb, is_array, over_white, scaled_16_bits
from facerwkv.media.cost import LimitedFile, TooManyPieces, too_costly

MAX_PIXELS = 100_000_000
"""Larger images are refused from their header, before a pixel is decoded."""

FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")
"""Of Pillow's own, those that start no other program (as EPS does) and have a mark of their own (as TGA has not)."""
MOST_FETCHED, FETCH_SECONDS = 50_000_000, 15
"""Bytes of a picture on the web, and seconds that its server may be silent."""
HEIF_ENDINGS = (".heic", ".heif", ".hif")
logger = logging.getLogger("facerwkv")
_HEIF = re.compile(rb"....ftyp(hei[cxms]|hev[cmsx]|mif1|msf1)", re.DOTALL)
ANIMATED = frozenset({".gif", ".webp", ".png", ".apng", ".avif"})
"""The endings of images that may be animations."""
_MARKS = {"GIF": (0, b"GIF8"), "WEBP": (8, b"WEBP"), "PNG": (0, b"\x89PNG"), "AVIF": (4, b"ftypavi")}
# Pillow reads an image's pixels and EXIF when they are first asked for; two threads that ask at once get neither.
_HEADERS = threading.Lock()
_LOADING = [threading.Lock() for _ in range(64)]
_ORIENTATION = 0x0112
_JPEG_END, _JPEG_SCAN = b"\xff\xd9", b"\xff\xda"
_DAMAGE = re.compile(rb"\xff[^\x00\xd0-\xd7\xd9\xff]")  # no marker that may stand in a scan


def formats() -> list[str]:
    """The formats that are read: FORMATS, as far as this Pillow has them, and those of plugins, pillow-heif say."""
    Image.init()
    return [
        name
        for name, (read, _) in Image.OPEN.items()
        if name in FORMATS or not getattr(read, "__module__", "").startswith("PIL.")
    ]


def endings() -> tuple[str, ...]:
    """The endings of the files that are taken from a folder as images, in lower case: ".jpg", ".png", ..."""
    known = formats()
    return (*(ending for ending, kind in Image.registered_extensions().items() if kind in known), *HEIF_ENDINGS)


def is_image_url(source: object) -> bool:
    """Whether a source is a picture's address on the web, by the ending of its path."""
    if not isinstance(source, str) or not source.lower().startswith(("http://", "https://")):
        return False
    return source.partition("?")[0].partition("#")[0].lower().endswith(endings())


class UnreadableImage(InputError):
    """One image cannot be read: the message names it and says why."""


class _NoRange(ValueError):
    """Nobody knows what these pixels mean."""


class Readable(Protocol):
    """An open file or an upload."""

    def read(self) -> Any: ...


ImageSource = str | os.PathLike | bytes | bytearray | memoryview | Image.Image | np.ndarray | Readable
"""One image: a path, encoded bytes, a file that is open, a PIL image, an array or a tensor."""
TYPES = (
    "give a path, bytes, a file opened with 'rb', a PIL image, a tensor or an array such as uint8 (H, W, 3); several "
    "of them as a list"
)


class NamedImage(NamedTuple):
    """An image and what it is called in results and messages."""

    name: str
    data: ImageSource


def name_of(source: object, index: int = 0) -> str:
    """The file that an image was read from or uploaded as, where it knows one; otherwise its kind and number."""
    names = (getattr(source, name, None) for name in ("filename", "name"))
    kinds = {"image": isinstance(source, Image.Image), "array": is_array(source)}
    kinds |= {"bytes": hasattr(source, "read") or is_buffer(source), "source": True}
    kind = next(kind for kind, fits in kinds.items() if fits)
    return next((name for name in names if isinstance(name, str) and name), f"{kind} {index}")


def open_image(
    source: ImageSource, channels: Channels = "rgb", name: str = "", max_pixels: int = MAX_PIXELS
) -> np.ndarray:
    """Read an image as uint8 (H, W, 3), RGB, upright.

    A file is judged by its content, not its extension, and read from its start. Its EXIF rotation is applied; of an
    animation the first frame counts; transparency lies over white; grey is repeated, 16-bit values are scaled, CMYK and
    palettes converted. Arrays and tensors are uint8, uint16, bool or float in 0..1, (H, W), (H, W, c) or (c, H, W), in
    the order that `channels` says; files and PIL images know their own. Messages use `name` for an image that is no
    file. Raises UnreadableImage.
    """
    return open_reduced(source, channels, name, max_pixels)[0]


def open_reduced(
    source: ImageSource, channels: Channels = "rgb", name: str = "", max_pixels: int = MAX_PIXELS, least: int = 0
) -> tuple[np.ndarray, tuple[int, int]]:
    """As `open_image`, and the image's whole width and height.

    A file in JPEG is decoded at a half, a quarter or an eighth of its size, which takes less time and memory, as long
    as its longer side keeps `least` pixels; 0: at its own.
    """
    name = name or (os.fsdecode(source) or "''" if isinstance(source, str | os.PathLike) else "The given image")
    if channels not in ("rgb", "bgr"):
        raise InputError(f'channels={channels!r} is not known: write "rgb" or "bgr".')
    data = _content(source, name)
    if isinstance(data, Image.Image):
        rgb = _decoded(data, name, max_pixels, lent=True)
    elif isinstance(data, str | Path | bytes):
        with _open(data, name) as image:
            width, height = image.size
            rgb = _decoded(image, name, max_pixels, lent=False, least=least)
            upright = image.size == (rgb.shape[1], rgb.shape[0])
            return rgb, (width, height) if upright else (height, width)
    else:
        try:
            rgb = array_to_rgb(data, channels, name)
        except ValueError as error:
            raise UnreadableImage(str(error)) from error
    return rgb, (rgb.shape[1], rgb.shape[0])


def _content(source: Any, name: str) -> Any:
    """A path, encoded bytes, a PIL image or an array."""
    if isinstance(source, os.PathLike):
        return Path(os.fsdecode(source))
    if isinstance(source, str) and is_image_url(source):
        return _fetched(source)
    if isinstance(source, str) and source.lower().startswith("file://"):
        from urllib.request import url2pathname

        return Path(url2pathname(urlsplit(source).path))
    if isinstance(source, str | bytes | Image.Image):
        return source
    if is_array(source):  # OpenCV encodes into an array with one dimension
        encoded = isinstance(source, np.ndarray) and source.ndim == 1 and source.dtype == np.uint8
        return source.tobytes() if encoded else source
    if is_buffer(source):
        return bytes(source)
    file = (
        source.file
        if inspect.iscoroutinefunction(getattr(source, "read", None)) and hasattr(source, "file")
        else source
    )
    if not hasattr(file, "read"):
        advice = ": OpenCV's answer for a file that it cannot read" if source is None else ""
        raise UnreadableImage(f"{name} is of type {type(source).__name__}{advice}; {TYPES}.")
    with suppress(Exception):  # a pipe: what is left of it is read; a closed file: reading says so
        if file.seekable():
            file.seek(0)
    try:
        data = file.read()
    except (OSError, ValueError) as error:
        raise UnreadableImage(f"{name} cannot be read: {error}.") from error
    except Exception as error:  # anything may have something of that name
        raise UnreadableImage(f"{name} is of type {type(source).__name__} and no file ({error}); {TYPES}.") from error
    if inspect.iscoroutine(data):
        data.close()
    if not isinstance(data, bytes | bytearray | memoryview):
        raise UnreadableImage(f"{name} gives {type(data).__name__} when it is read, not bytes; {TYPES}.")
    return bytes(data)


def _fetched(address: str) -> bytes:
    """What an address answers, MOST_FETCHED bytes at most; a warning says so before."""
    import http.client
    import urllib.request

    logger.warning("Fetching %s, %d MB at most.", address, MOST_FETCHED // 10**6)
    try:
        request = urllib.request.Request(address, headers={"User-Agent": "facerwkv"})
        with urllib.request.urlopen(request, timeout=FETCH_SECONDS) as answer:
            data = answer.read(MOST_FETCHED + 1)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise UnreadableImage(f"{address} cannot be fetched: {error}.") from error
    if len(data) > MOST_FETCHED:
        raise UnreadableImage(f"{address} cannot be read: it has more than {MOST_FETCHED:,} bytes. Download it first.")
    return data


def is_buffer(source: object) -> bool:
    """Whether a source holds bytes: bytearray, memoryview, mmap, array.array."""
    try:
        with memoryview(source):  # type: ignore[arg-type]
            return True
    except TypeError:
        return False


def _decoded(image: Image.Image, name: str, max_pixels: int, lent: bool, least: int = 0) -> np.ndarray:
    """The pixels of an opened image; of a `lent` one, which other threads may read too, one thread at a time."""
    width, height = image.size
    if width * height > max_pixels:
        raise UnreadableImage(
            f"{name} cannot be read: it has {width} x {height} pixels, more than the {max_pixels:,} that are "
            "allowed (max_pixels). Make it smaller first."
        )
    try:
        if not lent and (why := too_costly(image, max_pixels)):
            raise UnreadableImage(f"{name} cannot be read: {why}.")
        scale = least / max(width, height)
        reduced = 0 < scale <= 0.5 and image.draft(None, (math.ceil(width * scale), math.ceil(height * scale)))
        plain = None if lent or reduced else _decode_plain_jpeg(image)
        if plain is not None:
            return plain
        with _LOADING[id(image) // 16 % len(_LOADING)] if lent else nullcontext():
            image.load()
            if _turned(image):
                with suppress(Exception):
                    image = ImageOps.exif_transpose(image)
        return _to_rgb(image)
    except UnreadableImage:
        raise
    except (TooManyPieces, _NoRange) as error:
        raise UnreadableImage(f"{name} cannot be read: {error}.") from error
    except Exception as error:  # decoders fail on damaged data in every way there is
        raise UnreadableImage(f"{name} cannot be read: its data is damaged or cut short ({error}).") from error


def _reads_heif() -> bool:
    """Whether Pillow reads HEIF from now on."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


def _start(path: str | Path) -> bytes:
    """A file's first bytes, none where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(12)
    except OSError:
        return b""


def animation_kind(path: str | Path) -> str | None:
    """Which of the kinds that may be animated a file is, by its first bytes; None for every other file."""
    first = _start(path)
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
    """Read the header."""
    known = formats()
    try:
        with _HEADERS:  # Pillow's own limit warns and fails earlier; the size is compared with ours right behind this
            before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            try:
                return Image.open(LimitedFile(source) if isinstance(source, bytes) else source, formats=known)
            finally:
                Image.MAX_IMAGE_PIXELS = before
    except Image.UnidentifiedImageError:
        start = source[:12] if isinstance(source, bytes) else _start(source)
        reason = f"its content is none of the known formats ({', '.join(FORMATS)})" if start else "it is empty"
        if _HEIF.match(start) and "HEIF" not in formats():
            if _reads_heif():
                return _open(source, name)
            reason = 'it is HEIF, which needs pillow-heif: pip install "facerwkv[heif]"'
    except FileNotFoundError:
        scheme = re.match(r"(?!file:)[a-z][a-z0-9+.-]+:(?=//)|data:", str(source), re.IGNORECASE)
        advice = f"; an address that begins with {scheme[0]} is not fetched, download it first" if scheme else ""
        reason = f"there is no such file{advice}"
    except IsADirectoryError:
        reason = "it is a folder"
    except OSError as error:
        reason = error.strerror or str(error)
    except TooManyPieces as error:
        reason = str(error)
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
    try:
        import cv2
    except ImportError:
        return None
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:  # as when it returns None: Pillow has the last word
        return None


def _to_rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("32-bit pixels have no agreed range; save it with 8 or 16 bits")
        return np.repeat(scaled_16_bits(values)[:, :, None], 3, axis=2)
    if image.mode == "F":
        raise _NoRange("floating-point pixels have no agreed range; save it with 8 or 16 bits")
    return over_white(image) if image.has_transparency_data else np.array(image.convert("RGB"))
