"""Several models under one recipe, for real, on images that anything can learn."""

import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from facerwkv.cli import app
from facerwkv.core.errors import InputError
from facerwkv.core.metrics import paired
from facerwkv.evaluation import compare as module
from facerwkv.evaluation.compare import compare, is_change
from facerwkv.evaluation.comparison import UNLIKE, Comparison
from facerwkv.evaluation.result import Evaluation
from facerwkv.models.zoo import MODELS
from facerwkv.models.zoo import shipped as weights
from facerwkv.training.recipe import Recipe
from facerwkv.training.run import read_run

NAMES = ["facerwkv4_small", "timm:test_resnet", "caer_net_s"]
TINY = "facerwkv_fer_tiny"  # shipped
BOXLESS = "caer_net_s:transform.no_box=centre"


@pytest.fixture(scope="session")
def changes(small):
    """A few seconds a model; each with its own options and images."""
    return [
        *[change for change in small if not change.startswith("model.options")],
        "facerwkv*:model.options={patch_size: 8, width: 16}",
        "train.epochs=2",
        "optim.lr=0.01",
    ]


@pytest.fixture(scope="session")
def compared(changes, tmp_path_factory):
    out = tmp_path_factory.mktemp("compared")
    return out, compare(NAMES, "modern", [*changes, BOXLESS], out, progress=False)


def test_every_model_has_a_row_and_the_best_is_on_top(compared):
    _, result = compared
    assert result.ok
    assert sorted(row["name"] for row in result.rows) == sorted(NAMES)
    scores = [row["accuracy"]["value"] for row in result.rows]
    assert scores == sorted(scores, reverse=True)
    for row in result.rows:
        assert (row["n"], row["split"], row["epochs"]) == (28, "test", 2)
        assert row["train_seconds"] > 0
        assert row["images_per_second"] > 0
    counts = {row["name"]: row["parameters"] for row in result.rows}
    assert counts["caer_net_s"] == 2_390_028


def test_a_row_holds_what_the_run_s_own_evaluation_says(compared):
    out, result = compared
    for row in result.rows:
        kept = json.loads((out / row["name"].replace(":", "_") / "test" / "evaluation.json").read_text())
        assert (row["accuracy"], row["uar"]) == (kept["accuracy"], kept["uar"])


def test_changes_reach_the_models_whose_names_fit(compared):
    out, _ = compared
    assert read_run(out / "facerwkv4_small").model.options == {"patch_size": 8, "width": 16}
    assert read_run(out / "timm_test_resnet").model.options == {}
    assert read_run(out / "caer_net_s").transform.crop == "both"


def test_the_table_is_written_in_four_forms(compared):
    out, result = compared
    assert json.loads((out / "comparison.json").read_text()) == json.loads(json.dumps(result.to_dict()))
    lines = (out / "comparison.md").read_text().splitlines()
    assert lines[0].startswith("| model | accuracy | UAR | macro-F1 | parameters |")
    assert [line.split(" | ")[0].strip("| ") for line in lines[2:5]] == [row["name"] for row in result.rows]
    assert [line.split(" | ")[0].strip("| ") for line in lines[8:]] == [row["name"] for row in result.rows[1:]]
    header = (out / "comparison.csv").read_text().splitlines()[0].split(",")
    assert {"name", "accuracy.value", "accuracy.low", "images_per_second"} <= set(header)
    assert (out / "comparison.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_done_is_not_done_again(compared, changes, monkeypatch):
    out, result = compared
    monkeypatch.setattr(module, "train", None)
    monkeypatch.setattr(module, "evaluate_folder", None)
    assert compare(NAMES, "modern", [*changes, BOXLESS], out, progress=False).rows == result.rows


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on(compared, changes, tmp_path, monkeypatch):
    train = module.train

    def stopped(recipe, folder, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "train", stopped)
    with pytest.raises(KeyboardInterrupt):
        compare(NAMES[:1], "modern", changes, tmp_path, progress=False)
    monkeypatch.setattr(module, "train", train)
    again = compare(NAMES[:1], "modern", changes, tmp_path, progress=False)
    before = next(row for row in compared[1].rows if row["name"] == NAMES[0])
    assert again.rows[0]["accuracy"] == before["accuracy"]


def test_a_folder_of_a_run_is_loaded_and_not_trained(compared, small, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "train", None)
    source = next(change for change in small if change.startswith("data.source="))
    result = compare([str(compared[0] / "facerwkv4_small")], "modern", [source], tmp_path, progress=False)
    (row,) = result.rows
    assert row["loaded"]
    assert row["accuracy"] == next(one["accuracy"] for one in compared[1].rows if one["name"] == NAMES[0])
    assert (tmp_path / "facerwkv4_small" / "test" / "evaluation.json").is_file()


def test_kept_answers_are_compared_image_by_image_without_weights_or_data(compared, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "evaluate_folder", None)
    out, _ = compared
    first = Evaluation.load(out / "facerwkv4_small" / "test")
    first.save(tmp_path / "a" / "test")
    first.save_logits(tmp_path / "a" / "test", np.float16)
    turned = replace(first, logits=-first.logits, names=first.names[::-1], targets=first.targets[::-1])
    replace(turned, logits=turned.logits[::-1]).save(tmp_path / "b")
    result = compare([str(tmp_path / "a"), str(tmp_path / "b")], "modern", (), tmp_path / "out", progress=False)
    result.print()
    assert result.problems == []
    right, others = first.predictions == first.targets, (-first.logits).argmax(-1) == first.targets
    difference, p = paired(*(right, others) if right.mean() > others.mean() else (others, right))
    assert result.pairs == [{"name": "b", "against": "a", "n": 28, "difference": difference.to_dict(), "p": p}]
    assert [(row["parameters"], row["images_per_second"]) for row in result.rows] == [(None, None)] * 2
    assert f"| b | {100 * difference.value:+.2f} |" in (tmp_path / "out" / "comparison.md").read_text()
    assert "| b | " in capsys.readouterr().out


def test_answers_older_than_the_weights_are_not_believed(compared, tmp_path):
    run = shutil.copytree(compared[0] / "facerwkv4_small", tmp_path / "run")
    assert module._answers(str(run), "test") == run / "test"
    os.utime(run / "best" / "model.safetensors")
    os.utime(run / "test" / "evaluation.json", (0, 0))
    assert module._answers(str(run), "test") is None


def test_shipped_names_are_weights_and_models_on_other_images_are_told_apart(compared, colours, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "train", None)
    monkeypatch.setattr(module, "throughput", lambda *of: 1.0)
    monkeypatch.setattr("facerwkv.evaluation.evaluate.write_report", lambda scored, folder, **rest: folder)
    for run in ("A/lr=1/seed0", "B/lr=1/seed0"):
        shutil.copytree(compared[0] / "facerwkv4_small", tmp_path / run)
    monkeypatch.chdir(tmp_path)
    changes = [f"data.source=imagefolder:{colours}", f"{TINY}:data.labels=[happy, sad, fear]", "train.device=cpu"]
    names = [TINY, "A/lr=1/seed0", "B/lr=1/seed0/best"]
    assert [word for word in (*names, *changes) if is_change(word)] == changes
    result = compare(names, "modern", changes, "out", progress=False)
    rows = {row["name"]: row for row in result.rows}
    assert result.problems == []
    assert {name: (row["n"], len(row["classes"]), row["loaded"]) for name, row in rows.items()} == {
        TINY: (12, 3, True),
        "seed0": (28, 7, True),
        "best": (28, 7, True),
    }
    assert rows["seed0"]["epochs"] == rows["best"]["epochs"] == 2
    text = (tmp_path / "out" / "comparison.md").read_text()
    assert "| images | classes | parameters |" in text
    assert UNLIKE in text
    again = compare(["A/lr=1/seed0", "B/lr=1/seed0"], "modern", changes[::2], "out", progress=False)
    assert sorted(row["name"] for row in again.rows) == ["A/lr=1/seed0", "B/lr=1/seed0"]
    assert UNLIKE not in (tmp_path / "out" / "comparison.md").read_text()


def test_any_exception_of_a_model_stops_no_other(changes, tmp_path, monkeypatch):
    def broken(recipe, folder, **options):
        raise ValueError("Expected more than 1 value per channel")

    monkeypatch.setattr(module, "train", broken)
    result = compare(["facerwkv4_small", "timm:test_resnet"], "modern", changes, tmp_path, progress=False)
    said = "Expected more than 1 value per channel"
    assert result.problems == [f"facerwkv4_small: {said}", f"timm:test_resnet: {said}"]


def test_a_model_that_fails_stops_no_other(changes, tmp_path):
    result = compare(["alexnet", "facerwkv4_small"], "modern", [*changes, "train.epochs=1"], tmp_path, progress=False)
    assert [row["name"] for row in result.rows] == ["facerwkv4_small"]
    assert result.problems == ["alexnet: AlexNet needs images of 63 x 63 pixels or more, not 24 x 24."]


def test_another_recipe_in_the_same_folder_is_refused(compared, changes):
    with pytest.raises(InputError, match=r"under another recipe \(train\.epochs was 2, now 3\)"):
        compare(NAMES, "modern", [*changes, BOXLESS, "train.epochs=3"], compared[0], progress=False)


@pytest.mark.parametrize(
    ("names", "more", "message"),
    [
        ([], [], "Name the models to compare"),
        (["facerwkv4_smal"], [], "Unknown model 'facerwkv4_smal'"),
        (["facerwkv4_small", "facerwkv4_small"], [], "facerwkv4_small is named twice"),
        (["facerwkv4_small"], ["vit*:train.epochs=3"], r"'vit\*' fits none of facerwkv4_small"),
        (["facerwkv4_small"], ["train.epoch=3"], "Unknown key 'train.epoch'"),
        (["caer_net_s"], ["caer_net_s:transform.crop=face"], "looks at a face and at the scene around it"),
        (["facerwkv4_small"], ["data.source=imagefolder:/nowhere"], "/nowhere does not exist"),
        (
            ["facerwkv4_small"],
            ["data.source=imagefolder:{colours}/train"],
            r"has no test split; .* Score validation: facerwkv compare --split val\.",
        ),
        (["facerwkv4_small"], ["data.source=imagefolder:{colours}/nothing"], "nothing does not exist"),
        (["runs/lr=0.1"], [], r"runs/lr=0\.1 does not exist: give a run's folder"),
        ([TINY], ["nosuch.key=3"], "Unknown key 'nosuch'"),
        ([TINY], ["data.nosuch=3"], r"Unknown key 'data\.nosuch'"),
        ([TINY], ["train.epochs=3"], f"train.epochs=3 changes nothing: {TINY} is loaded, not trained"),
        ([TINY, "facerwkv4_small"], [f"{TINY}:optim.lr=3"], "optim.lr=3 changes nothing"),
    ],
)
def test_wrong_use_is_told_before_anything_is_trained(names, more, message, changes, colours, tmp_path):
    own = [
        change for change in changes if change.startswith("data.") or ("facerwkv4_small" in names and "*" not in change)
    ]
    with pytest.raises(InputError, match=message):
        compare(names, "modern", [*own, *(each.format(colours=colours) for each in more)], tmp_path, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_own_takes_each_model_s_own_recipe(plans, tmp_path):
    names = [name for name in MODELS if name not in weights()]
    result = compare(names, "own", ["data.source=toy:train=7,val=7,test=7"], tmp_path, progress=False)
    assert result.problems == [f"{name}: planned only" for name in names]
    assert {name: plans[name].optim for name in names} == {
        name: Recipe.read(MODELS[name].recipe).optim for name in names
    }


def test_a_problem_is_printed_with_its_brackets(capsys):
    Comparison([], {}, ["data.labels=[anger, fear] fits nothing"]).print()
    assert "data.labels=[anger, fear] fits nothing" in capsys.readouterr().out


@pytest.mark.slow
def test_the_command_tells_what_failed_and_goes_on(changes, tmp_path):
    given = [*changes, "train.epochs=1", "alexnet:train.epochs=2"]
    done = CliRunner().invoke(app, ["compare", "alexnet", "facerwkv4_small", *given, "--out", str(tmp_path)])
    assert done.exit_code == 1
    assert "facerwkv4_small" in done.stdout
    assert "AlexNet needs images of 63 x 63 pixels" in done.stdout
