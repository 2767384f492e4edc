"""Variables of a cluster that were not set for this training make no half of it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from lightning.pytorch.utilities import rank_zero_only

import facerwkv
from facerwkv.core.errors import InputError
from facerwkv.training import run as module
from facerwkv.training.module import train
from facerwkv.training.recipe import Recipe
from facerwkv.training.run import environment, leads, settle_rank

CLUSTERS = [
    {"RANK": "1", "WORLD_SIZE": "2"},
    {"SLURM_PROCID": "3", "SLURM_NTASKS": "4", "SLURM_JOB_NAME": "seeds", "SLURM_LOCALID": "3", "SLURM_NODEID": "0"},
    {"LOCAL_RANK": "2"},
]
FILES = {"recipe.yaml", "environment.json", "data.json", "splits.csv", "metrics.csv", "last", "best", "resume.ckpt"}


@pytest.fixture
def ranked(monkeypatch):
    monkeypatch.setattr(rank_zero_only, "rank", 3)  # as Lightning reads it where such variables are set


@pytest.mark.parametrize("variables", CLUSTERS)
def test_a_training_on_one_device_is_whole(variables, ranked, small, tmp_path, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    folder = train(Recipe.read("modern", [*small, "train.epochs=1"]), tmp_path / "run", progress=False)
    assert {path.name for path in folder.iterdir()} >= FILES | {"time.json"}


def test_the_process_that_starts_others_leads(ranked, monkeypatch):
    part = Recipe.read("modern", ["train.devices=2"]).train
    settle_rank(part)
    assert leads()
    monkeypatch.setenv("LOCAL_RANK", "1")
    settle_rank(part)
    assert not leads()


def test_devices_that_a_cluster_did_not_give_are_a_sentence(small, tmp_path, monkeypatch):
    for name, value in {"SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "4", "SLURM_JOB_NAME": "x"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(rank_zero_only, "rank", 0)
    with pytest.raises(InputError, match=r"train\.devices=2 and train\.num_nodes=1 cannot be had here: .*SLURM"):
        train(Recipe.read("modern", [*small, "train.devices=2"]), tmp_path / "run", progress=False)


@pytest.mark.slow
def test_a_whole_command_under_srun(small, tmp_path):
    command = [sys.executable, "-m", "facerwkv.cli", "train", "--out", str(tmp_path / "run"), *small, "train.epochs=1"]
    done = subprocess.run(command, env=os.environ | CLUSTERS[1], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout.count("The report:")) == (0, 1), done.stderr
    assert (tmp_path / "run/val/report.html").is_file()


def git(folder, *words):
    author = ("-c", "user.name=a", "-c", "user.email=a@b")
    subprocess.run(["git", "-C", folder, *author, *words], check=True, capture_output=True)


def test_the_commit_is_the_package_s_own_or_none(tmp_path, monkeypatch):
    own = shutil.which("git") and environment()["commit"]
    if not own:
        pytest.skip("no git, or no clone")
    site = tmp_path / ".venv/lib/facerwkv/training"
    site.mkdir(parents=True)
    shutil.copy(Path(facerwkv.__file__).parent / "training/run.py", site)
    for words in (("init", "-q"), ("add", "-A"), ("commit", "-qm", "theirs")):  # a repository that keeps its .venv
        git(tmp_path, *words)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / ".git"))  # as a hook has it
    assert environment()["commit"] == own
    monkeypatch.setattr(module, "__file__", str(site / "run.py"))
    assert json.loads(json.dumps(environment()))["commit"] is None
