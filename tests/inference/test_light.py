"""Prediction without PyTorch: what needs none works, and what needs it says what to type."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from facerwkv.core.errors import InputError
from facerwkv.core.packages import INSTALL, TRAIN
from facerwkv.core.runtime import onnxruntime
from facerwkv.inference.predictor import load

ROOT = Path(__file__).resolve().parents[2]
PHOTO = ROOT / "docs" / "demo.jpg"
WITHOUT = f"import sys\nsys.modules.update(dict.fromkeys({sorted(TRAIN)}))\n"
"""What makes every package that trains one that is not installed."""

WORKS = """
import importlib, pkgutil
from pathlib import Path
import numpy as np
import facerwkv, facerwkv.inference, facerwkv.media, facerwkv.web
from facerwkv.export.browser import RUNTIME_FILES, export_web
from facerwkv.inference.explain import explain
from facerwkv.web.app import create_app
from fastapi.testclient import TestClient

for package in (facerwkv.inference, facerwkv.media, facerwkv.web):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
photo, runtime = Path(sys.argv[1]), Path(sys.argv[2])
predictor = facerwkv.load()
faces = predictor.predict(photo).faces
frames = [(0.1 * number, np.zeros((64, 64, 3), np.uint8)) for number in range(3)]
streamed = list(facerwkv.stream(predictor, frames, mode="scene"))
explained = explain(predictor, photo, "occlusion")
with TestClient(create_app(predictor), base_url="http://localhost") as client:
    served = client.post("/predict", files={"files": photo.read_bytes()}).json()["results"][0]
    methods = client.get("/meta").json()["methods"]
(runtime / "dist").mkdir(parents=True)
(runtime / "package.json").write_text('{"version": "1.0"}')
for name in RUNTIME_FILES:
    (runtime / "dist" / name).touch()
page = export_web("facerwkv_fer_tiny", runtime / "page", runtime)
print(len(faces), len(streamed), len(explained), len(served["faces"]), methods, page.difference)
"""


def run(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT)


def test_predict_stream_serve_occlusion_and_web_export_need_no_pytorch(tmp_path):
    done = run(WITHOUT + WORKS, PHOTO, tmp_path / "runtime")
    assert done.returncode == 0, done.stderr
    faces, streamed, explained, served, rest = done.stdout.split(maxsplit=4)
    assert faces == explained == served == "10"
    assert (streamed, rest.strip()) == ("3", "['occlusion'] None")


COMMANDS = {
    "train": INSTALL,
    "evaluate --model facerwkv_fer": INSTALL,
    "compare facerwkv_fer": INSTALL,
    "reproduce table1_sizes": INSTALL,
    "demo": INSTALL,
    "bench kernels": INSTALL,
    "models pack facerwkv_fer --out packed": INSTALL,
    "explain photo.jpg": "",
    "explain photo.jpg --method gradient": f"The method gradient, unlike occlusion, needs .*: {INSTALL}",
    "predict photo.jpg --engine torch": INSTALL,
    "predict photo.jpg --engine torch-bfloat16": f"The engine torch-bfloat16, for .*: {INSTALL}",
    "predict photo.jpg --device cuda": f"The device cuda needs .*: {INSTALL}",
    "predict photo.jpg --model plain": f"plain was not packed .*: {INSTALL}. Or .* facerwkv export --model plain",
    "predict photo.jpg --model hf-hub:a/b": "pip install huggingface-hub",
    "doctor": "",
    "models list": "",
    "data list": "",
}
TYPED = """
import io, json
from contextlib import redirect_stderr, redirect_stdout
from facerwkv.cli import main

said = {}
for command in json.loads(sys.argv[1]):
    sys.argv, error, code = ["facerwkv", *command.split()], io.StringIO(), 0
    with redirect_stderr(error), redirect_stdout(io.StringIO()):
        try:
            main()
        except SystemExit as ended:
            code = ended.code or 0
    said[command] = [code, error.getvalue()]
print(json.dumps(said))
"""


def test_a_command_that_needs_pytorch_says_what_to_type(tmp_path):
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "config.json").touch()
    (tmp_path / "photo.jpg").write_bytes(PHOTO.read_bytes())
    done = run(f"import os; os.chdir({str(tmp_path)!r})\n" + WITHOUT + TYPED, json.dumps(list(COMMANDS)))
    assert done.returncode == 0, done.stderr
    for command, (code, text) in json.loads(done.stdout).items():
        if COMMANDS[command]:
            with pytest.raises(AssertionError, match=COMMANDS[command].replace("[", r"\[")):
                raise AssertionError(text)
            assert code == 2, command
        else:
            assert code == 0, (command, text)


def test_a_broken_pytorch_is_told_and_prediction_does_without(tmp_path):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise OSError('libcudart.so: no such file')")
    broken = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
    done = run(broken + TYPED, json.dumps([f"predict {PHOTO}", f"predict {PHOTO} --engine torch", "compare a"]))
    (first, _), *others = json.loads(done.stdout).values()
    assert first == 0
    for code, text in others:
        assert (code, text.count("\n")) == (2, 1)
        assert "cannot be imported (libcudart.so: no such file): pip install --force-reinstall torch" in text


def test_a_missing_or_old_onnxruntime_says_what_to_type(monkeypatch):
    monkeypatch.setattr("onnxruntime.__version__", "1.9.0")
    with pytest.raises(InputError, match=r"needs onnxruntime 1\.\d+ or later, and 1\.9\.0 is installed: pip install -"):
        load("facerwkv_fer_tiny", "cpu", engine="onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match="onnxruntime, which is not installed: pip install --upgrade onnxruntime"):
        onnxruntime("This")

    def broken(name):
        raise ImportError("libdnnl.so: no such file")

    monkeypatch.setattr("facerwkv.core.runtime.importlib.import_module", broken)
    with pytest.raises(InputError, match=r"cannot be imported \(libdnnl\.so: no such file\): pip install .* --force"):
        onnxruntime("This")
