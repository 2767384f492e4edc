"""The command line as its users meet it: real files, exit codes; a process of its own where that is what is tested."""

import json
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image
from typer.main import get_command
from typer.testing import CliRunner

from facerwkv.cli import app
from facerwkv.models.zoo import MODELS
from facerwkv.training.module import train
from facerwkv.training.recipe import Recipe
from tests.commands import facerwkv


def process(*arguments, **options):
    command = [sys.executable, "-m", "facerwkv.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    changes = ["data.source=toy:train=14,val=7,test=7", "train.epochs=1", "data.cache=false", "train.device=cpu"]
    recipe = Recipe.read("demo", [*changes, "transform={image_size: [32, 32], crop: face}"])
    return train(recipe, tmp_path_factory.mktemp("cli") / "run", progress=False)


@pytest.fixture
def images(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "good.png")
    (tmp_path / "empty.jpg").write_bytes(b"")
    return tmp_path


def test_help_comes_at_once():
    started = time.perf_counter()
    done = process("--help")
    seconds = time.perf_counter() - started
    assert done.returncode == 0
    for command in ("train", "evaluate", "predict", "data", "models", "doctor"):
        assert command in done.stdout
    assert seconds < 3, "it takes 0.4 s on a quiet machine"


def test_help_imports_no_torch():
    code = """
import sys
from facerwkv.cli import app
app(["--help"], standalone_mode=False)
print([name for name in ("torch", "cv2", "numpy", "pydantic") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def _commands(group, path=()):
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, (*path, name))
        else:
            yield *path, name


@pytest.mark.parametrize("words", list(_commands(get_command(app))), ids=" ".join)
def test_every_command_has_help(words):
    result = CliRunner().invoke(app, [*words, "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.output


def test_models_as_json():
    listed = json.loads(facerwkv("models", "list", "--json").stdout)
    assert [facts["name"] for facts in listed] == list(MODELS)
    assert {facts["name"]: facts["parameters"] for facts in listed}["facerwkv_hybrid"] == 14_998_375


def test_predict_prints_a_line_a_image_and_says_what_failed(run_folder, images):
    done = facerwkv("predict", images, "--model", run_folder, "--mode", "scene", "--device", "cpu", "--json")
    assert done.returncode == 1
    empty, good = map(json.loads, done.stdout.splitlines())
    assert (empty["status"], empty["faces"]) == ("unreadable", [])
    assert good["status"] == "ok"
    (face,) = good["faces"]
    assert "box" not in face
    assert sum(face["probs"].values()) == pytest.approx(1)


def test_predict_reads_a_list_from_a_pipe_and_writes_a_table(run_folder, images):
    out = images / "out.csv"
    options = ["--model", run_folder, "--mode", "scene", "--out", out, "--device", "cpu"]
    done = process("predict", "-", *options, input=f"{images / 'good.png'}\n")
    assert done.returncode == 0
    assert [json.loads(line)["status"] for line in done.stdout.splitlines()] == ["ok"]
    assert out.read_text().splitlines()[0].startswith("source,status,x1,y1,x2,y2,label,score,anger")


def test_predict_says_what_is_below_the_threshold(run_folder, images):
    options = ["--model", run_folder, "--mode", "scene", "--device", "cpu"]
    good, out = images / "good.png", images / "out.csv"
    done = facerwkv("predict", good, *options, "--threshold", "1", "--json", "--out", out, "--save-media", images)
    (face,) = json.loads(done.stdout)["faces"]
    assert face["unsure"] is True
    assert face["label"] == max(face["probs"], key=face["probs"].get)
    assert out.read_text().splitlines()[0].startswith("source,status,x1,y1,x2,y2,label,score,unsure,anger")
    assert (images / "good_drawn.jpg").is_file()


def test_evaluate_prints_one_object(run_folder, tmp_path):
    done = facerwkv("evaluate", "--model", run_folder, "--json", "--out", tmp_path / "report", "--device", "cpu")
    scores = json.loads(done.stdout)
    assert {"accuracy", "uar", "macro_f1", "ece", "per_class", "n"} <= scores.keys()
    assert scores["accuracy"].keys() == {"value", "low", "high"}
    assert (tmp_path / "report" / "report.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "--data", "fer2013:/nowhere"), "/nowhere does not exist"),
        (("train", "--data", "fer2014:/nowhere"), "fer2013"),
        (("train", "--recipe", "papyrus"), "There is no recipe 'papyrus'"),
        (("train", "train.epoch=3"), "Unknown key 'train.epoch'"),
        (("train", "--model", "resnet9000"), "Unknown model 'resnet9000'"),
        (("train", "--resume", "/nowhere"), "/nowhere is not a run"),
        (("evaluate", "--model", "/nowhere"), "/nowhere does not exist"),
        (("predict", "a.jpg", "--model", "/nowhere"), "/nowhere does not exist"),
        (("predict", "a.jpg", "--model", "gone.onnx"), "There is no file gone.onnx"),
        (("export", "--model", "/nowhere", "--out", "a.onnx"), "/nowhere does not exist"),
        (("export", "--model", "runs/a", "--out", "a.tflite", "--format", "tflite"), "Invalid value for '--format'"),
        (("models", "info", "resnet9000"), "Known models: facerwkv_small"),
        (("reproduce", "table9"), "Known experiments: all, sanity"),
        (("data", "check", "/nowhere"), "NAME:ROOT"),
        (("predict", "a.jpg", "--threshold", "2"), "Invalid value for '--threshold'"),
        (("predict",), "Missing"),
    ],
)
def test_wrong_use_is_a_sentence_and_exit_code_2(arguments, message, tmp_path):
    done = facerwkv(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_process_ends_with_the_exit_code_of_wrong_use(tmp_path):
    done = process("predict", "a.jpg", "--model", "gone.onnx", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("facerwkv: There is no file gone.onnx")


def test_a_pickle_is_not_opened(tmp_path):
    (tmp_path / "model.pt").write_bytes(b"cos\nsystem\n(S'touch hacked'\ntR.")
    done = facerwkv("predict", "a.jpg", "--model", tmp_path / "model.pt", cwd=tmp_path)
    assert done.returncode == 2
    assert "is a pickle" in done.stderr
    assert not (tmp_path / "hacked").exists()


def test_two_faces_and_none(run_folder, shared):
    images = [shared / "media" / name for name in ("couple.jpg", "fer_no-faces.jpg")]
    done = facerwkv("predict", *images, "--mode", "face", "--model", run_folder, "--device", "cpu")
    assert done.returncode == 0
    couple, nobody = map(json.loads, done.stdout.splitlines())
    assert len(couple["faces"]) == 2
    assert (nobody["status"], nobody["faces"]) == ("no_face", [])
