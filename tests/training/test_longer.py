"""What researchers do with a recipe: seeds, folds, a held-out test, more epochs, a probe, losses, a rate finder."""

import json

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

from facerwkv.core.errors import InputError
from facerwkv.data.config import DataConfig, TransformConfig
from facerwkv.data.loader import DataModule
from facerwkv.models.checkpoint import load_checkpoint
from facerwkv.training.losses import LOSSES
from facerwkv.training.module import train
from facerwkv.training.recipe import Recipe, seed_numbers
from tests.commands import facerwkv
from tests.data import trees
from tests.training.test_train import curve

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 1.0, 3.0]])
COUNTS = torch.tensor([8, 1, 1])
EXPECTED = {
    "cross_entropy": lambda p, t: -p[t].log(),
    "focal": lambda p, t: -((1 - p[t]) ** 2) * p[t].log(),
    "logit_adjusted": lambda p, t: -(p * COUNTS)[t].log() + (p * COUNTS).sum().log(),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_its_formula(name):
    probs, targets = LOGITS.softmax(1), torch.tensor([0, 1])
    expected = torch.stack([EXPECTED[name](p, t) for p, t in zip(probs, targets, strict=True)]).mean()
    assert LOSSES[name](LOGITS, targets, None, 0.0, COUNTS) == pytest.approx(expected.item(), abs=1e-6)
    shares = functional.one_hot(targets, 3).float()
    assert LOSSES[name](LOGITS, shares, None, 0.0, COUNTS) == pytest.approx(expected.item(), abs=1e-6)
    assert LOSSES[name](LOGITS, targets, torch.tensor([1.0, 0.0, 1.0]), 0.1, COUNTS).isfinite()


@pytest.mark.parametrize("words", [["0", "1", "2"], ["0,1,2"]])
def test_seeds_are_typed_in_any_way(words):
    assert seed_numbers(words[:1], [*words[1:], "train.epochs=1"]) == ([0, 1, 2], ["train.epochs=1"])
    assert seed_numbers(None, ["7"]) == ([], ["7"])


@pytest.mark.parametrize("what", ["stem", "backbone"])
def test_what_is_frozen_stays(what, small, tmp_path):
    changes = [*small, "model.options={stem: conv, patch_size: 8, width: 16}", "train.epochs=1"]
    start = train(Recipe.read("paper", changes), tmp_path / "start", progress=False)
    plan = Recipe.read("paper", [*changes, f"init_from={start}", f"train.freeze={what}"])
    tuned = train(plan, tmp_path / "tuned", progress=False)
    before, after = (load_file(folder / "model.safetensors") for folder in (start / "best", tuned / "last"))
    moved = {name for name, value in before.items() if not torch.equal(value, after[name])}
    frozen = {name for name in before if name.startswith("stem.") or (what == "backbone" and "classifier" not in name)}
    assert not moved & frozen
    assert moved & {name for name in before if "classifier" in name}


def test_a_model_without_a_stem_says_so(small, tmp_path):
    changes = [*small, "model={name: alexnet, options: {}}", "train.freeze=stem", "transform.image_size=[64,64]"]
    with pytest.raises(InputError, match=r"alexnet has no stem, so train\.freeze=stem freezes nothing"):
        train(Recipe.read("paper", changes), tmp_path / "run", progress=False)


def test_accumulated_batches_are_one_step(small, tmp_path):
    steps = [*small, "train.epochs=1", "data.batch_size=14", "train.accumulate=3"]  # 84 = 14 x 3 x 2
    folder = train(Recipe.read("paper", steps), tmp_path / "run", progress=False)
    assert curve(folder)[-1]["step"] == "1"
    with pytest.raises(InputError, match=r"optim\.name=sam takes two passes"):
        train(Recipe.read("paper", [*steps, "optim.name=sam"]), tmp_path / "sam", progress=False)


def test_a_run_is_resumed_with_more_epochs(small, tmp_path):
    folder = train(Recipe.read("modern", [*small, "train.epochs=1"]), tmp_path / "run", progress=False)
    done = facerwkv("train", "--resume", folder, "train.epochs=2")
    assert (done.returncode, len(curve(folder))) == (0, 2), done.stderr
    assert "epochs: 2" in (folder / "recipe.yaml").read_text()
    refused = facerwkv("train", "--resume", folder, "optim.lr=1")
    assert "keeps its recipe but for train.epochs and train.early_stop; 'optim.lr=1' cannot" in refused.stderr


def test_a_test_is_held_out_of_a_plain_folder(tmp_path):
    trees.folders(tmp_path, ("happy", "sad"), 20)
    config = DataConfig(source=f"imagefolder:{tmp_path}", labels=("auto",), test_fraction=0.25)
    one, other = (DataModule(config, TransformConfig(), seed).dataset.splits for seed in (0, 1))
    assert {split: len(those) for split, those in one.items()} == {"train": 26, "val": 4, "test": 10}
    assert [each.name for each in one["test"]] == [each.name for each in other["test"]]
    assert len({each.name for those in one.values() for each in those}) == 40


@pytest.mark.parametrize("service", ["wandb", "mlflow"])
def test_a_logger_that_is_not_installed_names_its_extra(service, small, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=rf'={service} needs {service}: pip install "facerwkv\[{service}\]"'):
        train(Recipe.read("paper", [*small, f"train.logger={service}"]), tmp_path / "run", progress=False)


@pytest.mark.slow
@pytest.mark.parametrize(("service", "kept"), [("wandb", "wandb"), ("mlflow", "mlflow.db")])
def test_a_service_that_is_installed_takes_the_curves(service, kept, small, tmp_path, monkeypatch):
    pytest.importorskip(service)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    recipe = Recipe.read("paper", [*small, "train.epochs=1", f"train.logger={service}", "model.name=facerwkv4_small"])
    train(recipe, tmp_path / "run", progress=False)
    assert (tmp_path / "run" / kept).exists()


@pytest.mark.slow
def test_seeds_folds_and_the_rate_finder(tmp_path, small):
    trees.folders(tmp_path / "own", ("happy", "sad"), 12)
    source, tiny = f"imagefolder:{tmp_path}/own", [*small[:-1], "train.epochs=1"]
    common = ("--data", source, "--labels", "auto", *tiny)
    done = facerwkv("train", *common[:4], "--out", tmp_path / "seeds", "--seeds", "0", "1", *common[4:])
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "seeds/several.json").read_text())
    assert [row["name"] for row in told["rows"]] == ["seed0", "seed1"]
    assert told["means"]["accuracy"]["n"] == 2
    assert "mean ± deviation" in done.stdout
    done = facerwkv("train", *common[:4], "--out", tmp_path / "folds", "--folds", "3", *common[4:])
    told = json.loads((tmp_path / "folds/several.json").read_text())
    assert [row["n"] for row in told["rows"]] == [8, 8, 8]
    assert {row["split"] for row in told["rows"]} == {"test"}
    found = facerwkv("train", *common, "--find-lr")
    assert found.stdout.startswith("optim.lr="), found.stderr
    assert load_checkpoint(tmp_path / "folds/fold0").labels == ("happy", "sad")
