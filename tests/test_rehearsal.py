"""The rehearsal of CAER-S, on a thousandth of it."""

import json
import runpy
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[1] / "tools" / "rehearse_caer_s.py"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_rehearsal_runs_small_and_leaves_its_table_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", [str(TOOL), str(tmp_path), "--share", "0.002", "--size", "40", "60"])
    runpy.run_path(str(TOOL), run_name="__main__")
    steps = json.loads((tmp_path / "rehearsal.json").read_text())
    assert len(steps) == 9
    assert steps[0]["name"] == "140 images drawn"
    assert sum("kill -9" in step["name"] for step in steps) == 2
    assert all(step["peak"] > 100_000_000 for step in steps[1:])
    assert {path.name for path in tmp_path.iterdir()} == {"rehearsal.json", "rehearsal.md"}
