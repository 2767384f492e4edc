"""Whatever is uploaded, the answer is a clear 4xx, or 200 where it really is an image, and nothing is left behind."""

import base64
import json
import random
import select
import socket
import struct
import time
import zlib
from collections.abc import Iterator
from io import BytesIO
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest
from PIL import Image

from facerwkv.media.images import UnreadableImage, open_image
from facerwkv.web.guard import Limits
from facerwkv.web.uploads import base_name
from tests.web.clients import BOUNDARY, ask_side_by_side, form, post
from tests.web.conftest import serving

LIMITS = {"upload_bytes": 300_000, "video_bytes": 400_000, "pixels": 1_000_000, "files": 4}
WATCHED = """
import os, sys
temp, log = os.environ["TMPDIR"], os.open(os.environ["WRITTEN"], os.O_WRONLY | os.O_CREAT)
def note(event, given):
    if event == "open" and isinstance(given[0], str) and given[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        if not os.path.abspath(given[0]).startswith((temp, "/dev/null")):
            os.write(log, given[0].encode() + b"\\n")
sys.addaudithook(note)
from facerwkv.cli import main
main()
"""


class Upload(NamedTuple):
    """A request, and whether it holds an image that decodes (None where that does not decide)."""

    request: bytes
    decodes: bool | None


def encoded(kind: str, size=(40, 30)) -> bytes:
    file = BytesIO()
    Image.radial_gradient("L").resize(size).convert("RGB").save(file, kind)
    return file.getvalue()


IMAGES = [encoded(kind) for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")]
NAMES = [
    "../../etc/passwd",
    "/tmp/own.jpg",
    "C:\\x\\y.jpg",
    "a\0b.jpg",
    "x" * 2000,
    ".",
    "..",
    "ü\u202e.png",
    "%2e%2e%2f",
    "",
]


def png_bomb(width: int, height: int) -> bytes:
    """A PNG that claims its size, and whose data is nothing but zeros."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(b"\0" * min(50_000_000, (3 * width + 1) * height), 9)
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*part) for part in ((b"IHDR", head), (b"IDAT", rows), (b"IEND", b"")))


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


BOMBS = [png_bomb(3000, 3000), png_bomb(60_000, 60_000), png_bomb(2**31 - 1, 2**31 - 1)]
OTHERS = [
    b"",
    b"text",
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage",
    b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    b"PK\3\4" + b"\0" * 60,
    b"\x80\x04cos\nsystem\n",
    b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
    b"ffconcat version 1.0\nfile /etc/passwd\n",
    b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + b"\0" * 99,
    b"GIF89a\xff\xff\xff\xff\0\0\0",
]


def mutated(chance: random.Random) -> bytes:
    """An image with bytes changed, cut off, doubled or put in; or something else."""
    data = bytearray(chance.choice(IMAGES))
    for _ in range(chance.choice((0, 1, 1, 3, 20))):
        place = chance.randrange(len(data))
        data[place] = chance.randrange(256)
    kind = chance.randrange(6)
    if kind == 0:
        del data[chance.randrange(len(data)) :]
    if kind == 1:
        place = chance.randrange(len(data))
        data[place:place] = chance.randbytes(chance.randrange(1, 3000))
    if kind == 2:
        return chance.choice((*OTHERS, *BOMBS, chance.randbytes(chance.randrange(5000))))
    return bytes(data)


def decodes(data: bytes) -> bool:
    try:
        height, width = open_image(data).shape[:2]
    except UnreadableImage:
        return False
    return height * width <= LIMITS["pixels"]


def uploads(seed: int, count: int) -> Iterator[Upload]:
    chance = random.Random(seed)
    for _ in range(count):
        make = chance.choice((image, image, image, image, as_base64, explained, broken_form, not_a_video, huge))
        yield make(chance)


def image(chance: random.Random) -> Upload:
    data = mutated(chance)
    return Upload(post("/predict", form(data, chance.choice(NAMES))), decodes(data))


def as_base64(chance: random.Random) -> Upload:
    data = mutated(chance)
    body = json.dumps({"images": [base64.b64encode(data).decode()]}).encode()
    if chance.random() < 0.5:
        return Upload(post("/predict", body, "application/json"), decodes(data) and len(body) <= LIMITS["upload_bytes"])
    garbage = (b"", b"{}", b"[" * 50_000, b'{"images": 3}', b'{"images": ["%%"]}', body[: len(body) // 2], b"\xff\xfe")
    return Upload(post("/predict", chance.choice(garbage), "application/json"), False)


def explained(chance: random.Random) -> Upload:
    data = mutated(chance)
    return Upload(post("/explain?mode=scene", form(data, chance.choice(NAMES), "file")), decodes(data))


def broken_form(chance: random.Random) -> Upload:
    whole = form(chance.choice(IMAGES))
    cases = (
        post("/predict", whole[: chance.randrange(len(whole) - 6)]),
        post("/predict", whole, "multipart/form-data"),
        post("/predict", whole, "multipart/form-data; boundary=other"),
        post("/predict", whole, "multipart/form-data; boundary=" + "b" * 500),
        post("/predict", whole, "image/jpeg"),
        post("/predict", form(b"x", field="other")),
        post("/predict", form(b"x", field="../files")),
        post("/predict", whole.replace(b"form-data", b"attachment" * 2000)),
        post("/predict", whole.replace(b"Content-Disposition", b"X" * 9000)),
        post("/predict", whole.replace(b"\r\n\r\n", b"\r\nX: y" * 500 + b"\r\n\r\n", 1)),
        post("/predict", b"".join(form(b"x")[: -len(BOUNDARY) - 6] for _ in range(6)) + f"--{BOUNDARY}--\r\n".encode()),
        post("/predict", chance.randbytes(2000)),
        post("/predict?mode=" + "x" * 3000, whole),
    )
    return Upload(chance.choice(cases), False)


def not_a_video(chance: random.Random) -> Upload:
    return Upload(post("/jobs", form(chance.choice((*OTHERS, *IMAGES[:3])), chance.choice(NAMES), "file")), False)


def huge(chance: random.Random) -> Upload:
    chunks = b"".join(b"10000\r\n" + b"x" * 65_536 + b"\r\n" for _ in range(8)) + b"0\r\n\r\n"
    head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary={BOUNDARY}\r\n"
    start = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="files"\r\n\r\n'.encode()
    cases = (
        post("/predict", form(b"x" * LIMITS["upload_bytes"])),
        post("/jobs", form(b"x" * LIMITS["video_bytes"], field="file")),
        f"{head}Transfer-Encoding: chunked\r\n\r\n{len(start):x}\r\n".encode() + start + b"\r\n" + chunks,
        b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"\x16\x03\x01" + chance.randbytes(200) + b"\r\n\r\n",
    )
    large_header = post("/predict", form(IMAGES[0]), more=f"X-Large: {'x' * 100_000}\r\n")
    return chance.choice((*(Upload(case, False) for case in cases), Upload(large_header, None)))


def check(folder, count: int, seed: int) -> None:
    """Send them over four connections at a time; compare what is there before and after."""
    sent = list(uploads(seed, count))
    written = folder / "written"
    limits = [word for key, value in LIMITS.items() for word in ("--limit", f"{key}={value}")]
    with serving(folder, *limits, program=("-c", WATCHED), WRITTEN=str(written)) as server:
        wait_for(lambda: list(server.temp.glob("facerwkv-serve-*")))
        before, began = everything(folder), written.stat().st_size
        answers = ask_side_by_side(
            server.url, [[each.request for each in sent[i::4]] for i in range(4)], 3600, keep=False
        )
        wrong = [
            (answer.status, answer.body[:200], each.request[:300])
            for i in range(4)
            for each, answer in zip(sent[i::4], answers[i], strict=True)
            if not fits(answer, each.decodes)
        ]
        assert wrong == []
        assert server.process.poll() is None
        assert everything(folder) == before
        assert written.read_bytes()[began:] == b""


def fits(answer, decodes: bool | None) -> bool:
    clear = 400 <= answer.status < 500 and answer.body.rstrip(b'"}').endswith(b".")
    return answer.status == 200 if decodes else clear or (decodes is None and answer.status == 200)


def everything(folder) -> list[str]:
    return sorted(str(path) for path in folder.rglob("*"))


@pytest.mark.slow
def test_two_hundred_uploads(tmp_path):
    check(tmp_path, 200, seed=0)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ten_thousand_uploads(tmp_path):
    check(tmp_path, 10_000, seed=1)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("party.jpg", "party.jpg"),
        ("../../etc/passwd", "passwd"),
        ("C:\\images\\party.jpg", "party.jpg"),
        ("a\r\nb\0.jpg", "ab.jpg"),
        ("folder/", "upload"),
        ("", "upload"),
        ("x" * 300, "x" * 200),
    ],
)
def test_a_name_is_never_a_path(given, name):
    assert base_name(given) == name


def begun(server, path: str, field: str) -> socket.socket:
    """A connection in the middle of an upload of 100,000 bytes."""
    address = urlsplit(server.url)
    connection = socket.create_connection((address.hostname, address.port))
    connection.sendall(post(path, form(b"x" * 100_000, field=field))[:50_000])
    return connection


def test_a_client_that_leaves_in_the_middle_leaves_nothing(server):
    kept = list(server.temp.glob("facerwkv-serve-*/*"))
    connections = [begun(server, path, field) for path, field in (("/jobs", "file"), ("/predict", "files"))]
    wait_for(lambda: len(list(server.temp.glob("facerwkv-serve-*/*"))) == len(kept) + 1)
    for connection in connections:
        connection.close()
    wait_for(lambda: list(server.temp.glob("facerwkv-serve-*/*")) == kept)
    with server.client() as client:
        assert client.get("/healthz").status_code == 200


def wait_for(condition) -> None:
    until = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until, "it did not happen within 30 s"
        time.sleep(0.05)


def test_stalled_uploads_cost_nobody_else_anything(server):
    """Sixteen of 31 MiB fill the memory for images, twenty videos the queue, if they are allowed to."""
    head = post("/predict", form(b"x" * 31 * 2**20))
    connections = []
    for request, sent in ((head, 31 * 2**20), (post("/jobs", form(b"x" * 10**6, field="file")), 10**5)):
        for _ in range(17):
            connection = socket.create_connection((urlsplit(server.url).hostname, urlsplit(server.url).port))
            connection.sendall(request[:sent])
            connections.append(connection)
    time.sleep(1.5)
    with server.client() as client:
        for _ in range(3):
            assert client.post("/predict", files={"files": encoded("PNG")}).status_code == 200
        assert client.post("/predict", files={"files": b"x" * 30 * 2**20}).status_code == 400
        assert client.post("/jobs", files={"file": b"x" * 30 * 2**20}).status_code == 415
    gave_way = [connection for connection in connections if ready(connection)]
    assert 1 <= len(gave_way) <= 4
    assert b"The upload stood still while others waited." in gave_way[0].recv(10_000)
    for connection in connections:
        connection.close()


def ready(connection: socket.socket) -> bool:
    return bool(select.select([connection], [], [], 0)[0])


@pytest.mark.slow
def test_a_slow_upload_and_too_many_images_in_memory(strict):
    busy = (503, "The service is busy. Try again in a few seconds.")
    slow = begun(strict, "/predict", "files")
    with strict.client() as client:

        def answer() -> tuple[int, str]:
            answer = client.post("/predict", files={"files": b"x" * 80_000})
            return answer.status_code, answer.json()["detail"]

        wait_for(lambda: answer() == busy)  # once the slow one's headers are read
    assert slow.recv(1000).startswith(b"HTTP/1.1 408 ")
    slow.close()
    with strict.client() as client:
        assert client.post("/predict", files={"files": b"x" * 80_000}).status_code == 400


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_an_image_with_too_many_pixels_is_not_decoded(kind):
    excess = "it has 41 x 30 pixels, more than the 1,200 that are allowed (max_pixels)"
    sentence = f"big cannot be read: {excess}. Make it smaller first."
    with pytest.raises(UnreadableImage) as refused:
        open_image(encoded(kind, (41, 30)), name="big", max_pixels=1200)
    assert str(refused.value) == sentence
    assert open_image(encoded(kind, (40, 30)), name="small", max_pixels=1200).shape == (30, 40, 3)


def test_the_shipped_limits_let_a_phones_image_in():
    limits = Limits()
    assert limits.pixels >= 4000 * 3000
    assert limits.upload_bytes >= 16 * 2**20
