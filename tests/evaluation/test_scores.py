"""A score added with a function and one line of SCORES appears wherever scores are shown."""

import csv
import json
import shutil

import numpy as np
import pytest

from facerwkv.core import metrics
from facerwkv.core.errors import InputError
from facerwkv.evaluation.compare import compare
from facerwkv.evaluation.report import console_subgroups, console_table, write_report
from facerwkv.evaluation.result import Evaluation
from facerwkv.evaluation.subgroups import score_subgroups
from facerwkv.models.card import model_card
from facerwkv.models.checkpoint import load_checkpoint
from facerwkv.training.recipe import Recipe
from tests.evaluation.test_report import shown
from tests.scores import KAPPA
from tools import write_docs

NAME = "facerwkv4_small"


@pytest.fixture(autouse=True)
def added(monkeypatch):
    monkeypatch.setitem(metrics.SCORES, "kappa", KAPPA)


@pytest.fixture(scope="module")
def compared(small, drawn, tmp_path_factory):
    """A comparison of one model, trained while the score is in the table."""
    out = tmp_path_factory.mktemp("kappa")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(metrics.SCORES, "kappa", KAPPA)
        return out, compare([NAME], "modern", [*small, "train.epochs=2", "train.monitor=kappa"], out, progress=False)


def test_training_logs_and_monitors_it(compared):
    out, result = compared
    assert result.problems == []
    with (out / NAME / "metrics.csv").open(newline="") as file:
        values = [row["val_kappa"] for row in csv.DictReader(file) if row["val_accuracy"]]
    assert len(values) == 2
    assert all(-1 <= float(value) <= 1 for value in values)
    assert load_checkpoint(out / NAME / "best").card["validation"]["val_kappa"] == pytest.approx(
        max(map(float, values)), abs=1e-6
    )


def test_the_evaluation_and_its_report_show_it(compared):
    folder = compared[0] / NAME / "test"
    summary = json.loads((folder / "evaluation.json").read_text())
    evaluation = Evaluation.load(folder)
    assert summary["kappa"] == evaluation.scores["kappa"].to_dict()
    text = KAPPA.text(evaluation.scores["kappa"])
    value, interval = text.removesuffix(")").split(" (")
    page = (folder / "report.html").read_text()
    assert f"<dt>kappa</dt><dd><b>{value}</b><small>{interval}</small></dd>" in page
    assert "kappa" in page[page.index("<h2>Training</h2>") : page.index("<h2>Classes</h2>")]  # the curve's legend
    assert f"| kappa | {value} | {interval} |" in (folder / "report.md").read_text()
    assert f"kappa {value} {interval}" in " ".join(shown(console_table(evaluation)).split())


def test_the_comparison_shows_it(compared):
    out, result = compared
    (row,) = json.loads((out / "comparison.json").read_text())["rows"]
    assert row["kappa"] == result.rows[0]["kappa"]
    assert row["kappa"].keys() == {"value", "low", "high"}
    head, _, line = (out / "comparison.md").read_text().splitlines()
    column = head.split(" | ").index("kappa")
    assert line.split(" | ")[column] == KAPPA.text(metrics.Score(**row["kappa"]))
    assert "kappa.value" in (out / "comparison.csv").read_text().splitlines()[0]


def test_the_card_shows_it(compared):
    assert "| kappa | " in model_card(load_checkpoint(compared[0] / NAME), "mine")


def groups_of(predictions: np.ndarray):
    """Subgroups of 40 women, 40 men and 5 of unknown gender."""
    targets = np.arange(85) % 2
    evaluation = Evaluation(("anger", "fear"), [f"{n}.png" for n in range(85)], targets, np.eye(2)[predictions])
    genders = ["female"] * 40 + ["male"] * 40 + ["unknown"] * 5
    return evaluation, score_subgroups(evaluation, [{"gender": gender} for gender in genders], ["gender"])


def test_subgroups_show_it(tmp_path):
    targets = np.arange(85) % 2
    answers = np.where((np.arange(85) < 40) & (np.arange(85) % 4 < 2), 1 - targets, targets)
    evaluation, subgroups = groups_of(answers)
    said = subgroups.to_dict()["attributes"]["gender"]
    assert said["groups"]["female"]["kappa"]["value"] == 0.0
    assert (said["gaps"]["kappa"]["best"], said["gaps"]["kappa"]["value"]) == ("male", 1.0)
    text = " ".join(shown(console_subgroups(subgroups)).split())
    assert "gender: kappa male female 1.000" in text
    write_report(evaluation, tmp_path, subgroups=subgroups)
    assert "| gender: kappa | male | female | 1.000 |" in (tmp_path / "report.md").read_text()


def test_a_group_in_which_it_is_not_defined_has_a_dash_and_no_gap(tmp_path):
    targets = np.zeros(85, int)
    evaluation = Evaluation(("anger", "fear"), [str(n) for n in range(85)], targets, np.eye(2)[targets])
    groups = [{"gender": "female" if number < 40 else "male"} for number in range(85)]
    subgroups = score_subgroups(evaluation, groups, ["gender"])
    assert evaluation.summary()["kappa"] is None
    assert subgroups.to_dict()["attributes"]["gender"]["groups"]["male"]["kappa"] is None
    assert [gap.score for gap in subgroups.gaps] == ["accuracy", "uar", "macro_f1"]
    page = write_report(evaluation, tmp_path, subgroups=subgroups).read_text()
    assert "<dt>kappa</dt><dd><b>–</b><small>not defined</small></dd>" in page
    assert "100.0% (100.0%–100.0%)</td><td>–</td></tr>" in page
    assert "NaN" not in (tmp_path / "subgroups.json").read_text()


def test_the_page_of_results_computes_it_for_runs_that_were_kept_without_it(tmp_path, monkeypatch):
    shutil.copytree(write_docs.RUNS / "fer2013_small", tmp_path / "runs" / "fer2013_small")
    monkeypatch.setattr(write_docs, "RUNS", tmp_path / "runs")
    lines = write_docs.results().splitlines()
    head = next(line for line in lines if line.startswith("| images | n |"))
    line = next(line for line in lines if line.startswith("| all | 3,589 |"))
    kept = json.loads((tmp_path / "runs" / "fer2013_small" / write_docs.EVALUATION).read_text())
    value = float(KAPPA.function(np.array(kept["confusion"])))
    assert line.split("|")[head.split("|").index(" kappa ")].startswith(f" {value:.3f} (")
    compared = next(line for line in lines if line.startswith("| caer_net_s |"))
    assert " | – | 2,388,876 | " in compared  # a comparison keeps no confusion matrix


def test_the_web_pages_are_told_of_it():
    assert metrics.score_titles()["kappa"] == {"title": "kappa", "about": "", "percent": False, "digits": 3}


def test_a_monitor_that_is_no_score_is_told_which_are():
    with pytest.raises(InputError, match=r"train.monitor: Choose accuracy, uar, macro_f1, kappa \(given: 'ece'\)"):
        Recipe.read("modern", ["train.monitor=ece"])
