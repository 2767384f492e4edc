"""Training for real, on images that anything can learn."""

import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from importlib.metadata import version

import pytest
import torch
from safetensors.torch import load_file

from facerwkv.core.errors import InputError
from facerwkv.evaluation.evaluate import evaluate_folder, finish
from facerwkv.models.checkpoint import load_checkpoint
from facerwkv.training.callbacks import Stopwatch
from facerwkv.training.loggers import columns
from facerwkv.training.module import train
from facerwkv.training.recipe import Recipe, shipped
from facerwkv.training.run import alone


def curve(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def last_scores(folder):
    return {name: value for row in curve(folder) for name, value in row.items() if value}


SMALLER = {  # recipe → what a test without boxes, without a network and with little time changes
    "caer_net_s": ["model.options={}", "transform.no_box=centre"],
    "ferplus": [],
    "finetune": ["model={name: resnet18, pretrained: false}"],
    "patt_lite": ["model.options={}"],
    "poster_v2": ["model.options={}"],
}


SLOW = {"fer", "ferplus", "finetune", "patt_lite", "poster_v2"}  # seconds to minutes each


def recipe(name):
    return pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name


@pytest.mark.parametrize("name", [recipe(name) for name in shipped()])
def test_every_shipped_recipe_trains(name, small, tmp_path):
    changes = [*small, *SMALLER.get(name, ["model.options={patch_size: 8}"]), "train.epochs=2"]
    if Recipe.read(name).init_from:  # it keeps the size of what it starts from
        changes = [change for change in changes if not change.startswith(("model.", "transform."))]
    folder = train(Recipe.read(name, changes), tmp_path / "run", progress=False)
    rows = curve(folder)
    assert list(rows[0]) == columns()
    assert [float(row["val_accuracy"]) for row in rows if row["val_accuracy"]] != []
    assert load_checkpoint(folder).labels[0] == "anger"


def test_a_run_learns_and_its_folder_tells_all(small, tmp_path):
    folder = train(
        Recipe.read("modern", [*small, "train.epochs=25", "optim.lr=0.01"]), tmp_path / "run", progress=False
    )
    assert finish(folder, progress=False).is_file()
    scored = evaluate_folder(folder, without_copies=True)
    assert scored.to_dict()["accuracy"]["value"] > 0.9
    assert scored.to_dict()["without_copies"]["n"] == 28
    names = {
        "recipe.yaml",
        "environment.json",
        "data.json",
        "metrics.csv",
        "resume.ckpt",
        "best",
        "last",
        "val",
        "test",
    }
    assert names <= {path.name for path in folder.iterdir()}
    assert {"predictions.csv", "evaluation.json", "report.html", "report.md", "confusion.png"} <= {
        path.name for path in (folder / "test").iterdir()
    }
    assert json.loads((folder / "environment.json").read_text())["packages"]["torch"] == version("torch")
    card = load_checkpoint(folder).card
    assert card["metrics"]["val"]["n"] == 28
    assert not list(folder.rglob("*.part"))


def test_a_folder_with_a_run_is_not_overwritten(small, tmp_path):
    recipe = Recipe.read("paper", [*small, "train.epochs=1", "model.options={patch_size: 8}"])
    train(recipe, tmp_path / "run", progress=False)
    with pytest.raises(InputError, match=r"already contains a run.*--resume"):
        train(recipe, tmp_path / "run", progress=False)


def test_fine_tuning_on_classes_of_ones_own(small, colours, tmp_path):
    start = train(Recipe.read("modern", [*small, "train.epochs=1"]), tmp_path / "start", progress=False)
    tree = tmp_path / "own"
    for split in ("train", "val"):
        for own, source in (("bored", "anger"), ("Awake", "happiness")):
            (tree / split).mkdir(parents=True, exist_ok=True)
            (tree / split / own).symlink_to(colours / split / source)
    changes = [
        *small,
        f"init_from={start}",
        "data.labels=[bored, Awake]",
        f"data.source=imagefolder:{tree}",
        "train.epochs=1",
    ]
    folder = train(Recipe.read("modern", changes), tmp_path / "tuned", progress=False)
    checkpoint = load_checkpoint(folder)
    assert checkpoint.labels == ("bored", "Awake")
    assert checkpoint.model.config.width == 16
    before, after = load_file(start / "last" / "model.safetensors"), load_file(folder / "last" / "model.safetensors")
    assert before["classifier.weight"].shape != after["classifier.weight"].shape


@pytest.mark.parametrize("recipe", [pytest.param("modern", marks=pytest.mark.slow), "paper_as_coded"])
def test_killed_in_mid_epoch_and_resumed_it_ends_as_if_nothing_had_happened(recipe, small, tmp_path):
    changes = [*small, "model.options={patch_size: 8, width: 16, drop_rate: 0.2}", "model.name=facerwkv4_small"]
    whole = train(Recipe.read(recipe, changes), tmp_path / "whole", progress=False)
    killed = tmp_path / "killed"
    process = subprocess.Popen(
        [sys.executable, "-c", SLOWLY, "train", "--recipe", recipe, "--out", str(killed), *changes],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _wait_for_a_resume_point_inside_an_epoch(killed / "resume.ckpt", process)
    with pytest.raises(InputError, match=r"Another process is training in .*killed\. Wait until it ends, stop it"):
        train(Recipe(), killed, resume=True, progress=False)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    train(Recipe(), killed, resume=True, progress=False)

    assert last_scores(killed) == last_scores(whole)
    assert [row["step"] for row in curve(killed)] == [row["step"] for row in curve(whole)]
    expected, actual = (load_file(folder / "last" / "model.safetensors") for folder in (whole, killed))
    for name, value in expected.items():
        assert torch.equal(value, actual[name]), name
    spent = json.loads((killed / "time.json").read_text())
    assert spent["epochs"] == 4
    assert spent["seconds"] > 0.3 * 2  # what the killed part took, two slow steps or more, counts


def test_the_lock_of_a_run_goes_with_it(tmp_path, monkeypatch):
    locks = tmp_path / "locks"
    locks.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(locks))
    with suppress(KeyboardInterrupt), alone(tmp_path / "run"):
        assert len(list(locks.iterdir())) == 1
        raise KeyboardInterrupt
    assert list(locks.iterdir()) == []


def test_the_time_of_an_earlier_sitting_counts():
    watch = Stopwatch()
    watch.load_state_dict({"seconds": 100.0})
    assert watch.seconds == 100
    watch.on_fit_start(None, None)
    assert 100 <= watch.state_dict()["seconds"] < 101


def test_a_model_of_two_inputs_says_what_it_needs(small, tmp_path):
    recipe = Recipe.read("modern", [*small, "model={name: caer_net_s, options: {}}"])
    with pytest.raises(InputError, match=r"caer_net_s looks at a face.*transform\.crop=both.*data\.boxes=detect"):
        train(recipe, tmp_path / "run", progress=False)
    assert list(tmp_path.iterdir()) == []


# The command line on one thread, as here, with steps slow enough for a test to stop it between two of them.
SLOWLY = """
import time, torch
from facerwkv import cli
from facerwkv.training.module import TrainingModule
torch.set_num_threads(1)
step = TrainingModule.training_step
def slow_step(self, *arguments):
    time.sleep(0.3)
    return step(self, *arguments)
TrainingModule.training_step = slow_step
cli.main()
"""


def _wait_for_a_resume_point_inside_an_epoch(path, process, seconds=120):
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        if path.is_file() and torch.load(path, weights_only=True)["global_step"] % 6 in (2, 4):
            return
        time.sleep(0.02)
    raise AssertionError(f"no resume point inside an epoch within {seconds} s (exit code {process.poll()})")


@pytest.mark.slow
def test_ctrl_c_leaves_a_run_that_can_be_used(small, tmp_path):
    out = tmp_path / "run"
    changes = [*small, "train.epochs=2000"]
    command = [sys.executable, "-m", "facerwkv.cli", "train", "--out", str(out), *changes]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # who runs the tests may ignore it
    )
    end = time.monotonic() + 120
    while not (out / "last" / "config.json").is_file() and time.monotonic() < end and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"facerwkv train --resume {out}" in errors
    assert "Traceback" not in errors
    assert load_checkpoint(out).labels


def test_a_loss_that_is_not_a_number_is_a_sentence(small, tmp_path):
    recipe = Recipe.read("modern", [*small, "optim.lr=1e30", "schedule.warmup_epochs=0", "optim.clip_norm=null"])
    with pytest.raises(InputError, match=r"became (nan|inf).*Lower the learning rate \(optim\.lr is 1e\+30\)"):
        train(recipe, tmp_path / "run", progress=False)


def test_a_device_that_is_not_there_is_refused(small, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(InputError, match="no device 'cuda' here"):
        train(Recipe.read("modern", [*small, "train.device=cuda"]), tmp_path / "run", progress=False)


def test_early_stop(small, tmp_path):
    recipe = Recipe.read("modern", [*small, "optim.lr=1e-9", "train.epochs=50", "train.early_stop=2"])
    folder = train(recipe, tmp_path / "run", progress=False)
    assert len([row for row in curve(folder) if row["val_accuracy"]]) < 10
