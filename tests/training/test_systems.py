"""Systems learn the toy faces from random weights, under one small recipe."""

import pytest

from facerwkv.training.finish import evaluate_folder
from facerwkv.training.module import train
from facerwkv.training.recipe import Recipe

pytestmark = pytest.mark.slow

FRAME = "model.options={stem: conv, patch_size: 16, pool: flatten, head: linear}"
PICTURES = "transform={image_size: [64, 64], crop: face, mean: [0.5], std: [0.25]}"
SYSTEMS = {  # what each changes of the recipe
    "facerwkv_small": [FRAME],
    "facerwkv_small_fullwidth": [FRAME],
    "facerwkv_hybrid_small": ["model.options={patch_size: 4, pool: flatten, head: linear}"],
    "facerwkv4_small": [FRAME],
    "facerwkv5_small": [FRAME],
    "facerwkv6_small": [FRAME],
    "facerwkv7_small": [FRAME],
    "transformer_small": [FRAME],
    "caer_net_s": ["transform.crop=both", "train.epochs=8"],
}


def small(name, *changes):
    return Recipe.read("demo", [f"model.name={name}", "model.options={}", PICTURES, *changes])


@pytest.mark.parametrize("name", SYSTEMS)
def test_it_learns_the_toy_faces(name, tmp_path):
    train(small(name, *SYSTEMS[name]), tmp_path / "run", progress=False)
    assert evaluate_folder(tmp_path / "run").evaluation.scores["accuracy"].value >= 0.8
