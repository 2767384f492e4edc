"""Many clients side by side: no error, flat memory, and nobody waits much longer than the others."""

from io import BytesIO
from statistics import median

import pytest
from PIL import Image

from tests.web.clients import Answer, ask_side_by_side, form, post
from tests.web.conftest import serving

ROUNDS = 10
MiB = 2**20


@pytest.fixture(scope="module")
def request_of_a_face(shared) -> bytes:
    """One face in 220 x 260 pixels, as a camera's page would send it."""
    file = BytesIO()
    with Image.open(shared / "media" / "fer_justin.jpg") as picture:
        picture.convert("RGB").crop((80, 50, 300, 310)).save(file, "JPEG")
    return post("/predict", form(file.getvalue()))


def p99(answers: list[list[Answer]]) -> float:
    took = sorted(answer.seconds for client in answers for answer in client)
    return took[int(0.99 * len(took))]


def measure(server, request: bytes, clients: int, each: int, seconds: float) -> tuple[float, float]:
    """Rounds of one client, then many: p99 of many in medians of one, and the bytes of memory that were added.

    Both are medians of the rounds: what another program does to one of them does not decide.
    """
    ones, many, memory = [], [], []
    ask_side_by_side(server.url, [[request] * 5] * 4, seconds)  # the first answers set everything up
    for _ in range(ROUNDS):
        (one,) = ask_side_by_side(server.url, [[request] * 10], seconds)
        answers = ask_side_by_side(server.url, [[request] * each] * clients, seconds)
        assert {answer.status for client in answers for answer in client} == {200}
        assert all(answers), "a client was never served"
        ones += [answer.seconds for answer in one]
        many.append(p99(answers))
        memory.append(server.resident)
    print(f"one {median(ones):.4f} s, p99 {[round(each, 3) for each in many]}, MiB {[each // MiB for each in memory]}")
    return median(many) / median(ones), memory[-1] - memory[0]


def test_eight_clients(server, request_of_a_face):
    ratio, added = measure(server, request_of_a_face, clients=8, each=3, seconds=20)
    assert ratio < 20
    assert added <= 50 * MiB


@pytest.mark.slow
def test_fifty_clients(tmp_path, request_of_a_face):
    with serving(tmp_path, model="facerwkv_fer") as server:
        ratio, added = measure(server, request_of_a_face, clients=50, each=5, seconds=60)
    assert ratio < 20
    assert added <= 50 * MiB
