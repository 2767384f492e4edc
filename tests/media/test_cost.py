"""Small files that would keep a decoder busy for long are refused before; what people have is read."""

import struct
import time
import zlib
from io import BytesIO

import pytest
from PIL import Image

from facerwkv.media.cost import READS
from facerwkv.media.images import UnreadableImage, open_image

MiB = 2**20
PIECES = "it consists of more pieces than an image needs; save it anew."


def encoded(kind: str, size=(64, 48), **options) -> bytes:
    file = BytesIO()
    Image.new("RGB", size, "grey").save(file, kind, **options)
    return file.getvalue()


def chunk(name: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def scanned(size: tuple[int, int], scans: int) -> bytes:
    """A progressive JPEG whose last scan is there again and again."""
    data = encoded("JPEG", size, progressive=True)
    last = data[data.rfind(b"\xff\xda") : -2]
    return data[:-2] + last * (scans - data.count(b"\xff\xda")) + data[-2:]


def rle_bmp(width: int, height: int) -> bytes:
    """Eight bits, run-length encoded."""
    data = (b"\x7d\x00" * (width // 125) + b"\0\0") * height + b"\0\1"
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(data), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 1078 + len(data), 0, 0, 1078) + head + bytes(1024) + data


def plain_ppm(width: int, height: int) -> bytes:
    return f"P3 {width} {height} 255\n".encode() + b"1 " * (3 * width * height)


PNG, JPEG, GIF = encoded("PNG"), encoded("JPEG"), encoded("GIF")
PALETTE_END = 13 + 3 * 2 ** ((GIF[10] & 7) + 1)
COSTLY = {
    "a JPEG of 295 kB with 1,000 scans": (scanned((6300, 6300), 1000), "it has 1,000 scans; save it anew as a plain"),
    "a JPEG with scans in thousands": (scanned((1000, 1000), 3000), "it has 3,000 scans; save it anew as a plain"),
    "a JPEG full of markers": (JPEG[:2] + b"\xff\xe1\0\2" * READS + JPEG[2:], PIECES),
    "a JPEG full of padding": (JPEG[:2] + b"\xff" * 3 * READS + JPEG[2:], PIECES),
    "a PNG full of chunks": (PNG[:33] + chunk(b"abCd") * READS + PNG[33:], PIECES),
    "a PNG in tiny pieces": (PNG[:33] + chunk(b"IDAT") * READS + PNG[33:], PIECES),
    "a GIF full of comments": (
        GIF[:PALETTE_END] + b"\x21\xfe\x03abc\x00" * READS + GIF[PALETTE_END:],
        PIECES,
    ),
    "a PPM full of comments": (b"P3\n" + b"#a\n" * READS + b"1 1 255 1 1 1", PIECES),
    "a large plain PPM": (plain_ppm(2500, 1601), "its kind may have 4,000,000 pixels, and it has 4,002,500"),
    "a large BMP in runs": (rle_bmp(4000, 1001), "its kind may have 4,000,000 pixels, and it has 4,004,000"),
    "a JPEG 2000 in tiny tiles": (
        encoded("JPEG2000", (640, 640), tile_size=(8, 8), num_resolutions=1),
        "it has 6,400 tiles",
    ),
    "a JPEG 2000 in tiny precincts": (encoded("JPEG2000", precinct_size=(8, 8)), "it has 1 tiles or tiny precincts"),
}


@pytest.mark.parametrize("name", COSTLY)
def test_what_costs_too_much_is_refused_soon(name):
    data, sentence = COSTLY[name]
    assert len(data) < 32 * MiB
    started = time.process_time()
    with pytest.raises(UnreadableImage) as refused:
        open_image(data, name=name, max_pixels=40_000_000)
    assert str(refused.value).startswith(f"{name} cannot be read: {sentence}")
    assert time.process_time() - started < 3


@pytest.mark.parametrize(
    "data",
    [
        encoded("JPEG", (4000, 3000), progressive=True, quality=95),
        scanned((640, 480), 200),
        encoded("TIFF", (1000, 1000), compression="jpeg"),
        encoded("JPEG2000", (1000, 1000)),
        encoded("JPEG2000", (1000, 1000), tile_size=(256, 256)),
        rle_bmp(500, 400),
        plain_ppm(50, 40),
    ],
    ids=["progressive", "many scans", "TIFF of JPEGs", "JPEG 2000", "tiles", "BMP in runs", "plain PPM"],
)
def test_what_people_have_is_read(data):
    with Image.open(BytesIO(data)) as image:
        assert open_image(data, max_pixels=40_000_000).shape == (image.height, image.width, 3)
