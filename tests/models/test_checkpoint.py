"""A checkpoint that is meant for others: its card, its size, what of this machine is not in it, and the hub."""

import json
from dataclasses import replace
from pathlib import Path

import huggingface_hub.errors
import pytest
import torch

import facerwkv
from facerwkv.core.errors import InputError
from facerwkv.core.labels import EXPRESSIONS
from facerwkv.data.transforms import TransformConfig
from facerwkv.models.card import model_card
from facerwkv.models.checkpoint import load_checkpoint
from facerwkv.models.folder import CARD, GRAPH, WEIGHTS, Checkpoint
from facerwkv.models.zoo import CONFIG, create_model

SCORE = {"value": 0.712, "low": 0.697, "high": 0.727}
ROW = {"precision": 0.5, "recall": 0.25, "f1": 0.333, "support": 1000}
SCORED = {
    "n": 3589,
    "source": "fer2013:/home/ann/fer2013",
    "split": "test",
    **dict.fromkeys(("accuracy", "uar", "macro_f1"), SCORE),
    "ece_calibrated": None,
    "per_class": {label: ROW | {"recall": 0.2 + 0.1 * i} for i, label in enumerate(EXPRESSIONS)},
}
CARD_OF_A_RUN = {
    "data": {"source": "fer2013:/home/ann/fer2013", "images": {"train": 28006, "test": 3589}, "dropped_leaks": 703},
    "licence": "research only: images from web search",
    "recipe": {
        "data": {"source": "fer2013:/home/ann/fer2013", "boxes": "/home/ann/boxes.csv"},
        "init_from": "~/runs/a",
    },
    "metrics": {"test": SCORED},
}


@pytest.fixture(autouse=True)
def without_graphs(monkeypatch):
    """What it takes to write one is tested in test_graph.py."""
    monkeypatch.setattr("facerwkv.models.graph.write_graph", lambda folder: 0.0)


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    model = create_model("facerwkv4_small", img_size=(32, 32), patch_size=8, width=32, heads=2).eval()
    return Checkpoint(model, "facerwkv4_small", EXPRESSIONS, TransformConfig(image_size=(32, 32)), 1.5, CARD_OF_A_RUN)


def test_what_is_packed_loads_and_answers_as_before(trained, tmp_path):
    trained.save_pretrained(tmp_path / "mine")
    loaded, x = Checkpoint.from_pretrained(tmp_path / "mine"), torch.rand(2, 3, 32, 32)
    assert torch.equal(loaded.model(x), trained.model(x))
    assert (loaded.labels, loaded.transform, loaded.temperature) == (EXPRESSIONS, trained.transform, 1.5)
    assert facerwkv.load(tmp_path / "mine", "cpu").labels == EXPRESSIONS
    assert (trained.title, loaded.title, loaded.name) == (
        "facerwkv4_small, fine-tuned from a",
        "mine",
        "facerwkv4_small",
    )


def test_others_may_read_the_weights_where_they_may_read_the_rest(trained, tmp_path):
    trained.save_pretrained(tmp_path)
    assert (tmp_path / WEIGHTS).stat().st_mode == (tmp_path / CONFIG).stat().st_mode


def test_half_the_precision_is_half_the_size_and_nearly_the_same_answer(trained, tmp_path):
    trained.save_pretrained(tmp_path / "whole")
    trained.save_pretrained(tmp_path / "half", half=True)
    sizes = [(tmp_path / name / WEIGHTS).stat().st_size for name in ("half", "whole")]
    assert sizes[0] < 0.6 * sizes[1]
    loaded, x = load_checkpoint(tmp_path / "half").model, torch.rand(2, 3, 32, 32)
    assert next(loaded.parameters()).dtype == torch.float32
    torch.testing.assert_close(loaded(x), trained.model(x), rtol=1e-2, atol=1e-3)


def test_no_path_of_this_machine_is_packed(trained, tmp_path):
    trained.save_pretrained(tmp_path / "mine")
    for name in (CONFIG, CARD):
        text = (tmp_path / "mine" / name).read_text(encoding="utf-8")
        assert "ann" not in text.replace("annotators", "")
        assert "~" not in text
    card = json.loads((tmp_path / "mine" / CONFIG).read_text(encoding="utf-8"))["card"]
    assert card["recipe"] == {"data": {"source": "fer2013", "boxes": "boxes.csv"}, "init_from": "a"}


def test_a_card_says_what_was_measured(trained):
    text = model_card(trained, "facerwkv_fer")
    assert text.startswith("---\nlicense: other\nlicense_name: 'research only'\n")
    for part in (
        "# facerwkv_fer\n",
        "28,006 train, 3,589 test images. 703 training images that also occur in validation or test were left out.",
        "| accuracy | 71.2% (69.7%–72.7%) |",
        "| anger | 50.0% | 20.0% | 33.3% | 1,000 |",
        "Recognised least: anger (20%), disgust (30%), fear (40%).",
        'facerwkv.load("facerwkv_fer")',
        "apparent expression",
        "Art. 5(1)(f)",
    ):
        assert part in text
    assert "ECE" not in text


def test_a_card_says_where_training_started(trained):
    kept = CARD_OF_A_RUN | {"recipe": {"model": {"stem_weights": "/w/imagenet1k_v1.npz"}, "init_from": None}}
    assert "Training started from" not in model_card(replace(trained, card=kept), "x")  # it has no ResNet stem
    model = create_model("facerwkv_fer", stem="resnet_layer2", patch_size=2)
    text = model_card(replace(trained, model=model, card=kept), "x")
    assert "left out. Training started from ResNet-50's ImageNet weights in its stem (imagenet1k_v1).\n" in text
    kept = CARD_OF_A_RUN | {"recipe": {"init_from": "facerwkv_fer"}}
    assert "left out. Training started from facerwkv_fer.\n" in model_card(replace(trained, card=kept), "x")


def test_open_weights_are_called_so(trained):
    assert "license: apache-2.0\n" in model_card(replace(trained, card=CARD_OF_A_RUN | {"licence": "Apache-2.0"}), "x")


def test_a_model_without_metrics_has_no_card_and_nothing_is_written(trained, tmp_path):
    with pytest.raises(InputError, match=r"has no metrics, .*Score it first"):
        replace(trained, card={}).save_pretrained(tmp_path / "mine")
    assert not (tmp_path / "mine").exists()


def test_the_hub_s_copy_is_read_like_a_folder(trained, tmp_path, monkeypatch):
    trained.save_pretrained(tmp_path / "mine")
    asked = []

    def download(repo_id, revision, allow_patterns):
        asked.append((repo_id, revision, allow_patterns))
        return str(tmp_path / "mine")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert load_checkpoint("hf-hub:ann/fer").labels == EXPRESSIONS
    assert facerwkv.load(Path("hf-hub:ann/fer@v2"), "cpu").labels == EXPRESSIONS
    assert facerwkv.Predictor.from_pretrained("hf-hub:ann/fer@v2", device="cpu").labels == EXPRESSIONS
    files = [WEIGHTS, CONFIG, GRAPH]
    assert asked == [("ann/fer", revision, files) for revision in (None, "v2", "v2")]


@pytest.mark.parametrize(
    "error",
    [
        huggingface_hub.errors.LocalEntryNotFoundError("No network."),
        huggingface_hub.errors.HFValidationError("Repo id must be in the form 'repo_name'"),
        OSError("No space left on device"),
    ],
)
def test_what_the_hub_does_not_have_is_a_sentence(error, monkeypatch):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(InputError, match=r"hf-hub:ann/fer could not be fetched: .*Check the name"):
        load_checkpoint("hf-hub:ann/fer")


def test_uploading_sends_three_files_and_gives_the_address(trained, monkeypatch):
    sent = {}

    class Api:
        def __init__(self, token=None):
            sent["token"] = token

        def create_repo(self, repo_id, private, exist_ok):
            return f"https://hub.invalid/{repo_id}"

        def upload_folder(self, repo_id, folder_path, commit_message):
            sent["files"] = sorted(path.name for path in Path(folder_path).iterdir())
            sent["card"] = (Path(folder_path) / CARD).read_text(encoding="utf-8")

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    predictor = facerwkv.Predictor(trained, "cpu")
    assert predictor.push_to_hub("ann/fer", half=True) == "https://hub.invalid/ann/fer"
    assert sent["files"] == sorted([CARD, CONFIG, WEIGHTS])
    assert 'facerwkv.load("hf-hub:ann/fer")' in sent["card"]
