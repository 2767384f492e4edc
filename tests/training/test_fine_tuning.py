"""Training from a checkpoint: what is chosen by hand is obeyed or refused."""

from dataclasses import replace

import pytest
import torch

from facerwkv.core.errors import InputError
from facerwkv.export import export_onnx
from facerwkv.models.checkpoint import load_checkpoint, save_checkpoint
from facerwkv.models.folder import Checkpoint
from facerwkv.models.onnx import read_onnx
from facerwkv.models.zoo import create_model
from facerwkv.training import module
from facerwkv.training.recipe import Recipe
from facerwkv.training.run import read_run

OPTIONS = {"stem": "conv", "patch_size": 8, "width": 16, "num_classes": 7, "image_size": (24, 24)}


@pytest.fixture
def start(tmp_path, request):
    """An untrained checkpoint for images of 24 x 24 pixels, under the options that a test asks for."""
    name, options = getattr(request, "param", ("facerwkv4_small", {"position": "learned"}))
    model = create_model(name, **OPTIONS | options)
    labels = ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
    transform = Recipe.read("modern", ["transform.image_size=[24, 24]", "transform.std=[0.5]"]).transform
    save_checkpoint(tmp_path / "start", Checkpoint(model, name, labels, transform))
    return tmp_path / "start"


def tuned(start, changes, small):
    base = [change for change in small if not change.startswith(("transform", "model"))]
    recipe = Recipe.read("modern", [*base, "train.epochs=1", "data.limit=14", *changes], {"init_from": str(start)})
    return module.train(recipe, start.parent / "run", progress=False)


def test_another_image_size_interpolates_the_positions(start, small):
    folder = tuned(start, ["transform.image_size=[48, 32]", "model.options.drop_rate=0.25", "optim.lr=1e-9"], small)
    checkpoint, before = load_checkpoint(folder), load_checkpoint(start)
    assert checkpoint.transform.image_size == checkpoint.model.config.image_size == (48, 32)
    assert checkpoint.transform.std == before.transform.std
    assert (checkpoint.model.config.drop_rate, checkpoint.model.config.depth) == (0.25, 2)
    old, new = before.model.position.table, checkpoint.model.position.table
    assert (old.shape, new.shape) == ((1, 9, 16), (1, 24, 16))
    torch.testing.assert_close(old.mean(), new.mean(), atol=0.05, rtol=0)
    torch.testing.assert_close(checkpoint.model.classifier.weight, before.model.classifier.weight, atol=1e-3, rtol=0)
    assert read_run(folder).transform.image_size == (48, 32)


@pytest.mark.parametrize(
    "start",
    [("facerwkv_small", {"position": "2d", "time_mix_dim": 2}), ("facerwkv4_small", {"position": "2d"})],
    indirect=True,
)
def test_tables_over_tokens_are_stretched(start):
    recipe = Recipe.read("modern", ["transform.image_size=[48, 48]"], {"init_from": str(start)})
    before = load_checkpoint(start)
    model = module.new_model(module.fine_tuning(recipe, before), before.labels, before)
    assert model.config.image_size == (48, 48)
    assert model.position.rows.shape == (1, 6, 16)
    assert model.eval()(torch.zeros(1, 3, 48, 48)).shape == (1, 7)
    ours, theirs = model.state_dict(), before.model.state_dict()
    same = [name for name in ours if ours[name].shape == theirs[name].shape]
    assert [name for name in same if not torch.equal(ours[name], theirs[name])] == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["model.name=resnet18"], r"which is a facerwkv4_small, so model\.name=resnet18 cannot be obeyed"),
        (["model.pretrained=true"], r"model\.pretrained=True cannot be obeyed"),
        (["model.options.depth=3"], r"cannot start under these changes .* blocks\.2\.\S+ is missing"),
        (["transform.in_chans=1"], r"cannot start under these changes .* must be \(\d+, 1,"),
        (["model.options.nosuch=2"], "Unknown key 'model.options.nosuch'"),
    ],
)
def test_what_cannot_be_obeyed_is_refused(changes, message, start, small):
    with pytest.raises(InputError, match=message):
        tuned(start, changes, small)
    assert not (start.parent / "run").exists()


def test_a_recipe_s_own_model_and_transform_are_not_chosen_by_hand(start, small):
    assert Recipe.read("fer", ["optim.lr=1"], {"data.limit": 3}).chosen("transform") == {}
    assert Recipe.read("fer", ["transform={margin: 0.5}", "model.options.depth=3"]).chosen("model") == {
        "options": {"depth": 3}
    }
    recipe = Recipe.read("fer", ["model.name=facerwkv4_small"], {"init_from": str(start)})
    before = load_checkpoint(start)
    made = module.fine_tuning(recipe, before)
    assert made.transform == before.transform
    assert module.new_model(made, before.labels, before) is before.model


@pytest.mark.slow
def test_the_licence_of_what_it_started_from_follows_a_model_to_every_form(start, small, tmp_path):
    pytest.importorskip("onnxruntime")
    checkpoint = load_checkpoint(start)
    save_checkpoint(start, replace(checkpoint, card={"licence": "research only: a test", "name": "mother"}))
    folder, licence = tuned(start, [], small), "started from mother, research only: a test"
    tuned_one = load_checkpoint(folder)
    assert tuned_one.card["licence"] == licence
    assert export_onnx(folder, tmp_path / "a.onnx").licence == licence
    notice = f"facerwkv4_small, fine-tuned from start may be used for research only: its licence is {licence!r}."
    for model in (tuned_one, read_onnx(tmp_path / "a.onnx")):
        assert model.notice == notice
