import array
import io
import os
import struct
import sys
import threading
import warnings
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from PIL import Image

from facerwkv.core.errors import InputError
from facerwkv.media.images import MAX_PIXELS, UnreadableImage, is_image_url, open_image

RED, WHITE = (255, 0, 0), (255, 255, 255)


def corners() -> np.ndarray:
    """uint8 (4, 6, 3): red and blue over green and black, so that every turn and flip shows."""
    image = np.zeros((4, 6, 3), np.uint8)
    image[:2, :3, 0] = image[:2, 3:, 2] = image[2:, :3, 1] = 255
    return image


def encoded(image: Image.Image, form: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def png(width: int, height: int) -> bytes:
    """A file of a hundred bytes that claims a size, with the pixels of one row."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


DOORS = {
    "path": lambda path: path,
    "str": str,
    "bytes": lambda path: path.read_bytes(),
    "PIL": Image.open,
    "array": lambda path: np.asarray(Image.open(path)),
}


@pytest.mark.parametrize("door", DOORS)
def test_every_door_gives_the_same_rgb(door, tmp_path):
    Image.fromarray(corners()).save(tmp_path / "a.png")
    image = open_image(DOORS[door](tmp_path / "a.png"))
    assert image.dtype == np.uint8
    assert np.array_equal(image, corners())


def test_bgr_turns_arrays_and_nothing_else(tmp_path):
    Image.fromarray(corners()).save(tmp_path / "a.png")
    assert np.array_equal(open_image(corners()[:, :, ::-1], channels="bgr"), corners())
    assert np.array_equal(open_image(tmp_path / "a.png", channels="bgr"), corners())


def test_unknown_channels_are_an_error():
    with pytest.raises(InputError, match=r"channels='rbg' is not known: write \"rgb\" or \"bgr\""):
        open_image(corners(), channels="rbg")


def test_grey_arrays_are_repeated():
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3)
    assert np.array_equal(open_image(grey), np.stack([grey] * 3, axis=2))


STORED = {  # orientation → how a camera that writes it has turned the upright image
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("orientation", STORED)
def test_exif_rotation_is_applied(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(corners()).transpose(STORED[orientation])
    assert np.array_equal(open_image(encoded(stored, exif=exif)), corners())


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_does_not_cost_the_image():
    assert open_image(encoded(Image.fromarray(corners()), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")).shape == (
        4,
        6,
        3,
    )


def waves(height: int = 61, width: int = 90) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    return Image.fromarray((127 + 90 * np.sin(np.stack([x / 7, y / 5, (x + y) / 9], 2))).astype(np.uint8))


JPEGS = {
    "halved colours": encoded(waves(), "JPEG"),
    "whole colours": encoded(waves(), "JPEG", subsampling=0, quality=100),
    "stored as RGB": encoded(waves(), "JPEG", keep_rgb=True),
    "progressive": encoded(waves(), "JPEG", progressive=True),
    "grey": encoded(waves().convert("L"), "JPEG"),
    "CMYK": encoded(waves().convert("CMYK"), "JPEG"),
    "something behind it": encoded(waves(), "JPEG") + b"\0\0",
    "cut, with an end": encoded(waves(), "JPEG")[:1500] + b"\xff\xd9",
}


@pytest.mark.parametrize("form", JPEGS)
def test_a_jpeg_is_read_as_pillow_reads_it(form):
    image = open_image(JPEGS[form])
    assert np.array_equal(image, np.asarray(Image.open(io.BytesIO(JPEGS[form])).convert("RGB")))
    assert image.flags.c_contiguous
    assert image.flags.writeable


@pytest.mark.parametrize("missing", [(), ("cv2",), ("cv2", "torchvision", "torchvision.io")])
def test_a_jpeg_needs_pillow_alone_and_nobody_is_warned(missing, monkeypatch):
    for name in missing:
        monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = open_image(JPEGS["halved colours"])
    assert np.array_equal(image, np.asarray(Image.open(io.BytesIO(JPEGS["halved colours"])).convert("RGB")))


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"


def test_heif_needs_an_extra_and_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(UnreadableImage, match=r'it is HEIF, which needs pillow-heif: pip install "facerwkv\[heif\]"'):
        open_image(HEIC)


def test_heif_is_read_with_the_extra():
    pillow_heif = pytest.importorskip("pillow_heif")
    file = io.BytesIO()
    pillow_heif.from_pillow(Image.new("RGB", (64, 48), RED)).save(file)
    assert np.abs(open_image(file.getvalue()).astype(int) - RED).max() < 9


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        found = self.path.startswith("/x.png")
        self.send_response(200 if found else 404)
        self.end_headers()
        self.wfile.write(PNG if found else b"")

    def log_message(self, *_):
        pass


def test_a_picture_s_address_is_a_picture(monkeypatch, caplog):
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        assert np.array_equal(open_image(f"{address}/x.png?size=6"), corners())
        assert caplog.messages == [f"Fetching {address}/x.png?size=6, 50 MB at most."]
        with pytest.raises(UnreadableImage, match=r"/gone\.png cannot be fetched: HTTP Error 404"):
            open_image(f"{address}/gone.png")
        monkeypatch.setattr("facerwkv.media.images.MOST_FETCHED", 9)
        with pytest.raises(UnreadableImage, match=r"has more than 9 bytes\. Download it first"):
            open_image(f"{address}/x.png")
        server.shutdown()
    assert [*map(is_image_url, ("http://h/a.JPG#1", "https://h/a.mp4", "http://h/", "a.jpg"))] == [
        True,
        False,
        False,
        False,
    ]


MODES = {
    "CMYK": (Image.new("CMYK", (2, 2), (0, 255, 255, 0)), "TIFF", RED),
    "grey": (Image.new("L", (2, 2), 90), "PNG", (90, 90, 90)),
    "two levels": (Image.new("1", (2, 2), 1), "PNG", WHITE),
    "half transparent": (Image.new("RGBA", (2, 2), (255, 0, 0, 51)), "PNG", (255, 204, 204)),
    "transparent grey": (Image.new("LA", (2, 2), (0, 0)), "PNG", WHITE),
    "16 bits": (Image.fromarray(np.full((2, 2), 25700, np.uint16)), "PNG", (100, 100, 100)),
    "16 bits, white": (Image.fromarray(np.full((2, 2), 65535, np.uint16)), "TIFF", WHITE),
    "YCbCr": (Image.new("RGB", (8, 8), RED).convert("YCbCr"), "JPEG", (254, 0, 0)),
}


@pytest.mark.parametrize("mode", MODES)
def test_modes_become_rgb(mode):
    image, form, colour = MODES[mode]
    assert tuple(open_image(encoded(image, form))[0, 0]) == colour
    assert tuple(open_image(image)[0, 0]) == colour


def test_16_bits_are_scaled_not_clipped():
    ramp = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)
    assert np.array_equal(open_image(encoded(Image.fromarray(ramp)))[:, :, 0].ravel(), np.arange(256))


def test_palettes_with_transparency_lie_over_white():
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    assert open_image(encoded(image, transparency=1))[0].tolist() == [list(RED), list(WHITE)]


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_counts(form):
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, (0, 0, 255))]
    options = {"lossless": True} if form == "WEBP" else {}
    image = open_image(encoded(frames[0], form, save_all=True, append_images=frames[1:], **options))
    assert tuple(image[4, 4]) == RED


def test_the_content_decides_not_the_extension(tmp_path):
    Image.fromarray(corners()).save(tmp_path / "a.jpg", "PNG")
    assert np.array_equal(open_image(tmp_path / "a.jpg"), corners())


@pytest.fixture
def broken(tmp_path):
    whole = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)), "JPEG")
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "cut.png").write_bytes(encoded(Image.fromarray(corners()))[:50])
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.png").write_text("no image at all")
    (tmp_path / "page.ps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "bomb.png").write_bytes(png(30_000, 30_000))
    (tmp_path / "large.png").write_bytes(png(10_001, 10_000))
    Image.fromarray(np.ones((2, 2), np.float32)).save(tmp_path / "float.tiff")
    return tmp_path


REASONS = {
    "cut.jpg": "its data is damaged or cut short",
    "cut.png": "its data is damaged or cut short",
    "empty.jpg": "it is empty",
    "text.png": "its content is none of the known formats (JPEG, ",
    "page.ps": "its content is none of the known formats",
    "folder.png": "it is a folder",
    "gone.png": "there is no such file",
    "bomb.png": f"it has 30000 x 30000 pixels, more than the {MAX_PIXELS:,} that are allowed (max_pixels). Make it",
    "large.png": f"it has 10001 x 10000 pixels, more than the {MAX_PIXELS:,} that are allowed (max_pixels). Make it",
    "float.tiff": r"float.tiff cannot be read: floating-point pixels have no agreed range",
}


@pytest.mark.parametrize("file", REASONS)
@pytest.mark.filterwarnings("error::PIL.Image.DecompressionBombWarning")
def test_a_bad_file_is_named_with_the_reason(file, broken):
    with pytest.raises(UnreadableImage) as error:
        open_image(broken / file)
    assert str(error.value).startswith(f"{broken / file} cannot be read: ")
    assert REASONS[file] in str(error.value)


@pytest.mark.parametrize("file", ["cut.jpg", "empty.jpg", "text.png"])
def test_bad_bytes_are_refused_too(file, broken):
    with pytest.raises(UnreadableImage, match=r"^The given image cannot be read: "):
        open_image((broken / file).read_bytes())


RGBA = np.dstack([corners(), np.full((4, 6), 255, np.uint8)])
GREY = np.arange(24, dtype=np.uint8).reshape(4, 6) * 10
EXACT = {  # an array or a tensor → what it shows
    "RGBA": (RGBA, corners()),
    "transparent": (RGBA * np.array([1, 1, 1, 0], np.uint8), np.full((4, 6, 3), 255, np.uint8)),
    "float": (corners() / 255, corners()),
    "float16": ((corners() / 255).astype(np.float16), corners()),
    "16 bits": (corners().astype(np.uint16) * 257, corners()),
    "big-endian": ((corners().astype(np.uint16) * 257).astype(">u2"), corners()),
    "bool": (corners() > 0, corners()),
    "one channel": (GREY[:, :, None], np.dstack([GREY] * 3)),
    "planes first": (corners().transpose(2, 0, 1), corners()),
    "black": (np.zeros((4, 6, 3), np.uint16), np.zeros((4, 6, 3), np.uint8)),
    "tensor (3, H, W)": (torch.from_numpy(corners()).permute(2, 0, 1), corners()),
    "tensor (3, H, 3)": (torch.from_numpy(corners()[:, :3]).permute(2, 0, 1), corners()[:, :3]),
    "tensor (H, W, 3)": (torch.from_numpy(np.tile(corners(), (2, 1, 1))), np.tile(corners(), (2, 1, 1))),
    "float tensor": (torch.from_numpy(corners()).permute(2, 0, 1) / 255, corners()),
    "bfloat16, with a gradient": (
        (torch.from_numpy(corners()).permute(2, 0, 1) / 255).bfloat16().requires_grad_(),
        corners(),
    ),
    "grey tensor (1, H, W)": (torch.from_numpy(GREY)[None], np.dstack([GREY] * 3)),
    "encoded, as OpenCV does": (np.frombuffer(encoded(Image.fromarray(corners())), np.uint8), corners()),
}


@pytest.mark.parametrize("kind", EXACT)
def test_arrays_and_tensors_are_converted_where_they_mean_one_thing(kind):
    source, shown = EXACT[kind]
    image = open_image(source)
    assert np.array_equal(image, shown)
    assert (image.dtype, image.flags.c_contiguous) == (np.uint8, True)


def test_bgr_turns_the_colours_of_every_kind_of_array():
    for kind in ("RGBA", "float", "tensor (3, H, W)"):
        source, _ = EXACT[kind]
        assert np.array_equal(open_image(source, channels="bgr"), corners()[:, :, ::-1]), kind


PNG = encoded(Image.fromarray(corners()))


class Upload:
    """As FastAPI's: `read` must be awaited, and `file` is the file."""

    filename = "party.png"

    def __init__(self, data: bytes):
        self.file = io.BytesIO(data)

    async def read(self) -> bytes:
        return self.file.read()


def read_to_its_end() -> io.BytesIO:
    file = io.BytesIO(PNG)
    file.read()
    return file


HELD = {
    "BytesIO": lambda path: io.BytesIO(PNG),
    "read before": lambda path: read_to_its_end(),
    "open file": lambda path: path.open("rb"),
    "upload": lambda path: Upload(PNG),
    "bytearray": lambda path: bytearray(PNG),
    "memoryview": lambda path: memoryview(PNG),
    "array.array": lambda path: array.array("B", PNG),
    "DirEntry": lambda path: next(os.scandir(path.parent)),
    "DirEntry of bytes": lambda path: next(os.scandir(os.fsencode(path.parent))),
}


@pytest.mark.parametrize("kind", HELD)
def test_whatever_holds_an_encoded_image_is_read(kind, tmp_path):
    (tmp_path / "a.png").write_bytes(PNG)
    source = HELD[kind](tmp_path / "a.png")
    assert np.array_equal(open_image(source), corners())


def test_a_closed_file_is_a_sentence():
    file = io.BytesIO(PNG)
    file.close()
    with pytest.raises(UnreadableImage, match=r"^upload cannot be read: I/O operation on closed file"):
        open_image(file, name="upload")


def test_a_file_s_address_is_the_file(tmp_path):
    path = tmp_path / "a %20b.png"
    Image.fromarray(corners()).save(path)
    assert np.array_equal(open_image(path.as_uri()), corners())


ARRAYS = [
    (corners().astype(np.float32), r"is float32 \(4, 6, 3\) with values from 0 to 255; wanted is"),
    (np.full((4, 6, 3), np.nan), r"is float64 \(4, 6, 3\) with values from nan to nan; wanted"),
    (torch.full((3, 4, 6), -1.0), r"is float32 \(3, 4, 6\) with values from -1 to -1; wanted"),
    (corners().astype(np.uint16), r"is uint16 \(4, 6, 3\) with values from 0 to 255; wanted"),
    (corners().astype(np.int64), r"is int64 \(4, 6, 3\) with values from 0 to 255; wanted"),
    (corners().astype(complex), r"is complex128 \(4, 6, 3\); wanted"),
    (np.zeros((2, 4, 5), np.uint8), r"is uint8 \(2, 4, 5\)"),
    (np.zeros((2, 4, 4, 3), np.uint8), r"is uint8 \(2, 4, 4, 3\)"),
    (np.zeros((0, 4, 3), np.uint8), r"is uint8 \(0, 4, 3\)"),
    ([[1, 2]], "is of type list; give a path, bytes, a file opened with 'rb', a PIL image, a tensor or a"),
    (None, "is of type NoneType: OpenCV's answer for a file that it cannot read; give a path"),
    (io.StringIO("a"), "gives str when it is read, not bytes; give a path, bytes, a file opened with 'rb'"),
    (os, r"is of type module and no file \(read expected 2 arguments, got 0\); give a path"),
    (torch.zeros(4, 6).to_sparse(), "cannot be read as an array: .* Give a NumPy array"),
]


@pytest.mark.parametrize(("source", "message"), ARRAYS)
def test_what_could_mean_several_things_is_told_what_is_wanted(source, message):
    with pytest.raises(UnreadableImage, match=f"^frame 7 {message}.*uint8.*H, W, 3"):
        open_image(source, name="frame 7")
