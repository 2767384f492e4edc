import pytest

from facerwkv.experiments import section4_1_recurrent
from facerwkv.experiments.section4_1_recurrent import NAMES, measured, run
from facerwkv.experiments.study import Setting

WIDTH, BLOCKS, HEAD = 128, 2, 64
TOKENS = 2 * WIDTH  # each half keeps the token before
STATES = {
    "facerwkv_small_fullwidth": [BLOCKS * (count * 2 * WIDTH + TOKENS) for count in (6, 24)],
    "facerwkv4_small": [BLOCKS * (3 * WIDTH + TOKENS)] * 2,
    **dict.fromkeys(NAMES[2:], [BLOCKS * (HEAD * WIDTH + TOKENS)] * 2),
}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(section4_1_recurrent, "SIZES", {6: (40, 60), 24: (80, 120)})
    monkeypatch.setattr(section4_1_recurrent, "STEPS", 3)


@pytest.mark.parametrize("name", NAMES)
def test_both_forms_agree_and_only_rwkv_1_s_state_grows(name):
    differences, states, seconds = zip(*measured(name), strict=True)
    assert max(differences) < 1e-5
    assert list(states) == STATES[name]
    assert min(seconds) > 0


def test_the_page_has_a_row_for_every_version(tmp_path):
    ((title, (_, table, _)),) = run(Setting("toy", tmp_path))
    assert title == "Section 4.1: the recurrent form"
    assert [row[0] for row in table.rows] == list(NAMES)
    assert {len(row) for row in table.rows} == {len(table.headers)}
