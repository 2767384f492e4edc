"""Many clients side by side: no error, flat memory, and nobody waits much longer than the others."""

from io import BytesIO
from statistics import median

import pytest
from PIL import Image

from tests.web.clients import Answer, ask_side_by_side, form, post
from tests.web.conftest import serving

MiB = 2**20


@pytest.fixture(scope="module")
def request_of_a_face(shared) -> bytes:
    """One face in 220 x 260 pixels, as a camera's page would send it."""
    file = BytesIO()
    with Image.open(shared / "media" / "fer_justin.jpg") as image:
        image.convert("RGB").crop((80, 50, 300, 310)).save(file, "JPEG")
    return post("/predict", form(file.getvalue()))


def measure(server, request: bytes, clients: int, each: int, seconds: float) -> tuple[float, float]:
    """p99 of many clients in medians of one, and the bytes of memory that the last nine tenths of the run added."""
    ask_side_by_side(server.url, [[request] * 5] * 4, seconds)  # the first answers set everything up
    (alone,) = ask_side_by_side(server.url, [[request] * each], seconds)
    answers: list[Answer] = []
    memory = []
    for count in (each // 10, each - each // 10):
        for client in ask_side_by_side(server.url, [[request] * count] * clients, seconds):
            assert len(client) == count, "a client was not served in time"
            answers += client
        memory.append(server.resident)
    (after,) = ask_side_by_side(server.url, [[request] * each], seconds)
    assert {answer.status for answer in answers} == {200}
    one = max(median(answer.seconds for answer in part) for part in (alone, after))  # others may use the machine too
    took = sorted(answer.seconds for answer in answers)
    p99 = took[int(0.99 * len(took))]
    print(f"one {one:.4f} s, median {median(took):.4f}, p99 {p99:.4f}, last {took[-1]:.4f}; bytes {memory}")
    return p99 / one, memory[-1] - memory[0]


def test_eight_clients(server, request_of_a_face):
    ratio, added = measure(server, request_of_a_face, clients=8, each=30, seconds=60)
    assert ratio < 20
    assert added <= 50 * MiB


@pytest.mark.slow
@pytest.mark.alone
def test_fifty_clients(tmp_path, request_of_a_face):
    with serving(tmp_path, model="facerwkv_fer") as server:
        ratio, added = measure(server, request_of_a_face, clients=50, each=50, seconds=120)
    assert ratio < 20
    assert added <= 50 * MiB
