"""speed.json → the page: every number with its bar, and the reason where one is missed."""

import pytest

from facerwkv.bench import page
from facerwkv.bench.rows import ROWS

MARK = {"commit": "0123456789ab", "date": "2026-11-25", "threads": 1}


@pytest.fixture
def kept():
    timed = {"low": 9.0, "high": 11.0, "ours": 0.1, "peer": 1.0}
    return {
        "environment": {"processor": "Some CPU", "platform": "Linux", "packages": {"torch": "2.15.0"}},
        "rows": {
            "cache": {"value": 10.0, **timed, **MARK},
            "loader": {"value": 1.25, **timed, **MARK},
            "loader_difference": {"value": 2e-6, "low": None, "high": None, "ours": None, "peer": None, **MARK},
            "wkv4_vs_causal_sdpa_600": {"value": 0.0812, **timed, **MARK},
            "wkv4_vs_copy": {"value": None, "problem": "The answers disagree.", **MARK},
        },
        "curves": {},
    }


def lines_of(text, name):
    return [line for line in text.splitlines() if f"`{name}`" in line]


def test_a_row_says_value_quartiles_bar_and_whether_it_is_met(kept):
    (line,) = lines_of(page.page(kept), "cache")
    assert line.endswith("| 10.00 times faster | 9.00–11.00 | ≥ 8 | yes |")
    (line,) = lines_of(page.page(kept), "loader_difference")
    assert line.endswith("| 2.0e-06 | – | ≤ 0.0039 | yes |")
    (line,) = lines_of(page.page(kept), "wkv4_vs_causal_sdpa_600")
    assert line.endswith("| – | – |")


def test_each_maker_has_a_column_that_is_empty_where_nothing_was_measured(kept):
    kept["environment"]["processor"] = "AMD EPYC"
    other = {"rows": {"cache": kept["rows"]["cache"] | {"value": 7.5}}}
    text = page.page(kept, {"Intel": other})
    assert "| name | what | Intel | AMD | quartiles | bar | met |" in text
    (cache,), (loader, _) = lines_of(text, "cache"), lines_of(text, "loader")
    assert cache.endswith("| 7.50 times faster | 10.00 times faster | 9.00–11.00 | ≥ 8 | yes |")
    assert "|  | 1.25 times faster |" in loader


def test_a_row_without_a_number_says_why(kept):
    (line,) = lines_of(page.page(kept), "wkv4_vs_copy")
    assert line.endswith("| – | – | ≤ 5 (stretch 3) | The answers disagree. |")


def test_a_missed_bar_has_its_reason(kept, monkeypatch):
    monkeypatch.setattr(page, "REASONS", {"loader": "Disks are slow."})
    text = page.page(kept)
    assert text.split("## Bars that were missed\n\n")[1] == "- `loader`: Disks are slow.\n"
    kept["rows"]["loader"]["value"] = 1.5
    assert "missed" not in page.page(kept)


def test_the_page_says_where_and_when(kept):
    text = page.page(kept)
    assert "Measured on Some CPU, Linux, torch 2.15.0, 2026-11-25 at commit 0123456789ab.\n" in text
    assert "on 1 thread, after" in text
    assert text.index("## Kernels") < text.index("## Data")
    assert "## Models" not in text


def test_the_names_on_the_plot_are_what_is_measured():
    image = page.plot({"bytes": {name: {"150": 1e6, "9600": 6.4e7} for name in page.NAMES}})
    assert image.startswith(b"\x89PNG")
    assert {row.form.split("}")[0] for row in ROWS.values()} <= {"{:.2f", "{:.4f", "{:.1f", "{:.1e", "{:.0f"}
