"""A run's files that are not whole: each is named in one sentence by what reads it, and no run is lost silently."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from facerwkv.core.errors import InputError
from facerwkv.core.files import read_json
from facerwkv.evaluation.evaluate import finish
from facerwkv.evaluation.result import LOGITS, SUMMARY, Evaluation
from facerwkv.training.loggers import Curves
from facerwkv.training.module import train
from facerwkv.training.recipe import Recipe
from facerwkv.training.run import CURVES, DATA, ENVIRONMENT, RECIPE, RESUME, TIME, read_run
from tests.commands import facerwkv
from tests.models.damage import broken_files

TINY = ["train.epochs=1", "data.source=toy:train=14,val=7,test=7", "data.cache=false", "train.device=cpu"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("damaged") / "run"
    train(Recipe.read("demo", [*TINY, "transform={image_size: [32, 32], crop: face}"]), folder, progress=False)
    finish(folder, progress=False)
    return folder


@pytest.fixture
def run(trained, tmp_path) -> Path:
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


READERS = {
    RECIPE: read_run,
    f"val/{SUMMARY}": lambda run: Evaluation.load(run / "val"),
    f"val/{LOGITS}": lambda run: Evaluation.load(run / "val"),
    RESUME: lambda run: train(read_run(run), run, resume=True, progress=False),
    CURVES: lambda run: Curves(run).rewind(0),
    **{name: lambda run, name=name: read_json(run / name) for name in (ENVIRONMENT, DATA, TIME)},
}
TAKEN = {
    RECIPE: ("cut to 0 tenths",),  # an empty recipe has the defaults
    CURVES: ("cut ", "zeros", "another text", "gone"),  # rows that are whole count
    RESUME: ("gone",),  # the run begins again
}


@pytest.mark.parametrize("name", READERS)
def test_a_file_that_is_not_whole_is_named(name, run):
    for how in broken_files(run / name):
        if how.startswith(TAKEN.get(name, ())) and TAKEN.get(name):
            continue
        with pytest.raises(InputError) as told:
            READERS[name](run)
        assert Path(name).name in str(told.value), how
        assert len(str(told.value)) < 1_000


def test_the_parts_of_a_recipe_are_what_they_must_be(run):
    values = yaml.safe_load((run / RECIPE).read_text(encoding="utf-8"))
    for part in ("model", "data", "transform", "augment", "optim", "schedule", "train"):
        for wrong in (None, "", [], -1, "x", [1]):
            (run / RECIPE).write_text(yaml.safe_dump(values | {part: wrong}), encoding="utf-8")
            with pytest.raises(InputError, match=f"{part}: "):
                read_run(run)
    (run / RECIPE).write_text("train: {epochs: 1}\ntrain: {epochs: 2}\n", encoding="utf-8")
    with pytest.raises(InputError, match="'train' is there twice"):
        read_run(run)


def test_a_row_that_was_cut_off_is_left_out(run):
    with (run / CURVES).open("a", encoding="utf-8") as file:
        file.write("1,7")
    Curves(run).rewind(100)
    assert len((run / CURVES).read_text(encoding="utf-8").splitlines()) == 2


def test_a_run_whose_recipe_was_changed_is_not_resumed(run):
    values = yaml.safe_load((run / RECIPE).read_text(encoding="utf-8"))
    values["model"]["options"]["width"] = 64
    (run / RECIPE).write_text(yaml.safe_dump(values), encoding="utf-8")
    done = facerwkv("train", "--resume", run)
    assert done.returncode == 2
    assert f"{run / RESUME}, of a run whose recipe.yaml was changed, contains another model's weights" in done.stderr


@pytest.mark.parametrize("name", [ENVIRONMENT, TIME])
def test_a_table_or_report_names_what_it_cannot_read(name, run, monkeypatch):
    (run / name).write_text("[1]")
    words = ("compare", run, "--out", run) if name == TIME else ("evaluate", "--model", run, "--split", "val")
    done = facerwkv(*words)
    assert done.returncode == (1 if name == TIME else 2)
    assert f"{run / name} cannot be read as JSON: it is no object" in done.stderr + done.stdout


def test_a_summary_of_another_kind_is_refused(run):
    good = json.loads((run / "val" / SUMMARY).read_text(encoding="utf-8"))
    for name in ("labels", "temperature", "source", "split", "model"):
        (run / "val" / SUMMARY).write_text(json.dumps(good | {name: [1]}), encoding="utf-8")
        with pytest.raises(InputError, match=f"{SUMMARY}.{name}"):
            Evaluation.load(run / "val")
