"""The command line as its users meet it: real files, exit codes; a process of its own where that is what is tested."""

import inspect
import io
import json
import logging
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Literal, get_args, get_origin

import numpy as np
import pytest
from PIL import Image
from typer.main import get_command
from typer.testing import CliRunner

import facerwkv as facerwkv_package
from facerwkv import cli
from facerwkv.cli import RECIPES, app
from facerwkv.data.config import Views
from facerwkv.evaluation.evaluate import Split
from facerwkv.inference.explain import METHODS
from facerwkv.inference.options import facts
from facerwkv.inference.predictor import Engine
from facerwkv.models.zoo import MODELS
from facerwkv.training.module import train
from facerwkv.training.recipe import Recipe, shipped
from tests.commands import facerwkv

COLUMNS = "source,status,width,height,x1,y1,x2,y2,detection,label,score"


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


def cpu_seconds(*arguments, below):
    """The processor time of `facerwkv` in a process of its own, the least of up to three, and what the last printed."""
    least, tries = float("inf"), 0
    while least >= below and (tries := tries + 1) <= 3:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = process(*arguments)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        least = min(least, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return least, done


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_come_at_once(option):
    seconds, done = cpu_seconds(option, below=0.3)
    assert done.returncode == 0
    expected = [f"facerwkv {facerwkv_package.__version__}"] if option == "--version" else ["train", "predict", "doctor"]
    assert all(word in done.stdout for word in expected)
    assert seconds < 0.3


@pytest.mark.parametrize(
    ("change", "known"),
    [
        ("data.soruce=x", "source, labels"),
        ("model.options.depht=3", "image_size, in_chans"),
        ("optim.lrr=1", "name, lr"),
    ],
)
def test_a_wrong_key_is_named_at_once(change, known):
    seconds, done = cpu_seconds("train", change, below=1)
    key = change.partition("=")[0]
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"facerwkv: Unknown key '{key}'. Known keys there: {known}")
    assert seconds < 1


def test_help_imports_no_torch():
    code = """
import sys
from facerwkv.cli import app
app(["--help"], standalone_mode=False)
print([name for name in ("torch", "cv2", "numpy", "pydantic", "rich") if name in sys.modules])
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


def _literals(annotation):
    """The values that a Literal allows, inside Annotated, unions and lists too."""
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return next(filter(None, map(_literals, get_args(annotation))), ())


def _choices():
    """Command and option → the values that it takes, where they are a fixed set."""
    group = get_command(app)
    for words in _commands(group):
        command = group
        for word in words:
            command = command.commands[word]
        for name, parameter in inspect.signature(command.callback).parameters.items():
            if values := _literals(parameter.annotation):
                yield (*words, name), values


CHOICES = {
    ("evaluate", "split"): get_args(Split),
    ("evaluate", "tta"): get_args(Views),
    ("compare", "split"): get_args(Split)[1:],
    ("predict", "engine"): get_args(Engine),
    ("predict", "runner"): ("local", "ray"),
    ("export", "kind"): ("onnx", "web"),
    ("serve", "engine"): get_args(Engine),
}


def test_choices_are_those_of_the_library():
    assert dict(_choices()) == CHOICES


def test_help_names_the_ways_to_explain():
    assert f"{', '.join([*METHODS][:-1])} or {[*METHODS][-1]}" in facerwkv("explain", "--help").stdout


def test_help_lists_the_shipped_recipes():
    assert sorted(RECIPES) == shipped()


TYPED = [
    (["--data", "imagefolder:/x/my #faces"], "data.source", "imagefolder:/x/my #faces"),
    (["--data", "imagefolder:/x/a: b"], "data.source", "imagefolder:/x/a: b"),
    (["--labels", "yes,no"], "data.labels", ("yes", "no")),
    (["--labels", "1, 2,03"], "data.labels", ("1", "2", "03")),
    (["--model", "facerwkv_fer"], "model.name", "facerwkv_fer"),
    (["--init-from", "runs/my #1: run"], "init_from", "runs/my #1: run"),
    (["--init-from", "007"], "init_from", "007"),
    (["--device", "cpu"], "train.device", "cpu"),
    (["--drop-leaks"], "data.drop_leaks", True),
]


@pytest.mark.parametrize(("options", "key", "value"), TYPED)
def test_what_is_typed_arrives_as_typed(options, key, value, monkeypatch, tmp_path):
    plans = []
    monkeypatch.setattr("facerwkv.training.module.train", lambda plan, folder, **more: plans.append((plan, folder)))
    monkeypatch.setattr("facerwkv.evaluation.evaluate.finish", lambda folder: folder)
    assert facerwkv("train", *options, cwd=tmp_path).returncode == 0
    ((found, folder),) = plans
    assert folder == Path("runs") / f"modern-{found.model.name}"
    for name in key.split("."):
        found = getattr(found, name)
    assert found == value


@pytest.mark.parametrize("command", [("compare", "facerwkv4_small"), ("reproduce", "table5_ablation")])
@pytest.mark.parametrize("source", ["imagefolder:/x/my #faces", "imagefolder:/x/a: b", "imagefolder:/x/a=b [c], d"])
def test_a_path_reaches_a_comparison_and_a_reproduction_as_typed(command, source, tmp_path):
    done = facerwkv(*command, "--data", source, cwd=tmp_path)
    assert f"{source.partition(':')[2]} does not exist" in done.stderr


def test_a_resumed_run_keeps_its_recipe(tmp_path):
    done = facerwkv("train", "--resume", tmp_path, "--labels", "yes,no")
    assert done.returncode == 2
    assert "A resumed run keeps its recipe; \"data.labels=['yes', 'no']\" cannot change it" in done.stderr


def test_python_m_is_the_command_line():
    done = subprocess.run([sys.executable, "-m", "facerwkv", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"facerwkv {facerwkv_package.__version__}\n"


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
    assert out.read_text().splitlines()[0].startswith(f"{COLUMNS},anger")


def test_predict_says_what_is_below_the_threshold(run_folder, images):
    options = ["--model", run_folder, "--mode", "scene", "--device", "cpu"]
    good, out = images / "good.png", images / "out.csv"
    done = facerwkv("predict", good, *options, "--threshold", "1", "--json", "--out", out, "--save-media", images)
    (face,) = json.loads(done.stdout)["faces"]
    assert face["unsure"] is True
    assert face["label"] == max(face["probs"], key=face["probs"].get)
    assert out.read_text().splitlines()[0].startswith(f"{COLUMNS},unsure,drawn,anger")
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
        (("models", "info", "resnet9000"), "Known models: resnet50"),
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


@pytest.mark.parametrize("name", ["x" * 300, "~nobody-is-called-so/run", "a\0b"])
def test_a_name_that_no_file_can_have_is_a_sentence(name, tmp_path):
    for words in (
        ("predict", "a.jpg", "--model", name),
        ("predict", "a.jpg", "--model", f"{name}.onnx"),
        ("predict", "a.jpg", "--detector-model", name),
        ("evaluate", "--model", name),
        ("train", "--recipe", name),
        ("train", "--resume", name),
        ("train", "--init-from", name),
        ("train", "--data", f"imagefolder:{name}"),
        ("compare", name),
    ):
        done = facerwkv(*words, cwd=tmp_path)
        assert done.returncode == 2, words
        assert "Traceback" not in done.stderr


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


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_what_a_stream_cannot_encode_does_not_end_the_program(monkeypatch, stream):
    written = io.BytesIO()
    monkeypatch.setattr(sys, stream, io.TextIOWrapper(written, "cp1252"))  # as redirected on Windows
    monkeypatch.setattr(cli, "app", lambda: print("a → b", "\udce9", file=getattr(sys, stream), flush=True))
    cli.main()
    assert written.getvalue().split() == [b"a", rb"\u2192", b"b", rb"\udce9"]


def test_predict_comes_first_and_its_help_is_in_groups():
    commands = facerwkv("--help").stdout.partition("Commands:")[2].split()
    assert commands[0] == "predict"
    text = facerwkv("predict", "--help").stdout
    headings = re.findall(r"^(\w+):$", text, re.MULTILINE)
    assert headings == ["Arguments", "Model", "Images", "Videos", "Output"]
    videos = text.partition("Videos:")[2].partition("Output:")[0]
    words = {f"--{name.replace('_', '-')}" for name, each in facts().items() if "image" not in each.kinds}
    assert {*re.findall(r"^  (--[\w-]+)", videos, re.MULTILINE)} == words


def test_the_schema_is_printed():
    assert json.loads(facerwkv("predict", "--schema").stdout)["title"] == "A result of facerwkv predict"


def test_shells_complete_commands_and_options():
    env = {"_FACERWKV_COMPLETE": "complete_bash", "COMP_WORDS": "facerwkv pre", "COMP_CWORD": "1"}
    assert CliRunner().invoke(app, [], env=env, prog_name="facerwkv").stdout.split() == ["predict"]


def test_quiet_prints_results_alone(tmp_path):
    image = tmp_path / "x.png"
    Image.new("RGB", (64, 64)).save(image)
    words = ["predict", image, "--model", "facerwkv_fer_tiny", "--json", "--on-no-face", "scene"]
    loud, again, quiet = facerwkv(*words), facerwkv(*words), facerwkv(*words, "--quiet")
    assert "1 image" in loud.stderr
    assert (quiet.stderr, quiet.stdout) == ("", again.stdout)
    logging.getLogger("facerwkv").setLevel(logging.NOTSET)
