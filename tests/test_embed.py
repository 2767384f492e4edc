"""The programs of docs/how-to/embed.md answer, and fifty clients at once as they answer one."""

import ast
import json
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import uvicorn
from fastapi.testclient import TestClient
from PIL import Image

from facerwkv.data.toy.scenes import render
from tests.web.clients import ask_side_by_side, form, post

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE = (DOCS / "how-to" / "embed.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"^## ([^\n]+)\n(?:(?!^## ).)*?^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
FASTAPI, FLASK, PROCESSES = (BLOCKS[heading] for heading in ("FastAPI", "Flask", "Processes"))


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
    flask = run(FLASK)["app"]

    def ask(_):
        return flask.test_client().post("/faces", data={"image": (BytesIO(data), content)})

    with ThreadPoolExecutor(4) as threads:
        ours, *others = threads.map(ask, range(8))
    assert [other.json for other in others] == [ours.json] * 7
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


def test_gradio(folder):
    pytest.importorskip("gradio", reason="gradio is not installed: the program of docs/how-to/embed.md is not run")
    image = np.asarray(Image.open("party.jpg").convert("RGB"))
    drawn, table = run(BLOCKS["Gradio"])["faces"](image)
    assert (drawn.size, table["status"].tolist()) == (image.shape[1::-1], ["ok"] * len(table))


def test_gradio_s_function_without_gradio(folder, monkeypatch):
    gradio = SimpleNamespace(**{name: lambda *_, **__: None for name in ("Interface", "Image", "Dataframe")})
    monkeypatch.setitem(sys.modules, "gradio", gradio)
    drawn, table = run(BLOCKS["Gradio"])["faces"](np.asarray(Image.open("party.jpg").convert("RGB")))
    assert max(drawn.size) >= 480
    assert len(table) >= 1


def test_a_notebook_shows_the_drawings(folder):
    results = run(BLOCKS["A notebook"])["results"]
    assert [result.source for result in results] == ["photos/1.png"]
    assert results._repr_html_().startswith('<img src="data:image/jpeg;base64,')


def test_a_folder_as_a_table(folder, capsys):
    pandas = pytest.importorskip("pandas")
    table = run(BLOCKS["A folder as a table"])["table"]
    assert table["source"].unique().tolist() == ["photos/1.png"]
    assert pandas.read_csv("faces.csv")["label"].tolist() == table["label"].tolist()
    assert table["label"].iloc[0] in capsys.readouterr().out


def test_search(folder, capsys):
    run(BLOCKS["Search and clustering"])
    assert re.search(r"^party\.jpg \[ ?1\. ", capsys.readouterr().out, re.MULTILINE)


def test_timm_s_features(folder, capsys):
    run(BLOCKS["timm"])
    shapes = [ast.literal_eval(line) for line in capsys.readouterr().out.splitlines()]
    assert shapes == [(1, 96, 6, 6)] * 3
