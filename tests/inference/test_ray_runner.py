"""Prediction on Ray: a real cluster of this machine's cores, a real kill -9."""

import csv
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from facerwkv.core.errors import InputError
from facerwkv.data.toy.scenes import render
from facerwkv.inference.predictor import load
from facerwkv.inference.ray_runner import Journal, predict_on_ray
from facerwkv.inference.results import Result

MODEL = "facerwkv_fer_tiny"
RESULT = {"source": "a.jpg", "status": "no_face", "faces": []}


@pytest.fixture
def images(tmp_path) -> Path:
    """Forty drawn scenes and a file that is none."""
    folder = tmp_path / "images"
    folder.mkdir()
    from PIL import Image

    for index in range(40):
        Image.fromarray(render(index, "test").image).save(folder / f"{index}.png")
    (folder / "broken.png").write_text("no image")
    return folder


class TestJournal:
    def test_it_keeps_what_is_done(self, tmp_path):
        for name in ("a.jpg", os.fsdecode(b"\xff.jpg")):
            with closing(Journal(tmp_path / "j", {"model": "m"})) as journal:
                assert name not in journal
                journal[name] = RESULT
        with closing(Journal(tmp_path / "j", {"model": "m"})) as journal:
            assert journal["a.jpg"] == RESULT
            assert os.fsdecode(b"\xff.jpg") in journal
            with pytest.raises(KeyError):
                journal["b.jpg"]

    def test_another_model_is_refused(self, tmp_path):
        Journal(tmp_path / "j", {"model": "m"}).close()
        with pytest.raises(InputError, match="another model or of other options"):
            Journal(tmp_path / "j", {"model": "n"})

    def test_a_file_that_is_none_is_refused(self, tmp_path):
        (tmp_path / "j").write_text("source,label\n" * 100)
        with pytest.raises(InputError, match=r"Cannot keep a journal in .*not a database"):
            Journal(tmp_path / "j", {})


def test_a_result_comes_back_from_its_values(shared):
    result = load(MODEL, "cpu").predict(shared / "media" / "couple.jpg")
    again = Result.from_dict({**result.to_dict(), "size": list(result.size)})
    assert (again.to_dict(), again.size) == (result.to_dict(), result.size)
    assert again.plot().size == result.plot().size


def test_videos_are_refused():
    with pytest.raises(InputError, match=r"talk.mp4 is a video: predict it without the runner ray"):
        predict_on_ray(["a.jpg", "talk.mp4"], MODEL)


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r'pip install "facerwkv\[ray\]"'):
        predict_on_ray(["a.jpg"], MODEL)


def command(images: Path, out: Path, *more: str) -> list[str]:
    given = [str(images), "--model", MODEL, "--device", "cpu", "--out", str(out), "--batch-size", "4"]
    return [sys.executable, "-m", "facerwkv.cli", "predict", *given, *more]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_a_killed_prediction_goes_on_and_gives_what_one_process_gives(images, tmp_path):
    out, journal = tmp_path / "ray.csv", tmp_path / "ray.csv.journal"
    first = subprocess.Popen(command(images, out, "--runner", "ray"), stdout=subprocess.PIPE, text=True)
    lines = [first.stdout.readline() for _ in range(6)]
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    time.sleep(1)
    assert all(lines)
    assert not out.exists()
    with closing(
        Journal(journal, {"model": MODEL, "options": {"batch_size": 4, "mode": "auto", "on_no_face": "empty"}})
    ) as kept:
        done = [name for name in map(str, images.iterdir()) if name in kept]
    assert 5 <= len(done) < 41
    second = subprocess.run(command(images, out, "--runner", "ray"), capture_output=True, text=True, timeout=500)
    assert second.returncode == 1, second.stderr  # one file is no image
    assert not journal.exists()
    alone = tmp_path / "alone.csv"
    assert subprocess.run(command(images, alone), capture_output=True, timeout=500).returncode == 1
    assert [row["source"] for row in rows(out)] == [row["source"] for row in rows(alone)]
    assert [row["label"] for row in rows(out)] == [row["label"] for row in rows(alone)]
    assert [float(row["score"] or 0) for row in rows(out)] == pytest.approx(
        [float(row["score"] or 0) for row in rows(alone)], abs=1e-5
    )
