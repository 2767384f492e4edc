import csv
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from torch import nn
from torch.utils.data import DataLoader

from facerwkv.core.errors import InputError
from facerwkv.core.metrics import fit_temperature
from facerwkv.data.loader import DataConfig, DataModule
from facerwkv.data.transforms import TransformConfig
from facerwkv.data.views import COUNTS, views
from facerwkv.evaluation.evaluate import align_labels, evaluate, run_logits
from facerwkv.evaluation.report import console_table
from facerwkv.evaluation.result import Evaluation
from facerwkv.models.folder import Checkpoint

LABELS = ("anger", "fear", "happiness")


def evaluation(**changes) -> Evaluation:
    """Four images, three right; no happiness in the truth."""
    values = {
        "labels": LABELS,
        "names": ["a.png", "b.png", "c.png", "d.png"],
        "targets": np.array([0, 0, 1, 1]),
        "logits": np.log(np.array([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.1, 0.8, 0.1], [0.1, 0.5, 0.4]])),
        "source": "toy",
        "split": "test",
        "model": "facerwkv_small",
    }
    return Evaluation(**values | changes)


class MeanColour(nn.Module):
    """Logits are the mean of each channel: a model whose answers can be said beforehand."""

    def forward(self, images):
        return images.mean((2, 3))


class TopLeft(nn.Module):
    """Logits are the first pixel."""

    def forward(self, images):
        return images[:, :, 0, 0]


def test_summary_is_json_of_native_numbers():
    summary = evaluation(meta={"commit": "abc"}).summary()
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert summary["n"] == 4
    assert summary["commit"] == "abc"
    assert summary["accuracy"]["value"] == 0.75
    assert summary["uar"]["value"] == 0.75
    assert summary["macro_f1"]["value"] == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert summary["ece"]["value"] == pytest.approx((0.4 + 0.7 + 0.2 + 0.5) / 4)
    assert summary["confusion"] == [[1, 1, 0], [0, 2, 0], [0, 0, 0]]
    assert summary["per_class"]["anger"] == {"precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3), "support": 2}
    assert summary["per_class"]["happiness"] == {"precision": None, "recall": None, "f1": None, "support": 0}


def test_calibrated_error_is_null_without_a_temperature():
    assert evaluation().summary()["ece_calibrated"] is None
    assert evaluation().summary()["temperature"] is None
    calibrated = evaluation(temperature=2.0).summary()
    assert calibrated["temperature"] == 2.0
    assert set(calibrated["ece_calibrated"]) == {"value", "low", "high"}


@pytest.mark.parametrize(
    ("keep", "names"),
    [
        ({"d.png", "a.png", "elsewhere.png"}, ["a.png", "d.png"]),
        (np.array([False, True, True, False]), ["b.png", "c.png"]),
    ],
)
def test_restrict_keeps_some_images(keep, names):
    part = evaluation().restrict(keep)
    assert part.names == names
    assert part.indices.tolist() == [evaluation().names.index(name) for name in names]
    assert part.summary()["n"] == 2
    assert part.summary()["restricted_from"] == 4


def test_restrict_to_nothing_is_an_error():
    with pytest.raises(InputError, match="no images to score in test of toy"):
        evaluation().restrict(set())


def test_save_and_load_lose_nothing(tmp_path):
    first = evaluation(temperature=1.5, meta={"seed": 3}, names=["a.png", "ü, b.png", "c\n.png", "\udcff.png"])
    first.save(tmp_path)
    again = Evaluation.load(tmp_path)
    assert again.summary() == first.summary()
    assert (again.labels, again.names, again.meta) == (first.labels, first.names, first.meta)
    for name in ("targets", "logits", "indices"):
        np.testing.assert_array_equal(getattr(again, name), getattr(first, name))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evaluation.json", "logits.npz", "predictions.csv"]


def test_predictions_table_has_one_row_an_image(tmp_path):
    evaluation(names=["a, b.png", "b.png", "c.png", "d.png"]).save(tmp_path)
    with (tmp_path / "predictions.csv").open(encoding="utf-8", newline="") as file:
        header, first, second, *_ = rows = list(csv.reader(file))
    assert header == ["name", "label", "predicted", "score", "correct", "p_anger", "p_fear", "p_happiness"]
    assert first == ["a, b.png", "anger", "anger", "0.600000", "1", "0.600000", "0.300000", "0.100000"]
    assert second[:5] == ["b.png", "anger", "fear", "0.700000", "0"]
    assert len(rows) == 5


def test_predictions_table_shows_calibrated_probabilities(tmp_path):
    evaluation(temperature=2.0).save(tmp_path)
    first = (tmp_path / "predictions.csv").read_text().splitlines()[1].split(",")
    roots = np.sqrt([0.6, 0.3, 0.1])
    assert [float(cell) for cell in first[5:]] == pytest.approx((roots / roots.sum()).tolist(), abs=1e-6)


@pytest.mark.parametrize(("file", "content"), [("evaluation.json", b"{"), ("logits.npz", b"PK"), ("logits.npz", None)])
def test_load_names_a_folder_that_cannot_be_read(tmp_path, file, content):
    evaluation().save(tmp_path)
    (tmp_path / file).unlink() if content is None else (tmp_path / file).write_bytes(content)
    with pytest.raises(InputError, match=r"contains no evaluation: .* missing or damaged.*\. Make one"):
        Evaluation.load(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"logits": np.full((4, 3), np.nan)}, r"NaN or infinity for 4 of 4 images \(the first: a\.png\)"),
        ({"logits": np.zeros((4, 2))}, r"shape \(4, 2\)"),
        ({"targets": np.zeros(3, int)}, "3 targets"),
        ({"names": [], "targets": np.zeros(0, int), "logits": np.zeros((0, 3))}, "no images to score"),
    ],
)
def test_an_evaluation_that_cannot_be_scored_is_an_error(changes, message):
    with pytest.raises(InputError, match=message):
        evaluation(**changes)


def test_mistakes_come_with_the_surest_first():
    logits = np.log(np.array([[0.1, 0.6, 0.3], [0.1, 0.8, 0.1], [0.1, 0.8, 0.1], [0.5, 0.1, 0.4]]))
    assert evaluation(logits=logits).mistakes(2).tolist() == [1, 0]


@pytest.mark.parametrize("soft", [False, True])
def test_run_logits_keeps_the_order_and_the_mode_of_the_model(soft):
    images = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 51]], dtype=torch.uint8)[:, None, None].expand(3, 4, 4, 3)
    hard = torch.tensor([0, 1, 0])
    targets = torch.tensor([[0.6, 0.4, 0.0], [0.0, 0.9, 0.1], [0.5, 0.2, 0.3]]) if soft else hard
    rows = [{"image": images[row], "target": targets[row], "index": torch.tensor(row + 7)} for row in range(3)]
    model = MeanColour().train()
    config = TransformConfig(image_size=(4, 4), mean=(0, 0, 0), std=(1, 1, 1))
    logits, found, indices = run_logits(model, DataLoader(rows, batch_size=2), config, progress=False)
    np.testing.assert_allclose(logits, [[1, 0, 0], [0, 1, 0], [0, 0, 0.2]], atol=1e-6)
    assert found.tolist() == hard.tolist()
    assert indices.tolist() == [7, 8, 9]
    assert (found.dtype, indices.dtype, logits.dtype) == (np.int64, np.int64, np.float32)
    assert model.training


@pytest.mark.parametrize(("tta", "count"), [("none", 1), ("flip", 2), ("ten", 10)])
def test_run_logits_averages_over_the_views_of_tensors_as_of_arrays(tta, count):
    images = torch.randint(0, 256, (3, 24, 48, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    seen = list(views(images.numpy(), tta))
    assert (len(seen), COUNTS[tta]) == (count, count)
    assert all(np.array_equal(one, other) for one, other in zip(seen, views(images, tta), strict=True))
    loader = [{"image": images, "target": torch.zeros(3, dtype=torch.long), "index": torch.arange(3)}]
    config = TransformConfig(image_size=(24, 48))
    logits = run_logits(TopLeft(), loader, config, progress=False, tta=tta)[0]
    np.testing.assert_allclose(logits, np.mean([one[:, 0, 0] / 255 for one in seen], 0), atol=1e-6)


def test_a_score_with_views_says_so_and_what_it_costs(data):
    found = evaluate(Checkpoint(MeanColour(), "colours", LABELS, SMALL), data, progress=False, tta="ten")
    assert found.meta == {"tta": "ten"}
    console = Console(file=io.StringIO(), width=120)
    console.print(console_table(found))
    assert "tta ten: logits averaged over 10 views of each image, 10 times the cost" in console.file.getvalue()


def test_run_logits_of_nothing_is_an_error():
    with pytest.raises(InputError, match="no images to evaluate"):
        run_logits(MeanColour(), DataLoader([]), TransformConfig(), progress=False)


def test_align_labels_scores_the_common_classes():
    logits = np.array([[1.0, 2.0, 9.0], [3.0, 4.0, 9.0], [5.0, 6.0, 9.0]])
    targets = np.array([0, 1, 2])
    found = align_labels(logits, targets, ("anger", "fear", "contempt"), ("fear", "disgust", "anger"))
    assert found[0].tolist() == [[1.0, 2.0], [5.0, 6.0]]
    assert found[1].tolist() == [1, 0]
    assert found[2] == ("anger", "fear")
    assert found[3].tolist() == [0, 2]


def test_align_labels_of_the_same_set_changes_nothing():
    logits, targets = np.random.default_rng(0).normal(size=(5, 3)), np.array([0, 1, 2, 0, 1])
    same, kept, labels, rows = align_labels(logits, targets, LABELS, LABELS)
    np.testing.assert_array_equal(same, logits)
    assert (kept.tolist(), labels, rows.tolist()) == (targets.tolist(), LABELS, [0, 1, 2, 3, 4])


def test_align_labels_without_two_common_classes_names_both_sets():
    with pytest.raises(InputError, match=r"knows anger, fear; the data set has fear, cat: fewer than two"):
        align_labels(np.zeros((1, 2)), np.array([0]), ("anger", "fear"), ("fear", "cat"))


COLOURS = {"anger": (255, 0, 0), "fear": (0, 255, 0), "happiness": (0, 0, 255)}
SMALL = TransformConfig(image_size=(4, 4))


@pytest.fixture
def data(tmp_path) -> DataModule:
    """A folder of images in the colour of their class; one test image of fear is as red as anger."""
    for split in ("train", "val", "test"):
        for label, colour in COLOURS.items():
            (tmp_path / split / label).mkdir(parents=True)
            Image.new("RGB", (4, 4), colour).save(tmp_path / split / label / "1.png")
    Image.new("RGB", (4, 4), (255, 0, 0)).save(tmp_path / "test" / "fear" / "2.png")
    config = DataConfig(source=f"imagefolder:{tmp_path}", labels=LABELS, batch_size=2, cache=False)
    module = DataModule(config, SMALL, seed=0)
    module.setup()
    return module


def test_evaluate_scores_a_split_by_name(data):
    found = evaluate(Checkpoint(MeanColour(), "colours", LABELS, SMALL), data, progress=False, meta={"commit": "abc"})
    assert found.names == ["test/anger/1.png", "test/fear/1.png", "test/fear/2.png", "test/happiness/1.png"]
    assert [LABELS[answer] for answer in found.predictions] == ["anger", "fear", "anger", "happiness"]
    assert (found.model, found.source, found.split) == ("colours", data.config.source, "test")
    assert found.temperature is None
    assert found.meta == {"commit": "abc"}


def test_evaluate_takes_the_checkpoints_temperature(data):
    found = evaluate(Checkpoint(MeanColour(), "colours", LABELS, SMALL, temperature=2.5), data, progress=False)
    assert found.temperature == 2.5


@pytest.mark.parametrize("split", ["val", "test"])
def test_evaluate_fits_a_temperature_on_validation(data, split):
    checkpoint = Checkpoint(MeanColour(), "colours", LABELS, SMALL)
    found = evaluate(checkpoint, data, split, temperature="validation", progress=False)
    assert found.temperature == fit_temperature(np.eye(3), np.arange(3))


def test_evaluate_scores_only_classes_that_both_sides_know(data):
    checkpoint = Checkpoint(MeanColour(), "colours", ("anger", "disgust", "happiness"), SMALL)
    found = evaluate(checkpoint, data, progress=False)
    assert found.labels == ("anger", "happiness")
    assert found.names == ["test/anger/1.png", "test/happiness/1.png"]
    assert found.summary()["accuracy"]["value"] == 1.0
    assert found.summary()["ignored_labels"] == ["disgust", "fear"]
    assert found.summary()["ignored_images"] == 2


def test_evaluate_refuses_images_prepared_for_another_model(data):
    with pytest.raises(InputError, match="Make the DataModule with the checkpoint's transform"):
        evaluate(Checkpoint(MeanColour(), "colours", LABELS, TransformConfig(image_size=(8, 8))), data, progress=False)
