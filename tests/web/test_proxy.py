"""Behind a proxy: other names, a prefix, and nginx itself with the section that the documentation has."""

import json
import os
import re
import shutil
import socket
import subprocess
import time
from contextlib import ExitStack, contextmanager
from io import BytesIO
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from websockets.sync.client import connect

import facerwkv
from facerwkv.web.app import create_app
from tests.web.conftest import MODEL, serving

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "serve.md"


@pytest.fixture(scope="module")
def client():
    app = create_app(facerwkv.load(MODEL, "cpu"), hosts=["Faces.example.org"], root_path="/faces")
    with TestClient(app, "http://faces.example.org") as client:
        yield client


@pytest.mark.parametrize(
    ("host", "status"),
    [("faces.example.org", 200), ("FACES.example.org:8443", 200), ("localhost", 200), ("evil.example.org", 403)],
)
def test_the_names_that_were_allowed_are_answered(client, host, status):
    assert client.get("/healthz", headers={"Host": host}).status_code == status


def test_with_allowed_names_no_other_is_answered_on_any_address():
    app = create_app(facerwkv.load(MODEL, "cpu"), local=False, hosts=["faces.example.org"])
    with TestClient(app, "http://other.example.org") as client:
        answer = client.get("/healthz")
    assert answer.status_code == 403
    assert answer.json()["detail"] == "This service is not reached under this name. Start it with --allowed-host NAME."


@pytest.mark.parametrize("path", ["/healthz", "/", "/page/page.js", "/meta", "/openapi.json"])
def test_the_prefix_may_come_or_not(client, path):
    assert [client.get(prefix + path).status_code for prefix in ("", "/faces")] == [200, 200]


def test_the_prefix_without_its_slash_leads_to_the_page(client):
    answer = client.get("/faces?token=a%26b", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (307, "/faces/?token=a%26b")
    assert client.get("/facesx").status_code == 404
    assert client.get("/openapi.json").json()["servers"] == [{"url": "/faces"}]


def test_the_printed_addresses_work(tmp_path):
    options = "--host", "0.0.0.0", "--root-path", "faces/", "--allowed-host", "faces.example.org"
    with serving(tmp_path, *options, token="a b&c/ü") as own:
        address = own.line.split()[1]
        token = "a%20b%26c%2F%C3%BC"
        assert re.fullmatch(rf"http://127\.0\.0\.1:\d+/faces/\?token={token}", address)
        assert httpx.get(address, trust_env=False).status_code == 200
        assert httpx.get(address.replace("/?", "/meta?"), trust_env=False).status_code == 200
        assert own.process.stdout.readline() == f"Behind the proxy: https://faces.example.org/faces/?token={token}\n"


@contextmanager
def nginx(folder: Path, service: int):
    """nginx with the documentation's section for `location`; its address."""
    if (program := shutil.which("nginx") or shutil.which("/usr/sbin/nginx")) is None:
        pytest.skip("nginx is not installed")
    section = re.search(r"```nginx\n(.*?)```", GUIDE.read_text(), re.DOTALL)[1]
    location = section[section.index("location") : section.rindex("}")].replace(":8000", f":{service}")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    kinds = "client_body fastcgi proxy scgi uwsgi"
    temp = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds.split())
    (folder / "nginx.conf").write_text(
        f"{'user root;' if os.geteuid() == 0 else ''} daemon off; pid {folder}/pid;\n"
        f"error_log {folder}/log; events {{}}\n"
        f"http {{ {temp} access_log off; server {{ listen 127.0.0.1:{port};\n{location}\n}} }}\n"
    )
    command = [program, "-p", str(folder), "-e", str(folder / "log"), "-c", str(folder / "nginx.conf")]
    process = subprocess.Popen(command)
    try:
        until = time.monotonic() + 20
        while time.monotonic() < until:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.slow
def test_behind_nginx(tmp_path, shared):
    face = (shared / "media" / "fer_justin.jpg").read_bytes()
    video = (shared / "media" / "one_face.mp4").read_bytes()
    options = "--allowed-host", "faces.example.org", "--root-path", "/faces"
    with ExitStack() as opened:
        own = opened.enter_context(serving(tmp_path / "service", *options, token="s3cret"))
        url = opened.enter_context(nginx(tmp_path, int(own.url.rpartition(":")[2])))
        headers = {"Host": "faces.example.org", "Authorization": "Bearer s3cret"}
        with httpx.Client(base_url=f"{url}/faces/", headers=headers, timeout=120, trust_env=False) as client:
            page = client.get("")
            assert page.status_code == 200
            assert client.get(re.search(r'src="(page/[^"]+\.js)"', page.text)[1]).status_code == 200
            answer = client.post("predict", files=[("files", ("a.jpg", face))])
            assert answer.json()["results"][0]["status"] == "ok"
            large = BytesIO()
            Image.effect_noise((2600, 2600), 90).convert("RGB").save(large, "PNG")
            assert client.post("predict", files=[("files", ("b.png", large.getvalue()))]).status_code == 200
            job = client.post("jobs", files={"file": ("a.mp4", video)}, params={"stride": 100, "draw": False})
            assert job.status_code == 202
            assert client.delete(f"jobs/{job.json()['id']}").status_code == 204
            origin = {"Origin": "https://faces.example.org"}
            assert client.get("meta", headers=origin).status_code == 200
            assert client.get("meta", headers={"Origin": "https://evil.example.org"}).status_code == 403
        address = urlsplit(url)
        through = socket.create_connection((address.hostname, address.port))
        with connect("ws://faces.example.org/faces/stream?token=s3cret", sock=through) as stream:
            stream.send(face)
            assert json.loads(stream.recv())["status"] == "ok"
