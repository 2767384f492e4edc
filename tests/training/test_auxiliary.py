"""A second head: what it is taught, what that changes, and what is left of it."""

import pytest
import torch
from safetensors.torch import load_file

from facerwkv.core.errors import InputError
from facerwkv.data.load import load_dataset
from facerwkv.training.auxiliary import Auxiliary
from facerwkv.training.module import new_model, train
from facerwkv.training.recipe import Recipe
from tests.data import trees


def read(changes, *more):
    return Recipe.read("paper", [*changes, "train.epochs=2", "data.batch_size=4", *more])


def test_it_is_taught_what_the_other_data_set_says_of_each_image(tmp_path):
    trees.build("ferplus_soft", tmp_path)
    changes = [f"data.source=fer2013:{tmp_path}", "train.auxiliary=ferplus_soft", "transform.image_size=[48, 48]"]
    recipe = Recipe.read("fer_tiny", changes)
    samples = load_dataset(f"fer2013:{tmp_path}").splits["train"][::-1]
    auxiliary = Auxiliary(new_model(recipe, ["a", "b"], None), recipe)
    auxiliary.match(samples)
    votes = {each.name: each.votes for each in load_dataset(f"ferplus_soft:{tmp_path}").splits["train"]}
    expected = [[votes.get(each.name, {}).get(label, 0.0) for label in auxiliary.data.labels] for each in samples]
    assert torch.equal(auxiliary.targets, torch.tensor(expected))
    assert {*auxiliary.targets.sum(1).tolist()} == {0.0, 1.0}  # one of the images was judged by nobody
    assert auxiliary.head.out_features == 8
    assert "MIT" in auxiliary.licences["ferplus_soft"]


def test_an_image_without_a_target_adds_nothing(small):
    recipe = read(small, "train.auxiliary=" + small[-1].partition("=")[2], "train.auxiliary_weight=2")
    auxiliary = Auxiliary(new_model(recipe, ["a", "b"], None), recipe)
    logits, loss = torch.tensor([[0.0, 0.0], [5.0, 0.0]]), torch.tensor(1.0)
    targets = torch.tensor([[0.5, 0.5], [0.0, 0.0]])
    assert auxiliary.joined(loss, logits, targets).item() == pytest.approx(1 + 2 * 0.693147 / 2)


def test_the_second_head_teaches_the_model_and_goes(small, tmp_path):
    source = small[-1].partition("=")[2]
    tasks = {None: [], 0: [f"train.auxiliary={source}", "train.auxiliary_weight=0"], 1: [f"train.auxiliary={source}"]}
    mixed = {weight: read(small, "augment.mixup=0.2", *more) for weight, more in tasks.items()}
    runs = {weight: train(recipe, tmp_path / f"{weight}", progress=False) for weight, recipe in mixed.items()}
    plain, unheard, heard = (load_file(folder / "last/model.safetensors") for folder in runs.values())
    assert plain.keys() == heard.keys()
    assert all(torch.equal(plain[name], unheard[name]) for name in plain)
    assert not all(torch.equal(plain[name], heard[name]) for name in plain)


def test_a_resumed_run_goes_on_with_its_second_head(small, tmp_path):
    changes = [*small, "train.auxiliary=" + small[-1].partition("=")[2]]
    parts = train(read(changes, "train.epochs=1", "schedule.name=constant"), tmp_path / "parts", progress=False)
    again = train(read(changes, "schedule.name=constant"), tmp_path / "again", progress=False)
    train(Recipe(), parts, resume=True, progress=False, changes=["train.epochs=2"])
    one, two = (load_file(folder / "last/model.safetensors") for folder in (again, parts))
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (["train.compile=true"], "leave one out"),
        (["train.auxiliary=nothing"], "Unknown data set 'nothing'"),
        (["train.auxiliary=toy:train=7"], "toy has none of the .* training images; the first of them is"),
    ],
)
def test_what_cannot_be_taught_is_refused_before_there_is_a_run(small, tmp_path, changes, told):
    with pytest.raises(InputError, match=told):
        train(read(small, "train.auxiliary=toy", *changes), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()
