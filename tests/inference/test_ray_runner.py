"""Prediction on Ray: a real cluster of this machine's cores, a real kill -9."""

import copy
import csv
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from facerwkv.core.errors import InputError
from facerwkv.data.toy.scenes import render
from facerwkv.inference.options import Options
from facerwkv.inference.predictor import Predictor, load
from facerwkv.inference.ray_runner import Journal, identity_of, predict_on_ray
from facerwkv.inference.results import Result
from facerwkv.media.faces import PACKAGED

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
                assert journal.get(name) is None
                journal[name] = RESULT
        with closing(Journal(tmp_path / "j", {"model": "m"})) as journal:
            assert journal.get("a.jpg") == RESULT
            assert journal.get(os.fsdecode(b"\xff.jpg")) == RESULT
            assert journal.get("b.jpg") is None

    def test_a_file_that_is_none_is_refused(self, tmp_path):
        (tmp_path / "j").write_text("source,label\n" * 100)
        with pytest.raises(InputError, match=r"Cannot keep a journal in .*not a database"):
            Journal(tmp_path / "j", {})


OTHER = {
    name: schema.get("enum", [not schema.get("default")])[-1]
    for name, schema in Options.model_json_schema()["properties"].items()
}
OTHER |= {"batch_size": 5, "min_face": 7, "stride": 2, "fps": 5.0, "start": 1.0, "end": 9.0, "threshold": 0.5}
OTHER |= {"smooth": "ema:0.5", "max_pixels": 9, "align": "none", "search_every": 3}
del OTHER["errors"]  # changes no answer


class TestIdentity:
    """The journal of a prediction goes on only where nothing that changes an answer is another."""

    @pytest.fixture(scope="class")
    def predictor(self):
        return load(MODEL, "cpu", engine="torch")

    def refused(self, tmp_path, first: dict, second: dict) -> str:
        Journal(tmp_path / "j", first).close()
        Journal(tmp_path / "j", first).close()
        with pytest.raises(InputError) as refusal:
            Journal(tmp_path / "j", second)
        return str(refusal.value).partition(" keeps results of other settings: ")[2]

    @pytest.mark.parametrize("name", OTHER)
    def test_another_option(self, tmp_path, predictor, name):
        first = identity_of(predictor, MODEL, None, None, Options())
        second = identity_of(predictor, MODEL, None, None, Options(**{name: OTHER[name]}))
        assert first[name] != second[name]
        words = f"{name} was {first[name]} and is {second[name]}. Remove it, or choose another --out."
        assert self.refused(tmp_path, first, second) == words

    def test_another_model(self, tmp_path, predictor):
        first = identity_of(predictor, MODEL, None, None, Options())
        changed = copy.deepcopy(predictor.checkpoint.model)
        next(changed.parameters()).data.view(-1)[0] += 1e-3
        for other in (
            replace(predictor.checkpoint, model=changed),
            replace(predictor.checkpoint, labels=predictor.labels[::-1]),
            replace(predictor.checkpoint, temperature=0.5),
        ):
            second = identity_of(Predictor(other, "cpu"), MODEL, None, None, Options())
            (tmp_path / "j").unlink(missing_ok=True)
            assert self.refused(tmp_path, first, second).startswith(f"model was {first['model']} and is ")

    def test_another_exported_file_and_engine(self, tmp_path, predictor):
        for content in (b"one", b"two"):
            (tmp_path / f"{content.decode()}.onnx").write_bytes(content)
        one, two = tmp_path / "one.onnx", tmp_path / "two.onnx"
        first = identity_of(predictor, one, None, None, Options())
        assert first == identity_of(predictor, one, None, "onnx", Options())
        assert self.refused(tmp_path, first, identity_of(predictor, two, None, None, Options())).startswith("model was")
        (tmp_path / "j").unlink()
        second = identity_of(predictor, one, None, "openvino", Options())
        assert self.refused(tmp_path, first, second).startswith("engine was onnx and is openvino.")

    def test_another_detector(self, tmp_path, predictor):
        (tmp_path / "same.onnx").write_bytes(PACKAGED.read_bytes())
        (tmp_path / "other.onnx").write_bytes(b"another")
        first = identity_of(predictor, MODEL, None, None, Options())
        assert first == identity_of(predictor, MODEL, tmp_path / "same.onnx", None, Options())
        second = identity_of(predictor, MODEL, tmp_path / "other.onnx", None, Options())
        assert self.refused(tmp_path, first, second).startswith(f"detector was {first['detector']} and is ")


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
    identity = identity_of(load(MODEL, "cpu"), MODEL, None, None, Options(batch_size=4))
    with closing(Journal(journal, identity)) as kept:
        done = [name for name in map(str, images.iterdir()) if kept.get(name)]
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
