"""Experiments from plan to page: what is run, what is not run twice, what a missing part does to the rest."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from facerwkv.errors import InputError
from facerwkv.experiments import EXPERIMENTS, chosen, experiment
from facerwkv.experiments import reproduce as page
from facerwkv.experiments.reproduce import reproduce
from facerwkv.experiments.study import SCORE, Row, Setting, Study, mean_and_deviation
from facerwkv.experiments.table2_scaling import STUDY as TABLE2
from facerwkv.experiments.table3_hybrid import STUDY as TABLE3
from facerwkv.experiments.table5_ablation import STUDY as TABLE5

STUDIES = {"table2_scaling": TABLE2, "table3_hybrid": TABLE3, "table5_ablation": TABLE5}
ROWS = [pytest.param(row, id=f"{name}-{row.name}") for name, study in STUDIES.items() for row in study.rows]
TINY = Study(
    "Tiny", "none.", "seconds.", (Row("Small", ("model.name=facerwkv_small",), 61.41, curve=(0.2, 0.3)),), "Figure 0"
)


def test_every_experiment_has_a_file_and_says_its_command():
    for name in EXPERIMENTS:
        experiment(name)
        text = Path(page.__file__).with_name(f"{name}.py").read_text(encoding="utf-8")
        assert f"facerwkv reproduce {name}" in text.split('"""')[1]
    assert chosen("all") == list(EXPERIMENTS)
    with pytest.raises(InputError, match=r"Unknown experiment 'table9'. Known experiments: all, "):
        experiment("table9")


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("as_coded", [False, True])
@pytest.mark.parametrize("smoke", [False, True])
def test_every_row_has_a_plan(row, as_coded, smoke):
    setting = Setting("caer_s:/d/CAER-S", Path("out"), as_coded=as_coded, smoke=smoke, changes=["optim.lr=0.5"])
    for protocol in setting.protocols:
        plan = setting.recipe(protocol, row.changes, 3)
        assert (plan.train.seed, plan.optim.lr) == (3, 0.5)
        assert plan.data.validation == {"official": "random", "blocks": "contiguous", "as_coded": "copied"}[protocol]
        assert plan.data.source.startswith("toy" if smoke else "caer_s:")
        sides = (60, 40) if as_coded else (40, 60)
        assert plan.transform.image_size == tuple(side * (1 if smoke else 10) for side in sides)


def test_the_papers_numbers_are_the_papers(shared):
    text = (shared / "paper" / "facerwkv.txt").read_text(encoding="utf-8")
    for study in STUDIES.values():
        for row in study.rows:
            if row.paper is not None:
                assert re.search(rf"\| (\w+ )*?{re.escape(row.name)} +\| {row.paper:.2f} +\|", text), row.name


def test_the_authors_curves_are_those_of_their_logs(shared):
    logs = json.loads((shared / "paper" / "authors_runs.json").read_text(encoding="utf-8"))
    known = [tuple(round(value, 4) for value in log["val_accuracy"]) for log in logs]
    curves = [row.curve for study in STUDIES.values() for row in study.rows if row.curve]
    assert len(curves) == 4
    assert all(curve in known for curve in curves)


@pytest.mark.parametrize(
    ("values", "text"), [([0.5], "50.00"), ([0.5, 0.6], "55.00 ± 7.07"), ([0.1429, 0.1429, 0.1429], "14.29 ± 0.00")]
)
def test_seeds_become_a_mean_and_a_deviation(values, text):
    assert mean_and_deviation(values) == text


def test_a_study_is_run_once_and_its_page_has_both_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "experiment", lambda name: TINY.run)
    setting = Setting("toy", tmp_path, [0], smoke=True)
    html, problems = reproduce("tiny", setting)
    assert problems == []
    scores = {path: path.stat().st_mtime_ns for path in tmp_path.rglob(SCORE)}
    assert len(scores) == 2
    assert all(set(json.loads(path.read_text())) == {"train", "test", "curve"} for path in scores)
    text = (tmp_path / "reproduce.md").read_text(encoding="utf-8")
    row = next(line for line in text.splitlines() if line.startswith("| Small |"))
    paper, ours, difference = (cell.strip() for cell in row.split("|")[2:5])
    assert paper == "61.41"
    assert float(difference) == pytest.approx(float(ours) - 61.41, abs=0.011)
    assert (tmp_path / "figure_0.png").is_file()
    assert "numbers mean nothing" in html.read_text(encoding="utf-8")
    reproduce("tiny", setting)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob(SCORE)} == scores
    with pytest.raises(InputError, match=r"was trained under another recipe \(optim.lr was 0.001, now 0.5\)"):
        TINY.run(replace(setting, changes=["optim.lr=0.5"]))


def test_what_cannot_run_is_said_on_the_page_and_stops_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "chosen", lambda name: ["table2_scaling", "table1_sizes"])
    html, problems = reproduce("all", Setting("caer_s:/nowhere", tmp_path))
    assert len(problems) == 1
    assert problems[0].startswith("table2_scaling: /nowhere does not exist.")
    text = html.read_text(encoding="utf-8")
    assert "Missing. /nowhere does not exist." in text
    assert "14,784,039" in text


@pytest.mark.slow
def test_everything_runs_small(tmp_path):
    html, problems = reproduce("all", Setting("toy", tmp_path, [0], smoke=True))
    assert problems == []
    text = html.read_text(encoding="utf-8")
    assert all(title in text for title in ("Table 1", "Table 2", "Table 3", "Table 4", "Table 5", "Section 5.1"))
    shutil.rmtree(tmp_path)
