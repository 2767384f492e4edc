"""The service is gone soon after a signal, whatever it does, and its temporary folder with it."""

import signal
import socket
import time
from contextlib import ExitStack
from urllib.parse import urlsplit

import pytest
from websockets.sync.client import connect

from tests.media.made import counted, ffmpeg
from tests.web.clients import form, post
from tests.web.conftest import serving

STUCK = """
import threading
from facerwkv.web import predictions, videos
def never(call):
    def stuck(*given, **named):
        if threading.current_thread() is threading.main_thread():
            return call(*given, **named)
        threading.Event().wait()
    return stuck
predictions.Predictor.open = never(predictions.Predictor.open)
videos.duration = never(videos.duration)
from facerwkv.cli import main
main()
"""
"""A service whose threads never come back, as if they were inside of C code."""


@pytest.fixture(scope="module")
def endless(tmp_path_factory):
    """100,000 frames: to pass over them takes about ten seconds."""
    folder = tmp_path_factory.mktemp("endless")
    second = ffmpeg(folder / "second.mp4", *counted(40), "-c:v", "libx264", "-preset", "ultrafast", "-g", "250")
    return ffmpeg(folder / "long.mp4", "-stream_loop", "99", "-i", str(second), "-c", "copy")


def connection(server, *sent: bytes) -> socket.socket:
    address = urlsplit(server.url)
    made = socket.create_connection((address.hostname, address.port))
    for each in sent:
        made.sendall(each)
    return made


def busy(server, opened: ExitStack, video: bytes, image: bytes) -> None:
    """A video whose frames are passed over, explanations, an image, uploads that stall, a camera, a slow reader."""
    asked = [
        post("/jobs?stride=100000000", form(video, "long.mp4", "file")),
        *[post("/explain?method=occlusion", form(image, field="file"))] * 3,
        post("/predict", form(image)),
        post("/predict", form(b"x" * 100_000))[:50_000],
        post("/jobs", form(b"x" * 100_000, field="file"))[:50_000],
        b"GET /page/page.js HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nX-Slow: ",
    ]
    for request in asked:
        opened.enter_context(connection(server, request))
    opened.enter_context(connect(server.url.replace("http", "ws") + "/stream"))
    time.sleep(1)


def gone_after(server, signals: list[int], apart: float = 0.3) -> float:
    """Seconds from the last of these signals to the end of the service, which says so and leaves nothing."""
    for number in signals[:-1]:
        server.process.send_signal(number)
        time.sleep(apart)
    started = time.monotonic()
    server.process.send_signal(signals[-1])
    assert server.process.wait(60) == 0
    took = time.monotonic() - started
    assert list(server.temp.glob("facerwkv-serve-*")) == []
    assert server.process.stdout.read().endswith("Stopped; the temporary files are removed.\n")
    return took


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
@pytest.mark.parametrize("program", [("-m", "facerwkv.cli"), ("-c", STUCK)], ids=["works", "is stuck"])
@pytest.mark.slow
def test_it_is_gone_in_three_seconds(tmp_path, endless, shared, number, program):
    image = (shared / "media" / "fer_justin.jpg").read_bytes()
    with serving(tmp_path, program=program) as server, ExitStack() as opened:
        busy(server, opened, endless.read_bytes(), image)
        assert gone_after(server, [number]) < 3


@pytest.mark.slow
def test_it_is_gone_at_once_at_the_second_signal(tmp_path, endless, shared):
    image = (shared / "media" / "fer_justin.jpg").read_bytes()
    with serving(tmp_path, program=("-c", STUCK)) as server, ExitStack() as opened:
        busy(server, opened, endless.read_bytes(), image)
        assert gone_after(server, [signal.SIGTERM, signal.SIGINT]) < 0.5
