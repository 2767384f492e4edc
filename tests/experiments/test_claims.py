"""The experiments on what mixing adds and on faces as a detector gives them: their plans, pairs and disturbances."""

import numpy as np
import pytest

from facerwkv.core.errors import InputError
from facerwkv.evaluation.result import Evaluation
from facerwkv.experiments import claim_mixing, claim_robustness
from facerwkv.experiments.study import Setting
from facerwkv.models.describe import measure
from facerwkv.models.zoo import create_model


@pytest.mark.parametrize("data", ["fer2013:/d/fer2013", "toy"])
def test_every_row_has_a_model_that_differs_in_what_mixes_alone(data, tmp_path):
    plans = [claim_mixing.plan(Setting(data, tmp_path), options, 1) for options in claim_mixing.MIXERS.values()]
    names = {key for options in claim_mixing.MIXERS.values() for key in options}
    assert len({plan.to_yaml() for plan in plans}) == len(plans)
    for plan in plans:
        for key in names:
            plan.model.options.pop(key, None)
    assert len({plan.to_yaml() for plan in plans}) == 1
    assert plans[0].train.seed == 1


def test_a_plan_counts_each_mixer_and_seed(tmp_path):
    runs = claim_mixing.runs(Setting("toy", tmp_path, [0, 1, 2]))
    assert len({run.folder for run in runs}) == 3 * len(claim_mixing.MIXERS)
    (only,) = claim_mixing.runs(Setting("toy", tmp_path, [1], only=["attention"]))
    assert (only.row, only.seed, only.done) == ("attention", 1, False)
    (only.folder / only.result).parent.mkdir(parents=True)
    (only.folder / only.result).touch()
    assert only.done


def test_the_twin_costs_what_the_light_model_does():
    light, twin = (measure(name)["macs"] for name in ("facerwkv_fer_light", "facerwkv_fer_light_conv"))
    stem = light - 4 * 144 * 13 * 128**2 - 128 * 7
    assert light == twin
    assert 0.08e9 < stem <= 0.12e9
    assert create_model("facerwkv_fer_light").blocks[0].time_mix.name == "vrwkv"


def test_rows_are_paired_with_the_one_without_time_mix(tmp_path, monkeypatch):
    names = [f"{number}.png" for number in range(8)]

    def trained(recipe, folder, resume, callbacks):
        right = 5 + (recipe.model.options["mixer"] == "conv")
        answers = np.array([0] * right + [1] * (8 - right))
        Evaluation(("anger", "fear"), names, np.zeros(8, int), np.eye(2)[answers]).save(folder / "test")

    monkeypatch.setattr(claim_mixing, "train", trained)
    monkeypatch.setattr(claim_mixing, "finish", lambda folder: None)
    monkeypatch.setattr(claim_mixing, "evaluate_folder", lambda *of, **more: None)
    ((_, (_, table)),) = claim_mixing.run(Setting("toy", tmp_path, [0, 1], smoke=True))
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows[claim_mixing.NONE] == ("62.50 ± 0.00", "", "", "")
    assert rows["attention"] == ("62.50 ± 0.00", "+0.00", "+0.00 to +0.00", "1")
    assert rows[claim_mixing.CONV] == ("75.00 ± 0.00", "+12.50", "+0.00 to +37.50", "1")


@pytest.mark.parametrize("shape", [(48, 48), (40, 60, 3)])
@pytest.mark.parametrize("name", claim_robustness.DISTURBANCES)
def test_a_disturbance_changes_an_image_and_keeps_its_shape(name, shape):
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    changed = claim_robustness.DISTURBANCES[name](image)
    assert (changed.shape, changed.dtype) == (shape, np.uint8)
    assert not np.array_equal(changed, image)


def test_a_box_to_the_right_shows_what_is_there_further_left():
    image = np.tile(np.arange(0, 200, 10, dtype=np.uint8), (20, 1))
    np.testing.assert_array_equal(claim_robustness.moved(across=-0.1)(image)[:, :18], image[:, 2:])


def test_the_shipped_models_are_scored_on_disturbed_faces(tmp_path, monkeypatch):
    monkeypatch.setattr(claim_robustness, "shipped", lambda: ["facerwkv_fer_tiny"])
    setting = Setting("toy", tmp_path, smoke=True, changes=["data.cache=false"])
    ((_, (_, table)),) = claim_robustness.run(setting)
    assert [row[0] for row in table.rows] == ["as they are", *claim_robustness.DISTURBANCES, "mean of these"]
    with pytest.raises(InputError, match=r"'train\.epochs=3' changes nothing"):
        claim_robustness.run(Setting("toy", tmp_path, smoke=True, changes=["train.epochs=3"]))
