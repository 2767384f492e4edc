"""A wheel, installed into empty environments: the README's quick start, and the versions that are allowed."""

import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.packages import ROOT, UV, call, fetched, tracked

README = (ROOT / "README.md").read_text(encoding="utf-8")
pytestmark = pytest.mark.slow
EXTRAS = ("av", "fastapi", "lightning", "onnx", "openvino", "pyarrow", "ray", "timm", "torch", "torchvision")
LARGEST = 350  # MiB of an installation that predicts, as du counts


@pytest.fixture(scope="module")
def python(wheel) -> Path:
    """The Python of an empty environment with the wheel in it, taken from uv's cache."""
    folder = wheel.parent / "empty"
    call(*UV, "venv", "--python", sys.executable, folder)
    there = folder / "bin" / "python"
    call(*UV, "pip", "install", "--offline", "--python", there, "--constraint", ROOT / "constraints.txt", wheel)
    return there


def test_the_sdist_has_the_tests_the_documentation_and_all_else(sdist):
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {name for name in tracked() if not name.startswith(".git")} - names == set()


def test_one_wheel_is_for_every_python_and_every_processor_of_its_kind(wheel, python):
    assert wheel.stem.split("-")[2:4] == ["py3", "none"]
    assert [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith((".so", ".c", ".h"))] == [
        "facerwkv/kernels/native/_native.so"
    ]
    threads = "import ctypes; ctypes.CDLL('libgomp.so.1', ctypes.RTLD_GLOBAL)\n"  # PyTorch brings them
    levels = "from facerwkv.kernels.native.loading import load; print(load().handle.facerwkv_levels().decode())"
    assert call(python, "-c", threads + levels, cwd=wheel.parent).split()[0] in ("baseline", "plain")


@pytest.mark.skipif(shutil.which("readelf") is None, reason="readelf (binutils) is not installed")
def test_the_library_needs_the_c_library_alone_of_a_version_that_all_have(wheel):
    with zipfile.ZipFile(wheel) as archive:
        library = archive.extract("facerwkv/kernels/native/_native.so", wheel.parent / "unpacked")
    listed = call("readelf", "--wide", "--dynamic", "--dyn-syms", library)
    assert set(re.findall(r"\(NEEDED\).*\[(.*?)\.so", listed)) <= {"libc", "libm"}
    assert max(tuple(map(int, found.split("."))) for found in re.findall(r"GLIBC_([\d.]+)", listed)) <= (2, 17)
    assert {name for name in re.findall(r" UND (\w+)$", listed, re.MULTILINE) if name.startswith("Py")} == set()


def test_clang_builds_a_library_that_loads(sdist, tmp_path):
    if shutil.which("clang") is None:
        pytest.skip("clang is not installed")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    call("env", "CC=clang", sys.executable, "setup.py", "-q", "build_ext", "--inplace", cwd=source)
    found = "from facerwkv.kernels.native.loading import load; print(load().threaded)"
    assert call(sys.executable, "-c", found, cwd=source).strip() == "False"


def test_the_wheel_has_all_that_is_no_code(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    data = [
        path
        for path in (ROOT / "facerwkv").rglob("*")
        if path.suffix in {".yaml", ".safetensors", ".onnx", ".json", ".html", ".js", ".css"}
    ]
    assert len(data) > 20
    assert [str(path.relative_to(ROOT)) for path in data if str(path.relative_to(ROOT)) not in names] == []
    assert not [name for name in names if name.startswith(("tests/", "docs/"))]


def test_the_wheel_tells_its_licences(wheel):
    with zipfile.ZipFile(wheel) as file:
        names = file.namelist()
        metadata = file.read(next(name for name in names if name.endswith("METADATA"))).decode()
    files = {name.partition("/licenses/")[2] for name in names if ".dist-info/licenses/" in name}
    assert files == {"LICENSE", *(f"LICENSES/{path.name}" for path in (ROOT / "LICENSES").iterdir())}
    assert "License-Expression: Apache-2.0\n" in metadata
    assert "](docs/" not in metadata


def test_the_quick_start_runs_in_an_empty_environment(python, shared, tmp_path):
    shutil.copyfile(shared / "media" / "couple.jpg", tmp_path / "party.jpg")
    lines = re.search(r"^## Use it\n\n```\n(.*?)^```", README, re.MULTILINE | re.DOTALL)[1].splitlines()
    first = next(line.split("#")[0].split() for line in lines if line.startswith("facerwkv predict party.jpg"))
    out = call(python.parent / first[0], *first[1:], cwd=tmp_path)
    assert out.count('"label": "') == 2
    assert (tmp_path / "drawn" / "party_drawn.jpg").stat().st_size > 10_000
    example = re.search(r"^```python\n(.*?)^for frame in", README, re.MULTILINE | re.DOTALL)[1]
    assert "happiness" in call(python, "-c", example, cwd=tmp_path)


def test_the_core_needs_no_extra_and_names_the_one_that_is_missing(python, tmp_path):
    found = f"import importlib.util as i; print([m for m in {EXTRAS} if i.find_spec(m)])"
    assert call(python, "-c", found, cwd=tmp_path).strip() == "[]"
    doctor = call(python.parent / "facerwkv", "doctor", cwd=tmp_path)
    for extra in ("train", "video", "serve", "parquet", "ray", "openvino"):
        assert f"pip install 'facerwkv[{extra}]'" in doctor


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("versions", "number"),
    [("lowest-direct", "3.11"), *(("highest", number) for number in ("3.11", "3.12", "3.13", "3.14"))],
)
def test_it_works_with_the_lowest_and_the_newest_versions(wheel, tmp_path, versions, number):
    found = subprocess.run([*UV, "python", "find", "--no-python-downloads", number], capture_output=True, text=True)
    if found.returncode:
        pytest.skip(f"Python {number} is not installed")
    place, work = tmp_path / "environment", tmp_path / "work"
    call(*UV, "venv", "--python", found.stdout.strip(), place)
    fetched(*UV, "pip", "install", "--python", place, "--resolution", versions, f"{wheel}[all]")
    work.mkdir()
    photos = (ROOT.parent / "shared" / "media").glob("couple.jpg")  # where it is missing, a drawn one
    assert call(place / "bin" / "python", "-P", ROOT / "tests" / "smoke.py", work, *photos, seconds=1500) == "works\n"


def test_what_predicts_is_small(python):
    files = [path for path in (python.parents[1] / "lib").rglob("*") if path.is_file() and not path.is_symlink()]
    size = sum(path.stat().st_blocks for path in files if path.suffix != ".pyc") / 2**11
    assert size < LARGEST
