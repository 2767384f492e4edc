"""Every row can be measured on little, and refuses wrong answers."""

import json
import math

import pytest
import torch
from typer.testing import CliRunner

from facerwkv.bench import EVERYTHING, GROUPS, kernels, models, run
from facerwkv.bench.answers import Disagreement, require_accurate, require_close
from facerwkv.bench.memory import peak
from facerwkv.bench.rows import REASONS, ROWS
from facerwkv.bench.timing import BenchSetting, Measured, in_turns, ratio, relative
from facerwkv.cli import app
from facerwkv.core.errors import InputError

TINY = BenchSetting(repeats=1, shrink=5)
ALONE_IN = ("memory", "predict_small", "first_image", "clients", "int8")  # processes of their own, and compilers
PROCESSES = {name for name in ROWS if any(part in name for part in ALONE_IN)}
SLOW = PROCESSES | {name for name in ROWS if "_large_" in name}
ALONE = [pytest.mark.slow, pytest.mark.alone]


def bench(*arguments):
    return CliRunner().invoke(app, ["bench", *arguments])


@pytest.fixture
def instant(monkeypatch):
    """Every row measures 1 at once."""
    monkeypatch.setattr(run, "measure", lambda row, setting: {"value": 1.0, **dict.fromkeys(("low", "high"), 1.0)})


def test_every_row_is_of_a_group_and_reasons_are_of_rows_with_a_bar():
    assert {row.group for row in ROWS.values()} == GROUPS.keys()
    assert REASONS.keys() <= {name for name, row in ROWS.items() if row.bar is not None}


def marks(name):
    return ALONE if name in SLOW else [pytest.mark.slow] * name.startswith(("classify_32", "folder", "two_threads"))


@pytest.mark.parametrize("name", [pytest.param(name, marks=marks(name)) for name in ROWS])
def test_every_row_can_be_measured(name):
    found = run.measure(ROWS[name], TINY)
    if found.get("skipped"):
        pytest.skip(found["problem"])
    assert found.get("problem") is None
    assert math.isfinite(found["value"])
    assert found["value"] >= 0
    if found["low"] is not None:
        assert found["low"] <= found["high"]
        assert found["peer"] is None or found["ours"] > 0 < found["peer"]


def test_bars_hold_from_the_right_side():
    above, below = ROWS["cache"].bar, ROWS["growth_wkv4"].bar
    assert (above.met(8), above.met(7.9), f"{above}") == (True, False, "≥ 8")
    assert (below.met(4.8), below.met(4.9), f"{below}") == (True, False, "≤ 4.8")
    assert f"{ROWS['loader'].bar}" == "≥ 1.4 (stretch 2)"
    assert f"{ROWS['loader_difference'].bar}" == "≤ 0.0039"


@pytest.mark.parametrize("name", ["wkv4", "biwkv", "v1_hs1"])
@pytest.mark.parametrize("error", [1e-3, torch.nan])
def test_a_wrong_kernel_gives_no_number(name, error, monkeypatch):
    right = kernels.Kernel.form

    def form(kernel, implementation=None):
        call = right(kernel, implementation)
        return call if implementation else lambda *inputs: call(*inputs) + error

    monkeypatch.setattr(kernels.Kernel, "form", form)
    row = {"wkv4": "wkv4_vs_sdpa_600", "biwkv": "growth_biwkv", "v1_hs1": "v1_core_hs1_600"}[name]
    found = run.measure(ROWS[row], TINY)
    assert found["value"] is None
    assert found["problem"].startswith("The answers disagree, so there is no number: the output is off by")


def test_a_wrong_gradient_gives_no_number():
    def wrong(x):
        return x * 2 + 0.01 * (x - x.detach())

    with pytest.raises(Disagreement, match=r"the gradient of input 1 is off by 0\.0"):
        require_accurate(wrong, lambda x: x * 2, [torch.ones(3)], gradients=True)
    require_accurate(wrong, lambda x: x * 2, [torch.ones(3)])


def test_a_wrong_model_gives_no_number(monkeypatch):
    exact = models._exact
    monkeypatch.setattr(models, "_exact", lambda *arguments: exact(*arguments) * 1.001)
    found = run.measure(ROWS["model_medium_600"], TINY)
    assert found["problem"].startswith("The answers disagree, so there is no number: the tokens after the last block")


def test_nothing_is_close_to_nan():
    with pytest.raises(Disagreement):
        require_close(torch.full((2,), torch.nan), torch.ones(2), 1.0, "it")


def test_what_fails_costs_its_own_row_alone(monkeypatch):
    def fail(*arguments):
        raise InputError("There is no such kernel. Install one.")

    monkeypatch.setattr(kernels.Kernel, "form", fail)
    found = run.bench("kernels", ["wkv4_vs_sdpa_600", "v1_core_hs1_600"], TINY)
    assert found.to_dict() == {"wkv4_vs_sdpa_600": None, "v1_core_hs1_600": None}
    assert found.problems[0] == "wkv4_vs_sdpa_600: There is no such kernel. Install one."


def test_calls_take_turns_after_a_warm_up():
    order = []
    one, other = in_turns([lambda: order.append("a"), lambda: order.append("b")], BenchSetting(repeats=3))
    assert (len(one), len(other)) == (3, 3)
    turns = "".join(letter for letter, before in zip(order, [None, *order], strict=False) if letter != before)
    assert turns == "abababab"


def test_threads_and_processors_are_given_back():
    before = torch.get_num_threads()
    seen = []
    in_turns([lambda: seen.append(torch.get_num_threads())], BenchSetting(threads=2, repeats=1))
    assert (set(seen), torch.get_num_threads()) == ({2}, before)


def test_ratios_are_of_medians_with_the_quartiles_of_neighbours():
    assert ratio([2.0, 4.0, 9.0], [1.0, 2.0, 3.0]) == Measured(2.0, 2.0, 3.0, 4.0, 2.0)
    assert ratio([2.0, 4.0, 9.0], [1.0, 2.0, 3.0], inverse=True).value == 0.5


def test_slow_is_slow():
    light, heavy = torch.ones(8), torch.ones(200_000)
    assert relative(light.exp, heavy.exp, BenchSetting(repeats=5)).value < 0.5
    assert relative(light.exp, heavy.exp, BenchSetting(repeats=5), inverse=True).value > 2


@pytest.mark.slow
@pytest.mark.alone
def test_a_peak_holds_what_a_call_must_allocate():
    tensor = 6400 * kernels.WIDTH * 4  # bytes; the output, its copy in the graph, and three gradients
    assert 4 * tensor < peak("kernel", "sdpa", 6400) < 40 * tensor


def test_a_process_that_fails_says_why():
    with pytest.raises(RuntimeError, match="measures memory failed: KeyError: 'kernels'"):
        peak("kernels", "sdpa", 1)


def test_json_is_one_object_and_the_rest_goes_elsewhere(instant):
    done = bench("data", "--json")
    assert (done.exit_code, json.loads(done.stdout)) == (0, {"loader": 1.0, "loader_difference": 1.0, "cache": 1.0})


def test_people_read_a_table(instant):
    done = bench("data", "--only", "cache")
    assert done.exit_code == 0
    assert "cache" in done.stdout
    assert "no" in done.stdout.split()


def test_a_failed_row_is_null_and_exit_code_1(monkeypatch):
    monkeypatch.setattr(run, "measure", lambda row, setting: {"value": None, "problem": "It broke."})
    done = bench("data", "--only", "cache", "--json")
    assert (done.exit_code, json.loads(done.stdout)) == (1, {"cache": None})
    assert "facerwkv: cache: It broke." in done.stderr


@pytest.mark.parametrize("group", [*GROUPS, EVERYTHING])
def test_every_group_has_its_command(group, instant):
    values = json.loads(bench(group, "--json").stdout)
    assert list(values) == [name for name, row in ROWS.items() if group in (row.group, EVERYTHING)]


def test_an_unknown_row_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match=r"bench data has no row 'cash'\. It has loader, loader_difference, cache\."):
        run.bench("data", ["cash"])


def test_results_are_kept_beside_older_ones_of_the_same_machine(instant, tmp_path):
    run.bench("data", ["cache"], out=tmp_path)
    kept = json.loads((tmp_path / "speed.json").read_text())
    kept["environment"]["platform"] = "an earlier build of the same system"
    (tmp_path / "speed.json").write_text(json.dumps(kept))
    run.bench("data", ["loader"], out=tmp_path)
    kept = json.loads((tmp_path / "speed.json").read_text())
    assert list(kept["rows"]) == ["loader", "cache"]
    assert kept["rows"]["cache"].keys() >= {"value", "low", "high", "commit", "date", "threads"}
    assert "| `cache` | Images per second of the cache" in (tmp_path / "speed.md").read_text()
    changed = kept | {"environment": {"processor": "another"}}
    (tmp_path / "speed.json").write_text(json.dumps(changed))
    run.bench("data", ["loader"], out=tmp_path)
    assert list(json.loads((tmp_path / "speed.json").read_text())["rows"]) == ["loader"]


def test_curves_are_drawn_where_a_group_has_them(instant, tmp_path, monkeypatch):
    curve = {"wkv4": {24: 0.001, 96: 0.004}, "sdpa": {24: 0.001, 96: 0.016}}
    monkeypatch.setattr(run, "CURVES", {"kernels": ("seconds", lambda setting, lengths: curve)})
    run.bench("kernels", out=tmp_path)
    assert json.loads((tmp_path / "speed.json").read_text())["curves"]["seconds"]["wkv4"]["96"] == 0.004
    assert (tmp_path / "speed.png").read_bytes().startswith(b"\x89PNG")
    assert "](speed.png)" in (tmp_path / "speed.md").read_text()


def test_the_curve_holds_every_kernel_at_every_length():
    found = kernels.curve(BenchSetting(repeats=1), [8, 16])
    assert found.keys() == {"wkv4", "biwkv", "wkv6", "wkv7", "v1_hs1", "sdpa"}
    assert all(list(points) == [8, 16] for points in found.values())
