"""Ten minutes of everything at once: no error, flat memory, and the service is gone soon after Ctrl-C."""

import json
import os
import random
import re
import signal
import socket
import threading
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest
from websockets.sync.client import connect

from tests.media.made import counted, ffmpeg, tone
from tests.web.clients import ask_side_by_side, form, post
from tests.web.conftest import serving
from tests.web.test_stopping import gone_after
from tests.web.test_uploads import LIMITS, fits, uploads

REMARK = re.compile(
    "Corrupt JPEG data: |Invalid SOS parameters |More samples per pixel |Warning: unknown JFIF revision "
)
"""libjpeg's own, on uploads that were mutated."""
SECONDS = float(os.environ.get("MIXED_LOAD_SECONDS", "600"))
MiB = 2**20


class Load:
    """Clients of one service, each in a thread until `until`; what went wrong is in `wrong`, how much was done in
    `done`."""

    def __init__(self, server, face: bytes, video: bytes):
        self.server, self.face, self.video = server, face, video
        self.until, self.wrong, self.done = time.monotonic() + SECONDS, [], dict.fromkeys(CLIENTS, 0)

    def run(self) -> None:
        threads = [threading.Thread(target=self._client, args=each) for each in CLIENTS.items()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SECONDS + 120)
            assert not thread.is_alive()

    def _client(self, name: str, step: Callable[["Load", random.Random], None]) -> None:
        chance = random.Random(name)
        try:
            while time.monotonic() < self.until:
                step(self, chance)
                self.done[name] += 1
        except Exception as error:
            self.wrong.append((name, repr(error)))

    def open(self, sent: bytes) -> socket.socket:
        address = urlsplit(self.server.url)
        connection = socket.create_connection((address.hostname, address.port), timeout=60)
        connection.sendall(sent)
        return connection


def images(load: Load, chance: random.Random) -> None:
    (answers,) = ask_side_by_side(load.server.url, [[post("/predict", form(load.face))] * 10], 60)
    assert {answer.status for answer in answers} == {200}


def explanations(load: Load, chance: random.Random) -> None:
    request = post("/explain?method=occlusion", form(load.face, field="file"))
    if chance.random() < 0.5:
        with load.open(request):
            time.sleep(0.05)  # and leaves
    else:
        ((answer,),) = ask_side_by_side(load.server.url, [[request]], 60)
        assert answer.status == 200


def videos(load: Load, chance: random.Random) -> None:
    with load.server.client() as client:
        client.headers["Client-Id"] = f"{chance.getrandbits(128):032x}"
        given = {"stride": chance.choice((1, 3, 10**8)), "draw": chance.random() < 0.5}
        added = client.post("/jobs", files={"file": ("a.mp4", load.video)}, params=given)
        assert added.status_code == 202, added.text
        id = added.json()["id"]
        if chance.random() < 0.3:
            assert client.delete(f"/jobs/{id}").status_code == 204
            return
        while (job := client.get(f"/jobs/{id}").json())["state"] in ("queued", "running"):
            time.sleep(0.1)
        assert job["state"] == "done", job
        assert [each["id"] for each in client.get("/jobs").json()["jobs"]] == [id]
        assert all(client.get(f"/jobs/{id}/{name}").status_code == 200 for name in job["files"])


def streams(load: Load, chance: random.Random) -> None:
    with connect(load.server.url.replace("http", "ws") + "/stream?smooth=ema:0.5") as stream:
        for _ in range(chance.randrange(20)):
            stream.send(load.face if chance.random() < 0.9 else chance.randbytes(1000))
            assert json.loads(stream.recv(60))["status"] in ("ok", "unreadable")


def slow_clients(load: Load, chance: random.Random) -> None:
    whole = post(*chance.choice((("/predict", form(load.face)), ("/jobs", form(load.video, field="file")))))
    opened = [load.open(whole[: chance.randrange(10, len(whole) - 10)]) for _ in range(8)]
    time.sleep(3)
    for connection in opened:
        connection.close()


def mutated_uploads(load: Load, chance: random.Random) -> None:
    sent = list(uploads(chance.getrandbits(32), 10))
    (answers,) = ask_side_by_side(load.server.url, [[each.request for each in sent]], 60, keep=False)
    for answer, each in zip(answers, sent, strict=True):
        assert fits(answer, each.decodes), (answer, each.request[:300])


CLIENTS = {each.__name__: each for each in (images, explanations, videos, streams, slow_clients, mutated_uploads)}


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(1200)
def test_everything_at_once(tmp_path, shared):
    face = (shared / "media" / "fer_justin.jpg").read_bytes()
    video = ffmpeg(tmp_path / "a.mp4", *counted(2), *tone(2), "-c:v", "libx264", "-c:a", "aac").read_bytes()
    limits = [word for key, value in LIMITS.items() for word in ("--limit", f"{key}={value}")]
    with serving(tmp_path / "service", *limits, "--limit", "memory_bytes=3000000") as server:
        load, sizes = Load(server, face, video), []
        watching = threading.Thread(target=load.run)
        watching.start()
        while watching.is_alive():
            watching.join(SECONDS / 20)
            sizes.append(server.resident)
        assert load.wrong == []
        print(f"{load.done}; MiB {[size // MiB for size in sizes]}")
        assert min(load.done.values()) > 0
        assert max(sizes[len(sizes) // 2 :]) - max(sizes[: len(sizes) // 2]) <= 30 * MiB
        left = [load.open(post("/explain?method=occlusion", form(face, field="file"))) for _ in range(5)]
        left += [load.open(post("/jobs", form(video, field="file"))) for _ in range(3)]
        assert gone_after(server, [signal.SIGINT]) < 3
        said = [line for line in server.errors.read_text().splitlines() if not REMARK.match(line)]
        assert len(said) < 5, said
        for connection in left:
            connection.close()
