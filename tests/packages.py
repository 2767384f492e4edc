"""Builds of this project and environments for them, by uv; what is installed comes from its cache or a registry."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
UV = [sys.executable, "-m", "uv"]
KEPT = ("HOME", "PATH", "SSL_CERT_FILE", "UV_CACHE_DIR")
UNREACHABLE = re.compile(
    r"dns error|error sending request|failed to fetch|operation timed out|tcp connect", re.IGNORECASE
)


def call(*command: object, cwd: Path | None = None, seconds: int = 500) -> str:
    """A program's output; the environment of this one is not handed on."""
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=kept, capture_output=True, text=True, timeout=seconds)
    assert done.returncode == 0, f"{command}: {done.stderr[-2000:]}"
    return done.stdout


def fetched(*command: object) -> None:
    """Run what may ask a registry. The test is skipped where none can be reached."""
    try:
        call(*command, seconds=1500)
    except AssertionError as error:
        if found := UNREACHABLE.search(str(error)):
            pytest.skip(f"no package registry can be reached ({found[0]})")
        raise


def tracked() -> list[str]:
    """What belongs to the project: git's files, and those not yet added."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, check=True
    )
    return [name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()]


def build_sdist(folder: Path) -> Path:
    """Built from a copy without git, in which nothing lies that an earlier build left."""
    for name in tracked():
        (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / "source" / name)
    return _build("--sdist", folder, folder / "source", "*.tar.gz")


def build_wheel(folder: Path, sdist: Path) -> Path:
    return _build("--wheel", folder, sdist, "*.whl")


def _build(kind: str, folder: Path, source: Path, pattern: str) -> Path:
    options = [kind, "--no-build-isolation", "--offline", "--out-dir", folder, "--python", sys.executable]
    call(*UV, "build", *options, source)
    return next(folder.glob(pattern))
