"""Every system learns the toy faces from random weights, under one small recipe."""

import csv

import pytest

from facerwkv.training.finish import evaluate_folder
from facerwkv.training.module import train
from facerwkv.training.recipe import Recipe

pytestmark = pytest.mark.slow

FRAME = "model.options={stem: conv, patch_size: 16, pool: flatten, head: linear}"
SYSTEMS = {  # what each changes of the recipe
    "facerwkv_small": [FRAME],
    "facerwkv_small_fullwidth": [FRAME],
    "facerwkv_hybrid_small": ["model.options={patch_size: 4, pool: flatten, head: linear}"],
    "facerwkv4_small": [FRAME],
    "facerwkv5_small": [FRAME],
    "facerwkv6_small": [FRAME],
    "facerwkv7_small": [FRAME],
    "transformer_small": [FRAME],
    "caer_net_s": ["transform.crop=both"],
    "patt_lite": ["train.epochs=4"],
    "alexnet": [],
    "resnet18": ["train.epochs=4"],
    "resnet34": ["train.epochs=4"],
    "resnet50": ["train.epochs=6"],
    "vit_tiny": [],
}
HEAVY = ("poster_v2", "vgg19", "resnet152")  # on a CPU a loss that falls has to do


def small(name, *changes):
    return Recipe.read("demo", [f"model.name={name}", "model.options={}", *changes])


@pytest.mark.parametrize("name", SYSTEMS)
def test_it_learns_the_toy_faces(name, tmp_path):
    train(small(name, *SYSTEMS[name]), tmp_path / "run", progress=False)
    assert evaluate_folder(tmp_path / "run").evaluation.scores["accuracy"].value >= 0.8


@pytest.mark.parametrize("name", HEAVY)
def test_the_loss_of_a_heavy_one_falls_over_fifty_steps(name, tmp_path):
    changes = ["data.source=toy:train=112,val=14,test=14", "data.batch_size=16", "train.epochs=7", "optim.lr=0.0003"]
    train(small(name, *changes), tmp_path / "run", progress=False)
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        losses = [float(row["train_loss"]) for row in csv.DictReader(file) if row["train_loss"]]
    assert losses[-1] < 0.9 * losses[0]


def test_context_helps_where_it_carries_part_of_the_label(tmp_path):
    accuracies = {}
    for streams in ("both", "face", "context"):
        changes = ["data.source=toy:context=1", "transform.crop=both", f"model.options={{streams: {streams}}}"]
        train(small("caer_net_s", *changes), tmp_path / streams, progress=False)
        accuracies[streams] = evaluate_folder(tmp_path / streams).evaluation.scores["accuracy"].value
    assert accuracies["both"] > accuracies["face"] + 0.02, accuracies
    assert accuracies["context"] > 0.3, accuracies
