"""Exported models in OpenVINO: the answers are PyTorch's, the checks those of onnxruntime, and nothing is sent."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import pytest
from PIL import Image

from facerwkv import doctor
from facerwkv.core.errors import InputError
from facerwkv.export import export_onnx
from facerwkv.inference.predictor import Predictor, load
from facerwkv.models.graph import TOLERANCE, drawn_images, logits_of
from facerwkv.models.onnx import OnnxModel, Runtime, read_onnx
from facerwkv.models.zoo import MODELS
from tests.export.test_export import BOXES, checkpoint, described, foreign, noise, small, tiny

FIRST = {line.config.mixer: name for name, line in reversed(MODELS.items()) if hasattr(line.config, "mixer")}
"""Mixer → the first model that has it."""


@pytest.fixture(scope="module")
def tiny_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("openvino") / "tiny.onnx"
    export_onnx(tiny(), path)
    return path


def openvino(path: Path) -> OnnxModel:
    return read_onnx(path, "cpu", "openvino").model


@pytest.mark.slow
@pytest.mark.parametrize("mixer", FIRST)
def test_logits_on_drawn_images(mixer, tmp_path):
    original = checkpoint(FIRST[mixer], **small(FIRST[mixer]), depth=2)
    export_onnx(original, tmp_path / "model.onnx")
    images = drawn_images(original.transform)
    expected, found = logits_of(original, images).numpy(), openvino(tmp_path / "model.onnx")(images.numpy())
    assert np.abs(found - expected).max() <= min(TOLERANCE, expected.std(0).max() / 100)


@pytest.mark.slow
def test_prediction_answers_as_with_pytorch(tiny_file):
    images = [noise(seed) for seed in range(3)]
    theirs = Predictor(read_onnx(tiny_file, "cpu", "openvino"), "cpu", lambda rgb: BOXES)
    for one, other in zip(
        Predictor(tiny(), "cpu", lambda rgb: BOXES).predict(images, mode="face"),
        theirs.predict(images, mode="face"),
        strict=True,
    ):
        for a, b in zip(one.faces, other.faces, strict=True):
            assert (a.box, a.probs) == (b.box, pytest.approx(b.probs, abs=1e-4))


@pytest.mark.slow
def test_the_checkpoint_is_the_one_that_onnxruntime_reads(tiny_file):
    ours, theirs = read_onnx(tiny_file, "cpu"), read_onnx(tiny_file, "auto", "openvino")
    for name in ("name", "labels", "transform", "temperature", "card"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert ours.model.session.ends == theirs.model.session.ends


@pytest.mark.slow
def test_the_batch_may_have_any_size_and_threads_may_share_a_model(tiny_file):
    model = openvino(tiny_file)
    images = np.stack([noise(seed, 48, 48) for seed in range(8)])
    with ThreadPoolExecutor(4) as threads:
        alone = np.concatenate([*threads.map(model, np.split(images, 8))])
    assert np.allclose(model(images), alone, atol=1e-5)
    assert model(images[:0]).shape == (0, 7)


@pytest.mark.slow
def test_repr_names_what_computes(tiny_file):
    assert repr(load(tiny_file, engine="openvino")) == "facerwkv4_small (7 labels) on OpenVINO's CPU"


@pytest.mark.slow
@pytest.mark.parametrize("engine", get_args(Runtime))
def test_the_command_sends_nothing_home(tiny_file, tmp_path, engine):
    """OpenVINO's own package counts every import, onnxruntime reports every session; both keep a number for their user
    in their home."""
    Image.fromarray(noise(0)).save(tmp_path / "noise.png")
    code = (
        "import sys; from facerwkv.cli import app; app(sys.argv[1:], standalone_mode=False); "
        "print([name for name in sys.modules if name.startswith('openvino_telemetry')])"
    )
    options = ["--model", str(tiny_file), "--engine", engine, "--mode", "scene", "--json"]
    done = subprocess.run(
        [sys.executable, "-c", code, "predict", str(tmp_path / "noise.png"), *options],
        capture_output=True,
        text=True,
        env={"HOME": str(tmp_path), "PATH": ""},
        check=True,
    )
    result, modules = done.stdout.splitlines()
    assert json.loads(result)["status"] == "ok"
    assert modules == "[]"
    assert [name for name in ("intel", ".cache/Microsoft") if (tmp_path / name).exists()] == []


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({}, "none that `facerwkv export` wrote"),
        (described(temperature=0), "metadata.temperature: Input should be greater than or equal to 0.001"),
        (described(), "is damaged: its graph has .*tensor\\(float\\).*its description says .*tensor\\(uint8\\)"),
    ],
)
def test_a_foreign_file_is_refused(tmp_path, metadata, message):
    foreign(tmp_path / "other.onnx", metadata)
    with pytest.raises(InputError, match=message):
        load(tmp_path / "other.onnx", engine="openvino")


@pytest.mark.parametrize("content", [b"", b"I am a text.", b"\x08\x0a" * 99])
def test_a_broken_file_is_refused(tmp_path, content):
    (tmp_path / "broken.onnx").write_bytes(content)
    with pytest.raises(InputError, match=r"broken\.onnx"):
        load(tmp_path / "broken.onnx", engine="openvino")


def test_weights_that_lie_in_other_files_are_not_read(tiny_file, tmp_path, monkeypatch):
    apart = {"save_as_external_data": True, "location": "weights", "size_threshold": 0}
    onnx.save(onnx.load(tiny_file), tmp_path / "outside.onnx", **apart)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"outside\.onnx cannot be run by OpenVINO \(its weights lie in other files"):
        load(tmp_path / "outside.onnx", engine="openvino")


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("gone.onnx", {}, r"There is no file gone\.onnx"),
        (None, {"device": "mps"}, "OpenVINO has no device 'mps' here. Choose auto or one of: cpu"),
    ],
)
def test_a_wrong_model_or_device_is_a_sentence(tiny_file, tmp_path, monkeypatch, model, options, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        load(model or tiny_file, engine="openvino", **options)


def test_the_missing_package_is_named_with_its_extra(tiny_file, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(InputError, match=r'needs OpenVINO, which is not installed: pip install "facerwkv\[openvino\]"'):
        load(tiny_file, engine="openvino")


def test_the_doctor_names_it(monkeypatch):
    (there,) = doctor.CHECKS["openvino"]()
    assert (there.status, there.found.split(": ")[1].split(", ")[0]) == ("ok", "CPU")
    monkeypatch.setattr(doctor, "_version", lambda distribution: None)
    (gone,) = doctor.CHECKS["openvino"]()
    assert (gone.status, gone.next_step) == ("ok", 'pip install "facerwkv[openvino]"')


def test_a_card_may_speak_of_a_location(tiny_file, tmp_path):
    told = onnx.load(tiny_file)
    card = next(entry for entry in told.metadata_props if entry.key == "card")
    card.value = json.dumps({"note": "on location"})
    onnx.save(told, tmp_path / "told.onnx")
    assert read_onnx(tmp_path / "told.onnx", "cpu", "openvino").card == {"note": "on location"}


SIGNALLED = """
import signal, sys
from facerwkv.inference.predictor import load
signal.signal(signal.SIGCHLD, lambda *_: print("heard"))
models = [load(sys.argv[1], engine="openvino") for _ in range(3)]
while models:
    models.pop(0)
signal.raise_signal(signal.SIGCHLD)
"""


def test_a_signal_is_heard_when_several_were_opened_and_closed(tiny_file):
    done = subprocess.run([sys.executable, "-c", SIGNALLED, str(tiny_file)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "heard\n"), done.stderr
