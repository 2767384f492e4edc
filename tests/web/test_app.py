"""The application in this process: its files, its schema, and what it says when it fails."""

import pytest
from fastapi.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

import facerwkv
from facerwkv.core.errors import InputError
from facerwkv.core.metrics import score_titles
from facerwkv.export.browser import SHARED
from facerwkv.web import serve
from facerwkv.web.app import PAGE, create_app
from facerwkv.web.guard import HEADERS
from tests.web.clients import BOUNDARY, form
from tests.web.conftest import MODEL


@pytest.fixture(scope="module")
def app():
    app = create_app(facerwkv.load(MODEL, "cpu"))

    async def broken():
        raise RuntimeError("a secret of this machine")

    app.add_api_route("/broken", broken)
    return app


@pytest.fixture(scope="module")
def client(app):
    return TestClient(app, "http://localhost", raise_server_exceptions=False)


@pytest.mark.parametrize("file", sorted([*PAGE.iterdir(), *SHARED.iterdir()]), ids=lambda path: path.name)
def test_the_page_and_what_it_shares_are_served(client, file):
    answer = client.get(f"/page/{file.name}")
    assert (answer.status_code, answer.content) == (200, file.read_bytes())


def test_the_scores_titles_and_formats_come_from_their_table(client):
    assert client.get("/meta").json()["scores"] == score_titles()


@pytest.mark.parametrize("name", ["", "nothing.js", "a%00b", "x" * 5000, "../app.py", "model.js"])
def test_the_page_has_no_other_files(client, name):
    answer = client.get(f"/page/{name}")
    assert (answer.status_code, answer.json()["detail"][-1]) == (404, ".")


def test_a_failure_is_a_sentence_without_its_reason(client, caplog):
    answer = client.get("/broken")
    assert (answer.status_code, answer.json()) == (500, {"detail": "The service failed. The reason is in its log."})
    assert answer.headers.items() >= {name.lower(): value for name, value in HEADERS.items()}.items()
    assert "/broken failed (request " in caplog.text
    assert "a secret of this machine" in caplog.text


def test_a_stream_from_another_page_is_refused_before_it_opens(client):
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/stream", headers={"Origin": "http://evil"}):
        pass


FORM, END = f"multipart/form-data; boundary={BOUNDARY}", f"--{BOUNDARY}--\r\n".encode()
ONE, JSON = form(b"x"), "application/json"
DAMAGED = "The upload's form is damaged."


@pytest.mark.parametrize(
    ("body", "kind", "status", "detail"),
    [
        (ONE, "image/jpeg", 415, "Send a form (multipart/form-data) with the file in its field 'files'."),
        (ONE, "multipart/form-data", 400, DAMAGED),
        (ONE, f"{FORM}; charset=undefined", 400, DAMAGED),
        (ONE[:-8], FORM, 400, "The upload is cut short."),
        (END, FORM, 422, "There is no file in the form; its field is called 'files'."),
        (form(b"x", field="other"), FORM, 422, "The form has a field 'other'; send only files, in 'files'."),
        (ONE.replace(b'; filename="image.jpg"', b""), FORM, 422, "The field 'files' is a text; send it as a file."),
        (ONE[: -len(END)] * 17 + END, FORM, 413, "The form has too many files; the limit is 16 per request."),
        (b'{"images": []}', JSON, 422, "Give 1 to 16 images per request, not 0."),
        (b'{"images": [%s]}' % b", ".join([b'""'] * 17), JSON, 413, "Give 1 to 16 images per request, not 17."),
        (b"[]", JSON, 422, 'The body must be {"images": ["...", ...]}, each image as base64.'),
    ],
)
def test_an_upload_that_is_refused_gets_a_sentence(client, body, kind, status, detail):
    answer = client.post("/predict", content=body, headers={"Content-Type": kind})
    assert (answer.status_code, answer.json()) == (status, {"detail": detail})


def test_without_its_packages_the_service_says_what_to_install(monkeypatch):
    monkeypatch.setattr(serve, "find_spec", lambda name: None if name in ("av", "uvicorn") else name)
    with pytest.raises(InputError, match=r'The service needs uvicorn, av: pip install "facerwkv\[serve\]"'):
        serve.serve()
