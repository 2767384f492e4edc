"""Explanations: exact where the mathematics is exact, and one face, one image, one sentence for what cannot be."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner

from facerwkv.cli import app
from facerwkv.core.errors import InputError
from facerwkv.core.labels import EXPRESSIONS
from facerwkv.data.normalise import normalise
from facerwkv.data.toy.scenes import render
from facerwkv.data.transforms import TransformConfig
from facerwkv.export import export_onnx
from facerwkv.inference.explain import METHODS, deliver, explain, occlusion
from facerwkv.inference.predictor import Predictor, load
from facerwkv.media.draw import AGAINST, FOR, draw_patches
from facerwkv.mixers import MIXERS
from facerwkv.models.checkpoint import save_checkpoint
from facerwkv.models.evidence import gradient, patch_grid, tokens
from facerwkv.models.folder import Checkpoint
from facerwkv.models.zoo import create_model


def model_of(mixer, pool="mean", **options):
    torch.manual_seed(0)
    size = {"img_size": (12, 16), "patch_size": 4, "width": 32, "depth": 2, "heads": 2, "position": "none"}
    model = create_model("facerwkv4_small", mixer=mixer, pool=pool, **size | options).eval()
    for parameter in model.parameters():
        if parameter.ndim >= 2:
            nn.init.normal_(parameter, std=0.2)  # zero-initialised outputs would hand on nothing
    return model


LINEAR = [name for name in MIXERS if hasattr(model_of(name).blocks[0].time_mix, "hook_value")]


@pytest.fixture(scope="module")
def predictor():
    transform = TransformConfig(image_size=(32, 32), crop="scene", mean=(0.5,), std=(0.25,))
    model = create_model("facerwkv4_small", img_size=(32, 32), patch_size=8, width=32, heads=2)
    return Predictor(Checkpoint(model, "facerwkv4_small", EXPRESSIONS, transform), "cpu")


class Sum(nn.Module):
    """Logit c is a weighted sum of the pixels."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3 * 16 * 16, 7)

    def forward(self, x):
        return self.linear(x.flatten(1))


def test_gradient_and_occlusion_agree_on_a_linear_model_and_add_up_to_its_logit():
    torch.manual_seed(0)
    model, image = Sum(), np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    transform = TransformConfig(image_size=(16, 16), crop="scene")
    x = normalise(torch.from_numpy(image)[None], transform)
    first = gradient(model, x, 3)
    second = torch.from_numpy(occlusion(Predictor(Checkpoint(model, "sum", EXPRESSIONS, transform), "cpu"), image, 3))
    assert first.shape == patch_grid(model, (16, 16)) == (8, 8)
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(first.sum(), (model(x) - model.linear.bias)[0, 3], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mixer", LINEAR)
@pytest.mark.parametrize("pool", ["last", "mean", "flatten"])
def test_tokens_contributions_are_the_change_when_their_values_alone_change(mixer, pool):
    model, x = model_of(mixer, pool).double(), torch.rand(1, 3, 12, 16, dtype=torch.float64)
    scores = tokens(model, x, 2)
    assert scores.shape == (3, 4)
    # A token's value made a little larger: the logit moves by its score times that part, to first order.
    hook = model.blocks[-1].time_mix.hook_value
    for place in (0, 5, 11):
        part = 1e-6

        def grow(module, inputs, place=place, part=part):
            value = inputs[0].clone()
            value[:, place] *= 1 + part
            return value

        handle = hook.register_forward_pre_hook(grow)
        moved = model(x)[0, 2]
        handle.remove()
        torch.testing.assert_close((moved - model(x)[0, 2]) / part, scores.flatten()[place], rtol=1e-3, atol=1e-5)
    assert not hook._forward_pre_hooks


@pytest.mark.parametrize("mixer", LINEAR)
def test_a_time_mix_is_linear_in_what_passes_its_hook(mixer):
    model, x = model_of(mixer).double(), torch.rand(1, 3, 12, 16, dtype=torch.float64)
    mix, outputs = model.blocks[-1].time_mix, []
    after_kernel = getattr(mix, "norm", mix.output)
    seen = after_kernel.register_forward_pre_hook(lambda module, inputs: outputs.append(inputs[0].detach()))
    for factor in (0.0, 1.0, 3.0):
        handle = mix.hook_value.register_forward_pre_hook(lambda module, inputs, factor=factor: inputs[0] * factor)
        model(x)
        handle.remove()
    seen.remove()
    if not outputs:
        pytest.skip("its gate and output are one fused product: the test of single tokens covers it")
    zero, one, three = outputs
    torch.testing.assert_close(zero, torch.zeros_like(zero))
    torch.testing.assert_close(three, 3 * one)


@pytest.mark.parametrize("method", METHODS)
def test_a_scene_is_explained_on_its_patches(predictor, method):
    image = render(0, "test").image
    (found,) = explain(predictor, image, method)
    result = predictor.predict(image)
    assert (found.label, found.method, found.box) == (result.faces[0].label, method, None)
    assert found.prob == pytest.approx(result.faces[0].score, abs=1e-5)
    assert (found.scores.shape, found.scores.dtype) == ((4, 4), np.float32)
    assert found.image.shape == (32, 32, 3)
    assert json.loads(json.dumps(found.to_dict()))["scores"] == found.scores.tolist()
    assert explain(predictor, image, method, label="fear")[0].label == "fear"


def test_red_patches_speak_for_the_label_and_blue_ones_against_it():
    grey = np.full((32, 32, 1), 100, np.uint8)
    drawn = np.asarray(draw_patches(grey, np.array([[2.0, -2.0], [0.0, 1.0]]), ""))
    assert drawn.shape == (480, 480, 3)
    share = 170 / 255
    assert np.abs(drawn[100, 100] - (share * np.array(FOR) + (1 - share) * 100)).max() <= 2
    assert np.abs(drawn[100, 400] - (share * np.array(AGAINST) + (1 - share) * 100)).max() <= 2
    assert drawn[400, 100].tolist() == [100, 100, 100]


def test_faces_are_drawn_side_by_side(predictor, tmp_path, capsys):
    one = explain(predictor, render(0, "test").image)[0]
    deliver({"party.jpg": [one, one]}, tmp_path / "explained.png", as_json=False)
    with Image.open(tmp_path / "explained.png") as board:
        assert board.size == (960, 480)
    said = capsys.readouterr().out
    assert said.count("most for it, the patch in row") == 2
    assert "Wrote" in said


def test_the_command_draws_and_prints(predictor, tmp_path):
    save_checkpoint(tmp_path / "model", predictor.checkpoint)
    Image.fromarray(render(0, "test").image).save(tmp_path / "scene.png")
    out = tmp_path / "why.png"
    words = ["explain", str(tmp_path / "scene.png"), "--model", str(tmp_path / "model"), "--json", "--out", str(out)]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0
    assert [len(face["scores"]) for face in json.loads(result.stdout)] == [4]
    assert Image.open(out).size == (480, 480)


def test_several_sources_are_one_sheet_in_the_format_of_its_name(predictor, tmp_path, capsys):
    one = explain(predictor, render(0, "test").image)[0]
    deliver({"a.jpg": [one] * 30, "b.jpg": [one] * 10, "wall.jpg": []}, tmp_path / "why.jpg", as_json=False)
    with Image.open(tmp_path / "why.jpg") as board:
        assert (board.format, board.size) == ("JPEG", (6 * 480, 6 * 480))
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "wall.jpg: no face was found. --mode scene explains the whole image."
    assert said[31].startswith("31  b.jpg  ")
    assert said[-1].endswith(
        "why.jpg: the first 36 of 40 faces: red patches speak for the label, blue ones against it."
    )
    with pytest.raises(InputError, match=r"Cannot draw into why\.gif: end its name in \.png, \.jpg or \.webp"):
        deliver({"a.jpg": [one]}, Path("why.gif"), as_json=False)


@pytest.mark.slow
def test_an_exported_model_is_explained_by_occlusion_as_its_checkpoint_is(predictor, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    save_checkpoint(tmp_path / "model", predictor.checkpoint)
    export_onnx(tmp_path / "model", tmp_path / "a.onnx")
    image, exported = render(0, "test").image, load(tmp_path / "a.onnx", "cpu")
    for each in (exported, predictor):
        monkeypatch.setattr(each.model, "patches", (4, 4))
    (found,), (expected,) = explain(exported, image), explain(predictor, image, "occlusion")
    assert (found.method, found.label) == ("occlusion", expected.label)
    np.testing.assert_allclose(found.scores, expected.scores, atol=0.05)  # the mean colour in bytes
    with pytest.raises(InputError, match=r"no gradients and no tokens: choose occlusion"):
        explain(exported, image, "gradient")


def test_no_face_is_said_and_nothing_is_written(tmp_path, capsys):
    deliver({"wall.jpg": []}, tmp_path / "explained.png", as_json=False)
    assert capsys.readouterr().out == "wall.jpg: no face was found. --mode scene explains the whole image.\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "magic"}, "There is no method 'magic'; choose one of gradient, occlusion, tokens."),
        ({"label": "joy"}, "facerwkv4_small knows no label 'joy'; it has anger, disgust, fear"),
        ({"source": "nowhere.jpg"}, "nowhere.jpg"),
    ],
)
def test_what_cannot_be_explained_is_a_sentence(predictor, changes, message):
    with pytest.raises(InputError, match=message):
        explain(predictor, **{"source": render(0, "test").image} | changes)


def test_a_model_without_values_is_told_to_use_another_method():
    for model in (Sum(), model_of("identity")):
        with pytest.raises(InputError, match="Choose gradient or occlusion"):
            tokens(model, torch.rand(1, 3, 12, 16), 0)


def test_a_model_of_two_images_is_a_sentence():
    transform = TransformConfig(image_size=(32, 32), crop="both")
    checkpoint = Checkpoint(create_model("caer_net_s", img_size=(32, 32)), "caer_net_s", EXPRESSIONS, transform)
    with pytest.raises(InputError, match="looks at two images at once"):
        explain(Predictor(checkpoint, "cpu"), render(0, "test").image)
