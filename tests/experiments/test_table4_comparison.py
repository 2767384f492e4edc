import re

import pytest

from facerwkv.experiments import experiment
from facerwkv.experiments.study import Incomplete, Setting
from facerwkv.experiments.table4_comparison import EPOCHS, FACES, PAPER, SCENES, runs
from facerwkv.models.zoo import MODELS
from facerwkv.training.recipe import Recipe


def test_every_model_of_the_comparison_has_a_plan_of_one_budget(plans, tmp_path):
    with pytest.raises(Incomplete) as caught:
        experiment("table4_comparison")(Setting("toy:train=14,val=7,test=7", tmp_path, [3]))
    assert caught.value.problems == [f"{name}: planned only" for name in FACES]
    assert [title for title, _ in caught.value.sections][-1] == "Table 4 as the paper prints it"
    assert tuple(plans) == FACES
    budgets = {(plan.train.epochs, plan.train.seed, plan.data.drop_leaks) for plan in plans.values()}
    assert budgets == {(EPOCHS, 3, True)}
    assert {plan.optim for plan in plans.values()} == {plans["resnet18"].optim}
    stems = {plans[name].model.options["stem"] for name in ("facerwkv4_small", "vrwkv_tiny", "transformer_small")}
    assert stems == {"conv"}
    assert plans["facerwkv_hybrid_small"].model.options == {"patch_size": 2, "pool": "flatten", "head": "linear"}
    assert plans["transformer_small"].model.options == plans["facerwkv7_small"].model.options


def test_the_papers_table_is_the_papers(shared):
    text = (shared / "paper" / "facerwkv.txt").read_text(encoding="utf-8")
    for name, accuracy, parameters in PAPER:
        assert re.search(rf"\| {re.escape(name)} (\[\d+\])? *\| {accuracy} +\| {parameters} +\|", text), name


def test_on_scenes_every_system_of_the_paper_has_its_own_recipe_and_size(tmp_path):
    planned = {run.row: run.recipe for run in runs(Setting("caer_s:/d/CAER-S", tmp_path, [3]))}
    assert tuple(planned) == SCENES
    for name, recipe in planned.items():
        own = Recipe.read(MODELS[name].recipe)
        assert (recipe.optim, recipe.schedule, recipe.augment) == (own.optim, own.schedule, own.augment)
        assert (recipe.transform, recipe.train.seed) == (own.transform, 3)
    assert planned["caer_net_s"].data.boxes == "detect"
    assert planned["resnet152"].model.pretrained
    named = runs(Setting("caer_s:/d/CAER-S", tmp_path, [3], changes=["data.boxes=/d/boxes"]))
    assert {run.recipe.data.boxes for run in named} == {"/d/boxes"}
