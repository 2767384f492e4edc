"""Scores on validation that are not defined, and runs whose log has the scores of another version."""

import csv
from types import SimpleNamespace

import pytest
import torch

from facerwkv.training.callbacks import EpochLines, Saver
from facerwkv.training.loggers import Curves, columns
from facerwkv.training.recipe import Recipe


def trainer(epoch: int, accuracy: float) -> SimpleNamespace:
    """What the callbacks read of a trainer after an epoch."""
    values = {"train_loss": 1.5, "val_loss": 1.25, "val_accuracy": accuracy, "val_uar": 0.5, "val_macro_f1": 0.25}
    return SimpleNamespace(
        callback_metrics={name: torch.tensor(value) for name, value in values.items()},
        is_global_zero=True,
        current_epoch=epoch,
        max_epochs=5,
        save_checkpoint=lambda path: path.write_bytes(b""),
    )


@pytest.mark.parametrize(
    ("accuracies", "saved"),
    [
        ([0.2, 0.1, 0.3], [0, 2]),
        ([float("nan"), 0.1, float("nan"), 0.2], [0, 1, 3]),
        ([float("nan"), float("nan")], [0]),
        ([-0.5, -0.25, -0.375], [0, 1]),  # kappa can be negative
    ],
)
def test_the_best_epoch_is_the_first_until_a_score_is_defined(accuracies, saved, tmp_path, monkeypatch):
    kept = {"best": [], "last": []}

    def save(folder, scores):
        folder.mkdir(exist_ok=True)
        kept[folder.name].append(scores)

    saver = Saver(tmp_path, SimpleNamespace(recipe=Recipe()), None)
    monkeypatch.setattr(saver, "save", save)
    for epoch, accuracy in enumerate(accuracies):
        saver.on_train_epoch_end(trainer(epoch, accuracy), None)
    assert [scores["epoch"] for scores in kept["best"]] == saved
    assert [scores["val_accuracy"] for scores in kept["last"]] == [
        None if value != value else pytest.approx(value) for value in accuracies
    ]


def test_a_score_that_is_not_defined_is_a_dash_in_the_line_of_an_epoch(capsys):
    lines = EpochLines()
    lines.on_train_epoch_end(trainer(2, float("nan")), None)
    line = capsys.readouterr().err
    assert "epoch 3/5  train loss 1.500  validation loss 1.250  accuracy –  UAR 50.0%  macro-F1 25.0%" in line


def test_a_resumed_log_has_the_scores_of_today(tmp_path):
    log = Curves(tmp_path)
    log.path.write_text("epoch,step,lr,train_loss,val_loss,val_accuracy,val_gone\n0,9,,1,2,0.5,7\n1,19,,1,2,0.75,7\n")
    log.rewind(19)
    log.log_metrics({"epoch": 1, "val_accuracy": 0.875, "val_macro_f1": 0.5}, 19)
    with log.path.open(newline="") as file:
        first, second = rows = list(csv.DictReader(file))
    assert [list(row) for row in rows] == [columns()] * 2
    assert (first["val_accuracy"], first["val_macro_f1"]) == ("0.5", "")
    assert (second["val_accuracy"], second["val_macro_f1"]) == ("0.875", "0.5")
