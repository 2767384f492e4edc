"""The rows of every study and figure: their plans, and the paper's numbers and the authors' logs in them."""

import json
import re
from importlib import import_module
from pathlib import Path

import pytest
import torch

from facerwkv.experiments import EXPERIMENTS
from facerwkv.experiments.section3_augmentation import ROWS as AUGMENTATIONS
from facerwkv.experiments.study import Setting
from facerwkv.experiments.table2_scaling import STUDY as TABLE2
from facerwkv.experiments.table3_hybrid import STUDY as TABLE3
from facerwkv.models.zoo import create_model
from facerwkv.training.module import check_inputs
from facerwkv.training.optim import lr_factor
from facerwkv.training.recipe import Recipe

MODULES = [import_module(f"facerwkv.experiments.{name}") for name in EXPERIMENTS]
STUDIES = {module.STUDY.title: module.STUDY for module in MODULES if hasattr(module, "STUDY")}
FIGURES = {module.FIGURE.title: module.FIGURE for module in MODULES if hasattr(module, "FIGURE")}
ROWS = [pytest.param(row, id=f"{title}-{row.name}") for title, study in STUDIES.items() for row in study.rows]
AS_WRITTEN, AS_CODED = (Setting("caer_s:/d/CAER-S", Path("out"), as_coded=as_coded) for as_coded in (False, True))


TEST = "data.validation=test"


def plan(row, setting=AS_WRITTEN):
    return setting.recipe(next(iter(setting.protocols)), row.under(setting), 0)


def test_there_are_as_many_as_the_paper_has():
    assert (len(STUDIES), len(FIGURES)) == (11, 5)


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("as_coded", [False, True])
@pytest.mark.parametrize("smoke", [False, True])
def test_every_row_has_a_plan(row, as_coded, smoke):
    setting = Setting("caer_s:/d/CAER-S", Path("out"), as_coded=as_coded, smoke=smoke, changes=["optim.lr=0.5"])
    for protocol in setting.protocols:
        plan = setting.recipe(protocol, row.under(setting), 3)
        assert (plan.train.seed, plan.optim.lr) == (3, 0.5)
        watched = {"official": "random", "blocks": "contiguous", "as_coded": "per_class"}[protocol]
        assert plan.data.validation == ("test" if as_coded and row.as_coded[:1] == (TEST,) else watched)
        assert plan.data.source.startswith("toy" if smoke else "caer_s:")
        sides = (60, 40) if as_coded else (40, 60)
        assert plan.transform.image_size == tuple(side * (1 if smoke else 10) for side in sides)


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("setting", [AS_WRITTEN, AS_CODED], ids=["as written", "as coded"])
def test_every_row_has_a_model(row, setting):
    recipe = plan(row, setting)
    with torch.device("meta"):
        create_model(recipe.model.name, image_size=recipe.transform.image_size, **recipe.model.options)


@pytest.mark.parametrize("study", STUDIES.values(), ids=STUDIES)
def test_a_study_s_rows_differ(study):
    assert len({row.name for row in study.rows}) == len({plan(row).to_yaml() for row in study.rows}) == len(study.rows)


@pytest.mark.parametrize("figure", FIGURES.values(), ids=FIGURES)
def test_a_figure_shares_its_runs_with_a_table(figure):
    trained = {row.changes for study in STUDIES.values() for row in study.rows}
    assert {row.changes for row in figure.rows} <= trained


def test_the_papers_numbers_are_the_papers(shared):
    text = (shared / "paper" / "facerwkv.txt").read_text(encoding="utf-8")
    for study in STUDIES.values():
        for row in study.rows:
            if row.paper is not None:
                assert re.search(rf"\| (\w+ )*?{re.escape(row.name)} +\| {row.paper:.2f} +\|", text), row.name


def test_the_authors_curves_are_those_of_their_logs(shared):
    logs = json.loads((shared / "paper" / "authors_runs.json").read_text(encoding="utf-8"))
    known = [tuple(round(value, 4) for value in log["val_accuracy"]) for log in logs]
    curves = {row.curve for study in STUDIES.values() for row in study.rows if row.curve}
    assert len(curves) == 7
    assert all(curve in known for curve in curves)


def test_the_frozen_stem_s_batch_norms_move_as_coded_only():
    frozen = next(row for row in TABLE3.rows if row.name == "Hybrid Frozen")
    assert plan(frozen).model.options == {}
    assert plan(frozen, AS_CODED).model.options == {"stem": "resnet_frozen_as_coded"}


def test_large_ran_as_coded_on_the_test_images_with_a_rate_of_a_period_of_10_steps():
    coded = {row.name: plan(row, AS_CODED) for row in TABLE2.rows}
    assert {name: found.data.validation for name, found in coded.items()} == {
        "Small": "per_class",
        "Medium": "per_class",
        "Large": "test",
    }
    factor = lr_factor(coded["Large"].schedule, 25, 765)
    assert [factor(step) for step in (0, 1, 6, 11)] == [0.1, 1.0, 0.0, 1.0]
    for found in coded.values():
        check_inputs(found)


def test_the_augmentations_are_those_of_the_systems():
    none, _, poster, patt_lite = (plan(row).augment for row in AUGMENTATIONS)
    assert none == Recipe().augment
    assert poster == Recipe.read("poster_v2").augment
    assert patt_lite == Recipe.read("patt_lite").augment


@pytest.mark.parametrize("setting", [AS_WRITTEN, AS_CODED], ids=["as written", "as coded"])
def test_the_schedules_are_the_two_recipes_whatever_the_setting(setting):
    rows = import_module("facerwkv.experiments.claim_schedule").STUDY.rows
    written, coded = (plan(row, setting) for row in rows)
    for found, expected in ((written, Recipe.read("paper")), (coded, Recipe.read("paper_as_coded"))):
        assert (found.schedule, found.optim) == (expected.schedule, expected.optim)
