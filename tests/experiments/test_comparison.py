from facerwkv.experiments import experiment
from facerwkv.experiments.comparison import EPOCHS, NAMES
from facerwkv.experiments.study import Setting


def test_every_model_of_the_comparison_has_a_plan_of_one_budget(plans, tmp_path):
    experiment("comparison")(Setting("toy:train=14,val=7,test=7", tmp_path, [3]))
    assert tuple(plans) == NAMES
    budgets = {(plan.train.epochs, plan.train.seed, plan.data.drop_leaks) for plan in plans.values()}
    assert budgets == {(EPOCHS, 3, True)}
    assert {plan.optim for plan in plans.values()} == {plans["resnet18"].optim}
    assert plans["caer_net_s"].transform.crop == "both"
    assert plans["facerwkv_hybrid_small"].model.options == {"patch_size": 2, "pool": "flatten", "head": "linear"}
    assert plans["transformer_small"].model.options == plans["facerwkv7_small"].model.options
