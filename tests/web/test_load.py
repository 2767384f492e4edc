"""Many clients side by side: no error, flat memory, nobody waits much longer than the others, faster than a plain
service around the same predictor."""

import time
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from tests.web.clients import Answer, ask_side_by_side, form, post
from tests.web.conftest import Server, serving

MiB = 2**20
NAIVE = (str(Path(__file__).with_name("naive.py")), "facerwkv_fer")


@pytest.fixture(scope="module")
def request_of_a_face(shared) -> bytes:
    """One face in 220 x 260 pixels, as a camera's page would send it."""
    file = BytesIO()
    with Image.open(shared / "media" / "fer_justin.jpg") as image:
        image.convert("RGB").crop((80, 50, 300, 310)).save(file, "JPEG")
    return post("/predict", form(file.getvalue()))


def asked(server: Server, request: bytes, clients: int, each: int) -> tuple[list[Answer], float]:
    """All answers, each 200, and how many came per second."""
    answers, seconds = [], time.perf_counter()
    for client in ask_side_by_side(server.url, [[request] * each] * clients, 600):
        answers += client
    seconds = time.perf_counter() - seconds
    assert {answer.status for answer in answers} == {200}
    return answers, len(answers) / seconds


def share(answers: list[Answer], at: float) -> float:
    """The seconds within which this share of the answers came."""
    return sorted(answer.seconds for answer in answers)[int(at * len(answers))]


@pytest.mark.slow
@pytest.mark.alone
def test_eight_clients(server, request_of_a_face):
    asked(server, request_of_a_face, 8, 5)
    before = server.resident
    answers, _ = asked(server, request_of_a_face, 8, 30)
    assert share(answers, 0.99) < 5 * share(answers, 0.5)
    assert server.resident - before <= 50 * MiB


@pytest.mark.slow
@pytest.mark.alone
def test_fifty_clients_beside_a_plain_service(tmp_path, request_of_a_face):
    rates: dict[str, list[float]] = {"own": [], "naive": []}
    own: list[Answer] = []
    with ExitStack() as opened:
        servers = {
            "own": opened.enter_context(serving(tmp_path / "own", model="facerwkv_fer")),
            "naive": opened.enter_context(serving(tmp_path / "naive", program=NAIVE)),
        }
        for server in servers.values():
            asked(server, request_of_a_face, 50, 5)
        before = servers["own"].resident
        for _ in range(4):
            for name, server in servers.items():
                answers, rate = asked(server, request_of_a_face, 50, 25)
                rates[name].append(rate)
                own += answers if name == "own" else []
        added = servers["own"].resident - before
    p50, p99 = share(own, 0.5), share(own, 0.99)
    print(f"per second {rates}; own p50 {p50:.3f} s, p99 {p99:.3f} s; {added:,} bytes more")
    assert sum(rates["own"]) >= 1.5 * sum(rates["naive"])
    assert p99 <= 3 * p50
    assert added <= 50 * MiB
