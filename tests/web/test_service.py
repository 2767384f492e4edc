"""What the service answers, to whom, and what it leaves behind."""

import base64
import json
import signal
import socket
import sys
import tempfile
import time
from io import BytesIO
from urllib.parse import urlsplit

import httpx
import jsonschema
import pytest
from PIL import Image
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

import facerwkv
from facerwkv.cli import main
from facerwkv.core.labels import EXPRESSIONS
from facerwkv.inference.explain import METHODS
from facerwkv.inference.schema import SCHEMA
from facerwkv.media.draw import COLOURS
from facerwkv.web.jobs import locked_folder
from facerwkv.web.serve import _listening
from tests.web.clients import form, post
from tests.web.conftest import MODEL, serving

POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; connect-src 'self' ws: wss:; "
    "object-src 'none'; frame-ancestors 'none'; base-uri 'none'"
)


@pytest.fixture(scope="module")
def justin(shared):
    """One face, 381 x 384."""
    return (shared / "media" / "fer_justin.jpg").read_bytes()


@pytest.fixture(scope="module")
def expected(justin):
    return facerwkv.load(MODEL, "cpu").predict(justin).to_dict()


def blank(size=(64, 48)) -> bytes:
    file = BytesIO()
    Image.new("RGB", size, "grey").save(file, "PNG")
    return file.getvalue()


def files(*given):
    return [("files", each) for each in given]


def close_to(expected):
    """The faces of a result but for rounding: a batch adds up in another order."""
    return [face | {"score": pytest.approx(face["score"], abs=1e-4), "probs": pytest.approx(face["probs"], abs=1e-4)}
            for face in expected["faces"]]  # fmt: skip


def test_health(client):
    assert client.get("/healthz").json() == {"status": "ok", "version": facerwkv.__version__}


def test_meta(client):
    meta = client.get("/meta").json()
    assert meta["name"] == MODEL
    assert meta["labels"] == list(EXPRESSIONS)
    assert meta["colours"] == list(COLOURS[: len(EXPRESSIONS)])
    assert (meta["mode"], meta["modes"], meta["methods"]) == ("face", ["face", "scene"], list(METHODS))
    assert meta["licence"].startswith("research only")
    assert meta["notice"].startswith(MODEL)
    assert meta["intended_use"].startswith("It names the apparent expression of a face")
    assert meta["transform"]["image_size"] == [48, 48]
    assert meta["card"]["data"]["source"] == "fer2013"
    wanted = {"upload_bytes", "video_bytes", "pixels", "files", "frames", "seconds", "jobs", "streams"}
    assert wanted <= meta["limits"].keys()


def test_predict_as_in_python(client, justin, expected):
    answer = client.post("/predict", files=files(("a.jpg", justin)))
    (result,) = answer.json()["results"]
    assert answer.status_code == 200
    assert (result["source"], result["status"], result["size"]) == ("a.jpg", "ok", [381, 384])
    assert result["faces"] == close_to(expected)


def test_results_come_in_the_order_of_the_files(client, justin, expected):
    sent = files(("1.png", blank()), ("2.jpg", justin), ("3.txt", b"no image"), ("4.jpg", justin))
    results = client.post("/predict", files=sent).json()["results"]
    assert [(result["source"], result["status"]) for result in results] == [
        ("1.png", "no_face"),
        ("2.jpg", "ok"),
        ("3.txt", "unreadable"),
        ("4.jpg", "ok"),
    ]
    assert results[2]["message"].startswith("3.txt cannot be read: its content is none of the known formats")
    assert results[1]["faces"] == results[3]["faces"] == close_to(expected)
    for result in results:
        jsonschema.validate(result, SCHEMA)


def test_predict_json(client, justin, expected):
    images = [base64.b64encode(data).decode() for data in (justin, blank())]
    results = client.post("/predict", json={"images": images}).json()["results"]
    assert [result["source"] for result in results] == ["image 0", "image 1"]
    assert results[0]["faces"] == close_to(expected)


def test_scene_when_there_is_no_face(client):
    sent = files(("grey.png", blank()))
    assert client.post("/predict", files=sent).json()["results"][0]["status"] == "no_face"
    for options in ({"on_no_face": "scene"}, {"mode": "scene"}):
        (result,) = client.post("/predict", files=sent, params=options).json()["results"]
        assert result["status"] == "ok"
        assert "box" not in result["faces"][0]


@pytest.mark.parametrize(("threshold", "unsure"), [(0.0, False), (1.0, True)])
def test_a_threshold_marks_what_is_unsure(client, server, justin, threshold, unsure):
    answer = client.post("/predict", files=files(("a.jpg", justin)), params={"threshold": threshold})
    assert answer.json()["results"][0]["faces"][0]["unsure"] is unsure
    with connect(socket_of(server, f"threshold={threshold}")) as stream:
        stream.send(justin)
        result = json.loads(stream.recv())
        assert result["faces"][0]["unsure"] is unsure
        jsonschema.validate(result, SCHEMA)


def test_a_threshold_that_is_no_share_is_refused(client, justin):
    answer = client.post("/predict", files=files(("a.jpg", justin)), params={"threshold": 2})
    assert (answer.status_code, answer.json()) == (
        400,
        {"detail": "threshold is '2'; it should be less than or equal to 1."},
    )


@pytest.mark.parametrize("method", METHODS)
def test_explain(client, justin, expected, method):
    answer = client.post("/explain", files={"file": ("a.jpg", justin)}, params={"method": method, "label": "fear"})
    (found,) = answer.json()["explanations"]
    assert (found["label"], found["method"], found["box"]) == ("fear", method, expected["faces"][0]["box"])
    assert [len(row) for row in found["scores"]] == [6] * 6


def test_an_explanation_of_what_is_not_known(client, justin):
    sent = {"file": ("a.jpg", justin)}
    for options, sentence in (
        ({"method": "magic"}, "There is no method 'magic'; choose one of gradient, occlusion, tokens."),
        ({"label": "joy"}, f"{MODEL} knows no label 'joy'; it has {', '.join(EXPRESSIONS)}."),
    ):
        answer = client.post("/explain", files=sent, params=options)
        assert (answer.status_code, answer.json()) == (400, {"detail": sentence})
    answer = client.post("/explain", files={"file": ("b.jpg", b"")})
    assert (answer.status_code, answer.json()) == (400, {"detail": "b.jpg cannot be read: it is empty."})


def collage(data: bytes, columns: int, rows: int) -> bytes:
    """An image's face, again and again."""
    with Image.open(BytesIO(data)) as image:
        face = image.convert("RGB").crop((80, 50, 300, 310)).resize((48, 57))
    whole, file = Image.new("RGB", (48 * columns, 57 * rows)), BytesIO()
    for i in range(columns * rows):
        whole.paste(face, (48 * (i % columns), 57 * (i // columns)))
    whole.save(file, "JPEG", quality=92)
    return file.getvalue()


def test_an_image_with_too_many_faces_is_not_explained(client, justin):
    answer = client.post("/explain", files={"file": ("all.jpg", collage(justin, 8, 4))})
    assert answer.status_code == 400
    assert answer.json()["detail"].endswith(" faces; 24 are explained at most. Cut out a part.")


def test_explanations_for_clients_that_left_hold_up_nobody(client, server, justin):
    request = post("/explain?method=occlusion", form(collage(justin, 6, 4), field="file"))
    for _ in range(5):
        with socket.create_connection((urlsplit(server.url).hostname, urlsplit(server.url).port)) as gone:
            gone.sendall(request)
            time.sleep(0.2)
    started = time.monotonic()
    assert client.post("/explain", files={"file": ("a.jpg", justin)}).status_code == 200
    assert time.monotonic() - started < 3


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/docs", 404),
        ("GET", "/jobs/unknown", 404),
        ("DELETE", "/jobs/unknown", 404),
        ("GET", "/jobs/unknown/results.json", 404),
        ("GET", "/jobs/unknown/secrets", 400),
        ("GET", "/page/..%2Fapp.py", 404),
        ("GET", "/page/%2e%2e", 404),
        ("GET", "/predict", 405),
        ("PUT", "/predict", 405),
        ("HEAD", "/predict", 405),
        ("DELETE", "/meta", 405),
        ("POST", "/predict?mode=upside-down", 400),
        ("POST", "/predict?stride=2", 400),
        ("POST", "/predict?speed=2", 400),
        ("POST", "/predict?channels=bgr", 400),
        ("POST", "/jobs?stride=0", 400),
        ("POST", "/jobs?smooth=much", 400),
        ("POST", "/jobs?start=soon", 400),
        ("POST", "/jobs?start=5&end=2", 400),
    ],
)
def test_a_wrong_request_is_answered_with_a_sentence(client, method, path, status):
    answer = client.request(method, path)
    assert answer.status_code == status
    assert method == "HEAD" or answer.json()["detail"].endswith(".")


def test_head_is_get_without_a_body(client):
    for path in ("/", "/healthz", "/meta"):
        answer = client.head(path)
        assert (answer.status_code, answer.content) == (200, b"")


def test_every_answer_has_the_security_headers(client, justin):
    answers = [client.get("/"), client.get("/nothing"), client.post("/predict", files=files(("a.jpg", justin)))]
    for answer in [*answers, client.get("/meta", headers={"Host": "evil.example"})]:
        assert answer.headers["Content-Security-Policy"] == POLICY
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"


def test_openapi_names_the_routes_and_no_other_machine(client):
    text = client.get("/openapi.json").text
    assert {"/predict", "/explain", "/jobs", "/jobs/{id}", "/meta", "/healthz"} <= json.loads(text)["paths"].keys()
    assert "http://" not in text
    assert "https://" not in text


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "192.168.0.1:8000", "[", ""])
def test_a_name_of_another_machine_is_refused(client, host):
    assert client.get("/healthz", headers={"Host": host}).status_code == 403


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1:1", "[::1]:8000"])
def test_every_name_of_this_machine_is_answered(client, host):
    assert client.get("/healthz", headers={"Host": host}).status_code == 200


def test_only_the_services_own_page_may_ask(client, server):
    for origin, status in ((server.url, 200), ("http://evil.example", 403), ("null", 403), ("http://[", 403)):
        assert client.get("/meta", headers={"Origin": origin}).status_code == status
    with pytest.raises(InvalidStatus, match="403"), connect(socket_of(server), origin="http://evil.example"):
        pass


def test_without_the_token_only_the_page_and_the_health_are_answered(guarded):
    with httpx.Client(base_url=guarded.url, trust_env=False) as stranger:
        assert [stranger.get(path).status_code for path in ("/", "/healthz")] == [200, 200]
        for path in ("/meta", "/openapi.json", "/jobs/x", "/meta?token=s3cre", "/meta?token="):
            assert stranger.get(path).status_code == 401
        for given in ("Bearer wrong", "Bearer", "Basic s3cret", "Bearer s3crét".encode()):
            assert stranger.get("/meta", headers={"Authorization": given}).status_code == 401
        assert stranger.get("/meta?token=s3cret").status_code == 200
        assert stranger.post("/predict", content=b"x" * 10_000_000).status_code == 401
    with pytest.raises(InvalidStatus, match="401"), connect(socket_of(guarded)):
        pass


def test_the_token_opens_everything(guarded, justin):
    with guarded.client() as client:
        assert client.post("/predict", files=files(("a.jpg", justin))).status_code == 200
    with connect(socket_of(guarded, "token=s3cret")) as stream:
        stream.send(justin)
        assert json.loads(stream.recv())["status"] == "ok"


def socket_of(server, query="") -> str:
    return server.url.replace("http", "ws") + f"/stream?{query}"


def test_stream_follows_a_face(server, justin, expected):
    with connect(socket_of(server, "smooth=ema:0.6")) as stream:
        answers = []
        for _ in range(3):
            stream.send(justin)
            answers.append(json.loads(stream.recv()))
    assert [answer["frame"] for answer in answers] == [0, 1, 2]
    assert [answer["faces"][0]["track"] for answer in answers] == [1, 1, 1]
    assert answers[0]["size"] == [381, 384]
    assert answers[0]["faces"][0]["box"] == expected["faces"][0]["box"]
    assert 0 < answers[0]["time"] < answers[1]["time"] < answers[2]["time"]


def test_stream_goes_on_after_garbage(server, justin):
    with connect(socket_of(server)) as stream:
        for garbage in ("text", b"", b"\xff\xd8\xff", justin[:5000], b"\0" * 100_000):
            stream.send(garbage)
            answer = json.loads(stream.recv())
            assert answer["status"] == "unreadable"
            assert answer["message"].endswith(".")
        stream.send(justin)
        assert json.loads(stream.recv())["status"] == "ok"


def test_stream_closes_for_what_it_does_not_know(server):
    for query in ("smooth=much", "mode=upside-down"):
        with pytest.raises((ConnectionClosed, InvalidStatus)), connect(socket_of(server, query)) as stream:
            stream.recv()


@pytest.mark.slow
def test_a_camera_that_stands_still_gives_way(strict, justin):
    with connect(socket_of(strict)) as still:
        time.sleep(1.2)
        with connect(socket_of(strict)) as stream:
            stream.send(justin)
            assert json.loads(stream.recv())["status"] == "ok"
        with pytest.raises(ConnectionClosed) as closed:
            still.recv()
    assert closed.value.rcvd.code == 1013


def test_stream_limits(strict, justin):
    with connect(socket_of(strict)) as first:
        with pytest.raises(ConnectionClosed) as second, connect(socket_of(strict)) as stream:
            stream.recv()
        assert second.value.rcvd.code == 1013
        first.send(justin)
        assert json.loads(first.recv())["status"] == "ok"
        first.send(b"x" * 200_000)
        with pytest.raises(ConnectionClosed) as large:
            first.recv()
        assert large.value.rcvd.code == 1009
    time.sleep(0.5)
    with connect(socket_of(strict)) as idle, pytest.raises(ConnectionClosed) as closed:
        idle.recv()
    assert closed.value.rcvd.code == 1001


def test_ctrl_c_ends_it_and_removes_the_temporary_folder(tmp_path, shared):
    with serving(tmp_path) as own, own.client() as client:
        video = (shared / "media" / "one_face.mp4").read_bytes()
        assert client.post("/jobs", files={"file": ("talk.mp4", video)}).status_code == 202
        assert list(own.temp.rglob("upload")) != []
        with connect(socket_of(own)):
            own.process.send_signal(signal.SIGINT)
            assert own.process.wait(60) == 0
        assert list(own.temp.glob("facerwkv-serve-*")) == []
        assert own.process.stdout.read().endswith("Stopped; the temporary files are removed.\n")
        (notice,) = own.errors.read_text().splitlines()  # and no library's complaint
        assert notice.startswith("facerwkv_fer_tiny may be used for research only")


@pytest.mark.slow
def test_what_a_killed_service_left_is_removed_by_the_next(tmp_path, shared, monkeypatch):
    video = (shared / "media" / "one_face.mp4").read_bytes()
    with serving(tmp_path / "killed") as killed, killed.client() as client:
        client.post("/jobs", files={"file": ("talk.mp4", video)})
        (left,) = killed.temp.glob("facerwkv-serve-*")
        monkeypatch.setattr(tempfile, "tempdir", str(killed.temp))
        with locked_folder():
            pass
        assert left.is_dir()  # somebody works there
        killed.process.kill()
        killed.process.wait(60)
    with locked_folder():
        pass
    assert list(killed.temp.iterdir()) == []


def health_over(connection: socket.socket) -> bytes:
    connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    answer = b""
    while not answer.endswith(b"}"):
        answer += connection.recv(10_000)
    return answer


def test_headers_that_never_end_close_the_connection(strict):
    place = urlsplit(strict.url).hostname, urlsplit(strict.url).port
    silent, slow, good = (socket.create_connection(place, timeout=30) for _ in range(3))
    for _ in range(2):  # the clock runs anew for every request
        assert health_over(good).startswith(b"HTTP/1.1 200 OK")
        time.sleep(0.6)
    slow.sendall(b"GET /healthz HTTP/1.1\r\nX-Slow: ")
    assert silent.recv(1) == slow.recv(1) == b""
    assert health_over(good).startswith(b"HTTP/1.1 200 OK")
    for connection in (silent, slow, good):
        connection.close()


def test_who_still_sends_what_is_refused_gets_the_answer(server):
    """A connection closed at once was reset, and the answer lost with it."""
    with socket.create_connection((urlsplit(server.url).hostname, urlsplit(server.url).port), timeout=30) as client:
        client.sendall(b"GET /" + b"x" * 70_000)
        for _ in range(3):
            time.sleep(0.1)
            client.sendall(b"x" * 70_000)
        answer = b"".join(iter(lambda: client.recv(10_000), b""))
    assert answer.startswith(b"HTTP/1.1 400 Bad Request")
    assert answer.endswith(b"Invalid HTTP request received.")


def test_a_busy_port_is_one_sentence(monkeypatch, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setattr(sys, "argv", ["facerwkv", "serve", "--port", str(port)])
        with pytest.raises(SystemExit) as stopped:
            main()
    assert stopped.value.code == 2
    sentence = f"facerwkv: Port {port} of 127.0.0.1 cannot be used: address already in use. Choose another: --port.\n"
    assert capsys.readouterr().err == sentence


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--limit", "size=1"], "Unknown key 'size'. Known keys there: upload_bytes"),
        (["--limit", "jobs=0"], "jobs: Input should be greater than 0 (given: '0')."),
        (["--host", "nowhere.invalid"], "The host nowhere.invalid is no address of this machine"),
        (["--host", "192.0.2.1"], "The host 192.0.2.1 is no address of this machine"),
        (["--allowed-host", "https://a.example"], "'https://a.example' is no host: give its name alone"),
        (["--root-path", "/a/../b"], "'/a/../b' is no prefix of an address: write it as /faces."),
        (["--model", "nothing"], "nothing does not exist"),
    ],
)
def test_what_cannot_be_served_is_one_sentence(monkeypatch, capsys, options, sentence):
    monkeypatch.setattr(sys, "argv", ["facerwkv", "serve", *options])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert sentence in capsys.readouterr().err


def test_another_machines_host_gets_a_token(tmp_path):
    with serving(tmp_path, "--host", "0.0.0.0") as own:
        url = own.url
        assert url.startswith("http://127.0.0.1:")
        assert httpx.get(f"{url}/meta", trust_env=False).status_code == 401
        token = own.line.partition("?token=")[2].strip()
        answer = httpx.get(f"{url}/meta?token={token}", headers={"Host": "my-machine:80"}, trust_env=False)
        assert len(token) >= 20
        assert answer.status_code == 200


def test_answers_do_not_wait_for_full_packets():
    """asyncio turns Nagle's algorithm off for sockets that say TCP: it cost every answer 40 ms."""
    with _listening("127.0.0.1", 0) as listening:
        assert listening.proto == socket.IPPROTO_TCP
