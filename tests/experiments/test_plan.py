"""What experiments cost before they run."""

import shutil
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from facerwkv.cli import app
from facerwkv.core.errors import InputError
from facerwkv.experiments import plan as module
from facerwkv.experiments import runs_of
from facerwkv.experiments.plan import Pace, Plan, Step, images_of, plan
from facerwkv.experiments.study import SCORE, Setting
from facerwkv.training.memory import Cost
from facerwkv.training.recipe import Recipe
from tests.data import trees

CAER_S = {"train": 48_995, "test": 20_987}


@pytest.fixture
def caer_s(monkeypatch):
    """CAER-S's numbers of images, and a cost of a second per image, without the images."""
    monkeypatch.setattr(module, "_counts", lambda source: CAER_S)
    monkeypatch.setattr(module, "measure", lambda recipe: Cost(4_000_000, 1_000_000, 1.0, 0.5))


@pytest.mark.parametrize(
    ("changes", "images"),
    [
        (["data.validation=random"], (44_095, 4_900, 20_987)),
        (["data.validation=copied"], (48_995, 4_900, 20_987)),
        (["data.validation=test", "train.select=last"], (48_995, 20_987, 20_987)),
        (["data.split=blocks"], (35_276, 3_920, 3_148)),
        (["data.limit=100"], (100, 100, 100)),
    ],
)
def test_how_many_images_a_recipe_has(changes, images):
    assert images_of(Recipe.read("paper", changes), CAER_S) == pytest.approx(images, abs=1)


def test_runs_that_tables_and_figures_share_are_planned_once(tmp_path, caer_s):
    setting = Setting("caer_s:/d/CAER-S", tmp_path, [0, 1, 2])
    whole, alone = plan("table2_scaling", setting), plan("fig4", setting)
    assert (len(whole.steps), len(alone.steps)) == (3 * 2 * 3, 3)
    assert {step.run.folder for step in alone.steps} <= {step.run.folder for step in whole.steps}
    first = whole.steps[0]
    assert first.epochs == 25
    train, val, test = images_of(first.run.recipe, CAER_S)
    assert first.seconds == 25 * (train + 0.5 * val) + 0.5 * (train + 2 * val + test)


def test_a_paper_s_worth_of_runs_shares_one_store_of_50_gb(tmp_path, caer_s, monkeypatch):
    monkeypatch.setenv("FACERWKV_HOME", str(tmp_path))
    for name in ("table2_scaling", "table3_hybrid", "outlook_versions"):
        assert plan(name, Setting("caer_s:/d/CAER-S", tmp_path, [0, 1, 2])).cache == 69_982 * 400 * 600 * 3
    table4 = plan("table4_comparison", Setting("caer_s:/d/CAER-S", tmp_path, [0, 1, 2]))
    assert table4.cache == 69_982 * (400 * 600 * 3 + 224 * 224 * 3 + 112 * 112 * 6)  # 66.2 GB


def test_what_is_done_costs_nothing_and_a_budget_takes_seed_after_seed(tmp_path, caer_s):
    setting = Setting("caer_s:/d/CAER-S", tmp_path, [0, 1])
    before = plan("table2_scaling", setting)
    done = before.steps[0]
    done.run.folder.mkdir(parents=True)
    (done.run.folder / SCORE).write_text("{}")
    after = plan("table2_scaling", setting)
    assert after.seconds == before.seconds - done.seconds
    assert [step.run.done for step in after.steps] == [True] + [False] * 11
    first = sum(step.seconds for step in after.steps if step.run.seed == 0)
    assert after.seeds_within(first / 3600 - 1) == {}
    assert after.seeds_within(first / 3600 + 1) == {"table2_scaling": [0]}
    assert after.seeds_within(1e9) == {"table2_scaling": [0, 1]}


def test_a_plan_that_does_not_fit_the_disk_is_refused(tmp_path, caer_s, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 9 * 10**9))
    with pytest.raises(InputError, match=r"The plan needs 50\.\d GB where .*; 9\.0 GB are free.*data\.cache=FOLDER"):
        plan("table2_scaling", Setting("caer_s:/d/CAER-S", tmp_path, [0])).require_disk()


def test_the_rest_is_estimated_at_the_pace_so_far(tmp_path, capsys):
    run = runs_of("table2_scaling", Setting("caer_s:/d", tmp_path, [0]))[0]
    steps = [Step("a", replace(run, folder=tmp_path / name), 1, 3600.0) for name in ("first", "second")]
    pace = Pace(Plan(Setting("caer_s:/d", tmp_path), steps, 0, 0, (0, ""), "this machine"))
    pace.say(0.5, "facerwkv_small", spent=3600.0)  # half a run took the time that was foreseen for one
    assert "0/2 runs are done; facerwkv_small goes on; about 3.00 hours are left." in capsys.readouterr().err


def test_the_command_says_what_it_costs_and_trains_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "measure", lambda recipe: Cost(4_000_000, 1_000_000, 1.0, 0.5))
    monkeypatch.setenv("FACERWKV_HOME", str(tmp_path / "home"))
    source = trees.build("caer_s", tmp_path / "data")
    command = [
        "reproduce",
        "table2_scaling",
        "--plan",
        "--data",
        source,
        "--out",
        str(tmp_path / "out"),
        "--seeds",
        "0",
    ]
    done = CliRunner().invoke(app, [*command, "--only", "Sm*"])
    assert done.exit_code == 0, done.output
    assert "2 runs, of which 0 are done; 50 epochs" in done.stdout
    assert not (tmp_path / "out").exists()
    refused = CliRunner().invoke(app, [*[word for word in command if word != "--plan"], "--only", "none"])
    assert isinstance(refused.exception, InputError)
    assert "--only none fits no row of table2_scaling" in str(refused.exception)
