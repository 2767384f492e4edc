"""Training on two devices: two processes on the CPU, started as a user starts them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from facerwkv.training.run import read_run

pytestmark = pytest.mark.slow

SMALL = ["model.options={stem: linear, patch_size: 16, width: 32, depth: 2, heads: 2}", "train.epochs=2"]


def train(folder: Path, *changes: str) -> subprocess.CompletedProcess:
    """`facerwkv train` on 140 drawn faces in a process of its own, without batch norm."""
    command = [sys.executable, "-m", "facerwkv.cli", "train", "--recipe", "demo", "--data", "toy:train=140,val=70"]
    return subprocess.run(
        [*command, "--out", str(folder), "train.device=cpu", *SMALL, *changes],
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> tuple[Path, Path]:
    """One process with batches of 20, and two with batches of 10 each."""
    folder = tmp_path_factory.mktemp("runs")
    for name, changes in {"one": ["data.batch_size=20"], "two": ["data.batch_size=10", "train.devices=2"]}.items():
        done = train(folder / name, *changes)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("The report:") == 1
        assert done.stderr.count("epoch 2/2") == 1
    return folder / "one", folder / "two"


def test_two_processes_end_with_the_weights_of_one(runs):
    one, two = (load_file(run / "last" / "model.safetensors") for run in runs)
    assert one.keys() == two.keys()
    assert max((one[name] - two[name]).abs().max().item() for name in one) < 1e-5


def test_two_processes_see_the_same_scores(runs):
    rows = [(run / "metrics.csv").read_text(encoding="utf-8").splitlines() for run in runs]
    assert len(rows[0]) == len(rows[1])
    for one, two in zip(*((line.split(",") for line in lines[1:]) for lines in rows), strict=True):
        assert one[:2] == two[:2]
        assert [float(v or 0) for v in two[2:]] == pytest.approx([float(v or 0) for v in one[2:]], abs=1e-5)


def test_only_the_first_process_writes(runs):
    assert not [path for path in runs[1].rglob("*") if path.name.endswith(".part")]
    assert json.loads((runs[1] / "environment.json").read_text(encoding="utf-8"))["command"][0] == "cli.py"
    assert read_run(runs[1]).train.devices == 2


def test_a_run_of_two_goes_on_where_it_stopped(runs, tmp_path):
    done = train(tmp_path / "run", "data.batch_size=10", "train.devices=2", "train.epochs=1")
    assert done.returncode == 0, done.stderr
    recipe = tmp_path / "run" / "recipe.yaml"
    recipe.write_text(recipe.read_text(encoding="utf-8").replace("epochs: 1\n", "epochs: 2\n"), encoding="utf-8")
    command = [sys.executable, "-m", "facerwkv.cli", "train", "--resume", str(tmp_path / "run")]
    resumed = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert resumed.returncode == 0, resumed.stderr
    assert "epoch 2/2" in resumed.stderr
    assert "epoch 1/2" not in resumed.stderr
