"""A service in a process of its own, as `facerwkv serve` runs it."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

MODEL = "facerwkv_fer_tiny"


@dataclass
class Server:
    """`url` ends without a slash, `token` is "" where none is needed, `temp` holds the files, `line` the address.

    `errors` is the file of what it said on its standard error.
    """

    url: str
    token: str
    temp: Path
    process: subprocess.Popen
    line: str
    errors: Path

    @property
    def resident(self) -> int:
        """Bytes of memory."""
        return psutil.Process(self.process.pid).memory_info().rss

    def client(self, **options) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=120, trust_env=False, **options)


@contextmanager
def serving(
    folder: Path,
    *arguments: str,
    token: str = "",
    model: str = MODEL,
    program: tuple[str, ...] = ("-m", "facerwkv.cli"),
    **environment: str,
) -> Iterator[Server]:
    """A service with its own working, home and temporary folder, all below `folder`."""
    places = {name: folder / name for name in ("work", "home", "temp")}
    for place in places.values():
        place.mkdir(parents=True)
    given, errors = ["--token", token] if token else [], folder / "errors"
    with errors.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, *program, "serve", "--port", "0", "--model", model, *given, *arguments],
            cwd=places["work"],
            env=os.environ | {"HOME": str(places["home"]), "TMPDIR": str(places["temp"])} | environment,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    try:
        assert process.stdout
        line = next((line for line in process.stdout if line.startswith("Open ")), "")
        url = re.match(r"Open (http://[^/]+)", line)
        assert url, f"the service did not start: exit code {process.wait(60)}, {errors.read_text()}"
        httpx.get(f"{url[1].replace('0.0.0.0', '127.0.0.1')}/healthz", timeout=120, trust_env=False)  # it is set up now
        yield Server(url[1], token, places["temp"], process, line, errors)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)
        sys.stderr.write(errors.read_text())


@pytest.fixture(scope="session")
def server(tmp_path_factory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("service")) as running:
        yield running


@pytest.fixture(scope="session")
def guarded(tmp_path_factory) -> Iterator[Server]:
    """A service that wants a token."""
    with serving(tmp_path_factory.mktemp("guarded"), token="s3cret") as running:
        yield running


STRICT = {
    "streams": 1, "upload_bytes": 150_000, "idle_seconds": 2, "header_seconds": 1, "upload_seconds": 2,
    "memory_bytes": 90_000,
}  # fmt: skip


@pytest.fixture(scope="session")
def strict(tmp_path_factory) -> Iterator[Server]:
    """A service whose limits are so narrow that a test reaches them in seconds."""
    limits = [word for key, value in STRICT.items() for word in ("--limit", f"{key}={value}")]
    with serving(tmp_path_factory.mktemp("strict"), *limits) as running:
        yield running


@pytest.fixture
def client(server):
    with server.client() as client:
        yield client
