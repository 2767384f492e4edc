"""The weights that come with the package: small, with a card that is true, and the default of prediction."""

import subprocess
import sys

import pytest
import timm
import torch

import facerwkv
from facerwkv.core.errors import InputError
from facerwkv.core.labels import EXPRESSIONS
from facerwkv.data.datasets import DATASETS
from facerwkv.evaluation.evaluate import evaluate_folder
from facerwkv.models.card import model_card
from facerwkv.models.checkpoint import load_checkpoint
from facerwkv.models.describe import print_one
from facerwkv.models.folder import CARD, DEFAULT, WEIGHTS, reports_of
from facerwkv.models.zoo import SHIPPED, create_model, shipped

MEGABYTES = {"facerwkv_fer": 10, "facerwkv_fer_tiny": 2, "facerwkv_ferplus": 10}
every = pytest.mark.parametrize("name", MEGABYTES)


@pytest.fixture(scope="module")
def fer2013(shared, tmp_path_factory):
    """The folder that fer2013 and ferplus read."""
    folder = tmp_path_factory.mktemp("fer2013")
    subprocess.run([sys.executable, shared / "data" / "fer2013" / "unpack.py", folder], check=True)
    return folder


def test_these_are_shipped_and_one_is_the_default():
    assert shipped() == sorted(MEGABYTES)
    assert DEFAULT in shipped()
    assert facerwkv.load(device="cpu").labels == EXPRESSIONS


@every
def test_it_is_small_and_its_card_has_terms_scores_and_weaknesses(name):
    folder = SHIPPED / name
    assert (folder / WEIGHTS).stat().st_size <= MEGABYTES[name] * 1e6
    card, text = load_checkpoint(name).card, (folder / CARD).read_text(encoding="utf-8")
    assert text == model_card(load_checkpoint(name), name)
    assert load_checkpoint(name).title == name
    assert card["licence"].startswith("research only: ")
    assert DATASETS[card["data"]["source"]].terms in text
    accuracy = card["metrics"]["test"]["accuracy"]
    assert f"| accuracy | {accuracy['value']:.1%} ({accuracy['low']:.1%}–{accuracy['high']:.1%}) |" in text
    assert all(heading in text for heading in ("## Weaknesses", "## Intended use", "Art. 5(1)(f)"))


@pytest.mark.slow
@pytest.mark.parametrize("name", MEGABYTES)
def test_it_scores_on_its_test_images_what_its_card_says(name, fer2013, tmp_path):
    said = load_checkpoint(name).card["metrics"]["test"]
    found = evaluate_folder(name, f"{said['source']}:{fer2013}", "test", tmp_path, "cpu").evaluation
    assert len(found.names) == said["n"]
    for score in ("accuracy", "uar", "macro_f1"):
        assert found.scores[score].value == pytest.approx(said[score]["value"], abs=2 / said["n"])  # float16 weights


def test_a_picture_without_faces_and_one_with_two(shared):
    model = facerwkv.load(device="cpu")
    assert model.predict(shared / "media" / "fer_no-faces.jpg").faces == ()
    faces = model.predict(shared / "media" / "couple.jpg").faces
    assert len(faces) == 2
    assert faces[0].label == "happiness"
    assert faces[1].label in {"anger", "neutral", "sadness"}  # a frown, on which models and people differ


def test_reports_on_a_shipped_model_stand_in_runs(tmp_path):
    assert str(reports_of(DEFAULT)) == f"runs/{DEFAULT}"
    assert reports_of(tmp_path) == tmp_path


@every
def test_create_model_and_timm_start_from_them(name):
    shipped_model = load_checkpoint(name).model
    x = torch.rand(2, 1, 48, 48)
    expected = shipped_model(x)
    assert torch.equal(create_model(name, pretrained=True).eval()(x), expected)
    assert torch.equal(timm.create_model(name, pretrained=True).eval()(x), expected)
    other = timm.create_model(name, pretrained=True, num_classes=3).eval()
    assert other(x).shape == (2, 3)
    assert torch.equal(other.forward_features(x), shipped_model.forward_features(x))


def test_a_shape_that_the_weights_do_not_have_is_refused():
    with pytest.raises(InputError, match="the shipped facerwkv_fer contains another model's weights"):
        create_model("facerwkv_fer", pretrained=True, width=128)


@every
def test_models_info_shows_its_card(name, capsys):
    print_one(name)
    shown = capsys.readouterr().out
    assert "Intended use" in shown
    assert "macs" in shown
