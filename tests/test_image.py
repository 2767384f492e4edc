"""The container image without containers: its install step, its size, and its service on a read-only file system."""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from tests.packages import ROOT, UV, call, fetched

LINES = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
PLACE = "/opt/facerwkv"
READ_ONLY = ["unshare", "--mount", "sh", "-c", 'mount -o remount,bind,ro / && mount -t tmpfs none "$0" && exec "$@"']
MOST, BASE = 1_500_000_000, 150_000_000  # bytes of the image, and of python:slim in it


def lines(word: str) -> list[str]:
    return [line.removeprefix(word).strip() for line in LINES if line.startswith(f"{word} ")]


def test_the_image_runs_as_nobody_and_tells_its_health():
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", lines("USER")[-1])
    assert len(lines("HEALTHCHECK")) == 1


def test_what_the_build_needs_is_not_left_out():
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[0] == "!"}
    assert kept == {"facerwkv", "LICENSES", "LICENSE", "README.md", "constraints.txt", "pyproject.toml", "setup.py"}
    assert [name for name in kept if not (ROOT / name).exists()] == []


@pytest.fixture(scope="module")
def image(wheel, tmp_path_factory) -> Path:
    """What the build leaves in PLACE, by the same commands, but of a wheel of these sources.

    Where PyTorch's builds for CPUs cannot be reached, with the usual build.
    """
    folder = tmp_path_factory.mktemp("image") / "facerwkv"
    (step,) = (line for line in lines("RUN") if PLACE in line)
    for old, new in (("/source/constraints.txt", ROOT / "constraints.txt"), ("/source[", f"{wheel}["), (PLACE, folder)):
        step = step.replace(old, str(new))
    make, install = (shlex.split(command)[1:] for command in step.split("&&"))
    call(*UV, *make, "--python", sys.executable)
    try:
        call(*UV, *install, seconds=1500)
    except AssertionError:
        fetched(*UV, *(word for word in install if word not in ("--torch-backend", "cpu")))
    return folder


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_image_stays_below_its_size(image):
    if any(image.rglob("libtorch_cuda.so")):
        pytest.skip("PyTorch's builds for CPUs cannot be reached")
    assert sum(path.lstat().st_size for path in image.rglob("*")) < MOST - BASE


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_service_of_the_image_is_healthy_on_a_read_only_file_system(image, tmp_path):
    command, check = json.loads(lines("ENTRYPOINT")[0]), json.loads(lines("HEALTHCHECK")[0].partition("CMD ")[2])
    port = "8917"
    command[-1], check[-1] = port, check[-1].replace(":8000/", f":{port}/")
    environment = {"PATH": f"{image}/bin:{os.environ['PATH']}", "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    if subprocess.run([*READ_ONLY, str(tmp_path), "true"], capture_output=True).returncode:
        pytest.skip("this user may not mount anything (unshare --mount)")
    service = subprocess.Popen([*READ_ONLY, str(tmp_path), *command], env=environment, cwd="/", stdout=subprocess.PIPE)
    try:
        for _ in range(120):
            checked = subprocess.run(check, env=environment, capture_output=True)
            if checked.returncode == 0:
                break
            time.sleep(1)
        assert checked.returncode == 0, checked.stderr[-500:]
        with pytest.raises(HTTPError, match="401"):
            urlopen(f"http://127.0.0.1:{port}/meta")
    finally:
        service.terminate()
        assert service.wait(30) == 0
