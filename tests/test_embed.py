"""The programs of docs/how-to/embed.md answer, and fifty clients at once as they answer one."""

import json
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import uvicorn
from fastapi.testclient import TestClient
from PIL import Image

from facerwkv.data.toy.scenes import render
from tests.web.clients import ask_side_by_side, form, post

DOCS = Path(__file__).resolve().parents[1] / "docs"
BLOCKS = re.findall(
    r"^```python\n(.*?)^```", (DOCS / "how-to" / "embed.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
)
FASTAPI, FLASK, PROCESSES = BLOCKS[1:]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A working folder with the images that the page names."""
    (tmp_path / "photos").mkdir()
    shutil.copy(DOCS / "demo.jpg", tmp_path / "party.jpg")
    Image.open(DOCS / "demo.jpg").reduce(2).save(tmp_path / "photos" / "1.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(block: str) -> dict:
    names = {"__name__": "app"}
    exec(compile(block, "app.py", "exec", dont_inherit=True), names)
    return names


@pytest.mark.slow
def test_processes(folder):
    (folder / "app.py").write_text(PROCESSES)
    done = subprocess.run([sys.executable, "app.py"], capture_output=True, text=True, check=True)
    assert re.findall(r"'source': '(.*?)', 'status': '(\w+)'", done.stdout) == [
        ("party.jpg", "ok"),
        ("photos/1.png", "ok"),
    ]


@pytest.mark.parametrize("content", ["party.jpg", "none"])
def test_fastapi_and_flask(folder, content):
    pytest.importorskip("flask")
    (folder / "none").write_bytes(b"no image")
    data = (folder / content).read_bytes()
    theirs = TestClient(run(FASTAPI)["app"]).post("/faces", files={"image": (content, data)})
    ours = run(FLASK)["app"].test_client().post("/faces", data={"image": (BytesIO(data), content)})
    expected = 200 if content == "party.jpg" else 400
    assert (theirs.status_code, ours.status_code) == (expected, expected)
    message = theirs.json().get("detail") if expected == 400 else None
    assert ours.json.get("message") == message
    assert expected == 400 or theirs.json() == ours.json


@contextmanager
def fastapi_served(app) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join()


@contextmanager
def flask_served(app) -> Iterator[str]:
    from werkzeug.serving import make_server

    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.port}"
    server.shutdown()
    thread.join()


@pytest.mark.slow
@pytest.mark.parametrize(("block", "served"), [(FASTAPI, fastapi_served), (FLASK, flask_served)])
def test_fifty_clients(block, served):
    pytest.importorskip("flask")
    names, requests, expected = run(block), [], []
    for number in range(200):  # of 200 sizes
        scene = Image.fromarray(render(number % 10, "test").image).resize((300 + number, 500 - number))
        file = BytesIO()
        scene.save(file, "PNG")
        requests.append(post("/faces", form(file.getvalue(), f"{number}.png", "image")))
        expected.append(names["model"].predict(np.array(scene), name=f"{number}.png").to_dict())
    assert sum(len(each["faces"]) for each in expected) > 100
    with served(names["app"]) as url:
        for _ in range(2):
            clients = ask_side_by_side(url, [requests[start::50] for start in range(50)], 600, keep=False)
            for start, answers in enumerate(clients):
                assert [answer.status for answer in answers] == [200] * 4
                assert [json.loads(answer.body) for answer in answers] == expected[start::50]
