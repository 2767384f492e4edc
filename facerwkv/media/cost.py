"""What an image costs to read, told before it is paid: a small file may keep a decoder busy for minutes."""

import struct
from io import BytesIO
from typing import Any

READS = 300_000
"""Pieces that an image in memory may consist of: Pillow reads each with a few calls, half a second in all."""
AGAIN = 8
"""Times that all bytes of an image may be read."""
SCANS = 16
"""Scans that an image of the most pixels may have: a progressive JPEG has about ten. Smaller images may have more."""
SLOW_PIXELS = 4_000_000
"""Pixels that an image may have which Pillow decodes in Python: plain-text PPM and compressed BMP."""
TILES = 4096
_SCAN, _SIZES, _STYLE = b"\xff\xda", b"\xff\x4f\xff\x51", b"\xff\x52"
_JPEG_IN_TIFF = (6, 7)
_COMPRESSION, _STRIPS, _STRIP_TILES = 259, 273, 324


class TooManyPieces(Exception):
    """Reading goes on for longer than any image needs."""


class LimitedFile(BytesIO):
    """An encoded image in memory. TooManyPieces where it is read in too many pieces, or over and over."""

    def __init__(self, data: bytes):
        super().__init__(data)
        self._reads, self._bytes = READS, AGAIN * len(data) + 2**20

    def read(self, size: int | None = -1) -> bytes:
        piece = super().read(size)
        self._reads -= 1
        self._bytes -= len(piece)
        if self._reads < 0 or self._bytes < 0:
            raise TooManyPieces("it consists of more pieces than an image needs; save it anew")
        return piece


def too_costly(image: Any, max_pixels: int) -> str:
    """Why an opened image of at most `max_pixels` would take too long to decode, or ""."""
    pixels, data = image.width * image.height, b""
    if image.format in ("JPEG", "MPO", "JPEG2000") or _is_jpeg_in_tiff(image):
        here = image.fp.tell()
        image.fp.seek(0)
        data = image.fp.read()
        image.fp.seek(here)
    if image.format == "JPEG2000":
        return _too_fine(data)
    strips = 1
    if image.format == "TIFF":
        strips = len(image.tag_v2.get(_STRIPS) or image.tag_v2.get(_STRIP_TILES) or (0,))
    if (scans := data.count(_SCAN)) * pixels > SCANS * max_pixels * strips:
        return f"it has {scans:,} scans; save it anew as a plain JPEG"
    decoder = image.tile[0][0] if image.tile else ""
    if decoder in ("ppm_plain", "bmp_rle") and pixels > SLOW_PIXELS:
        return f"its kind may have {SLOW_PIXELS:,} pixels, and it has {pixels:,}; save it as PNG"
    return ""


def _is_jpeg_in_tiff(image: Any) -> bool:
    return image.format == "TIFF" and image.tag_v2.get(_COMPRESSION) in _JPEG_IN_TIFF


def _too_fine(data: bytes) -> str:
    """Why a JPEG 2000 would take too long: each tile, and each precinct in it, costs as much as many pixels."""
    at = data.find(_SIZES)
    width, height, left, top, tile_width, tile_height = struct.unpack(">6I", data[at + 8 : at + 32])
    tiles = -(-(width - left) // max(1, tile_width)) * -(-(height - top) // max(1, tile_height))
    style = data[data.find(_STYLE, at) :]
    own_precincts, levels = style[4] & 1, style[9]
    small = own_precincts and min((size & 15) + (size >> 4) for size in style[14 : 15 + levels] or b"\0") < 10
    return f"it has {tiles:,} tiles or tiny precincts; save it as JPEG or PNG" if tiles > TILES or small else ""
