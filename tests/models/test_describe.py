import json
import subprocess
import sys

import pytest
import timm

from facerwkv.models.checkpoint import load_checkpoint
from facerwkv.models.describe import HEADERS, describe, describe_checkpoint, measure, print_all
from facerwkv.models.zoo import MODELS, shipped
from tests.commands import facerwkv

LARGE = ("base", "_vit_", "resnet152", "large")  # a second each to walk through
NAMED = [pytest.param(name, marks=[pytest.mark.slow] * any(part in name for part in LARGE)) for name in MODELS]


@pytest.mark.parametrize("name", NAMED)
def test_every_model_is_described(name):
    facts = describe(name)
    assert facts["name"] == name
    assert facts["trainable"] <= facts["parameters"]
    assert facts["macs"] > facts["input"][1] * facts["input"][2]
    assert facts["about"]
    assert {key: facts[key] for key in measure(name)} == measure(name), "run `make docs`"


def test_the_frozen_hybrid_trains_what_was_published():
    facts = describe("facerwkv_hybrid_frozen")
    assert (facts["parameters"], facts["trainable"], facts["unused"]) == (14_998_375, 14_988_839, 307_200)


def test_multiply_accumulates_of_the_small_rwkv4_model_agree_with_a_count_by_hand():
    tokens, width = 600, 128
    embed = tokens * 1200 * width
    time_mix, channel_mix = tokens * 4 * width**2, tokens * (2 * 4 + 1) * width**2  # the recurrence has no products
    head = width * width + width * 7
    assert describe("facerwkv4_small")["macs"] == embed + 2 * (time_mix + channel_mix) + head


def test_multiply_accumulates_of_vision_rwkv_agree_with_what_was_published():
    assert [round(describe(f"vrwkv_{size}")["macs"] / 1e9, 1) for size in ("tiny", "small", "base")] == [1.2, 4.6, 18.2]


@pytest.mark.parametrize(("name", "channels"), [("facerwkv_small", 2), ("facerwkv_medium", 4), ("facerwkv_large", 8)])
def test_the_narrow_time_mix_is_explained(name, channels):
    assert f"it mixes {channels} of" in describe(name)["known"]


def test_the_list_fits_a_terminal_and_loads_no_torch():
    code = "import sys; from facerwkv.models.describe import print_all; print_all(); print('torch' in sys.modules)"
    *lines, torch = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.splitlines()
    assert torch == "False"
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines] == [HEADERS[0], *MODELS]
    assert not [line for line in lines if "…" in line]


@pytest.mark.parametrize("name", shipped())
def test_the_licence_of_shipped_weights_is_their_card_s(name, capsys):
    licence = load_checkpoint(name).card["licence"]
    assert licence.startswith("research only")
    assert describe(name)["licence"] == licence
    print_all()
    assert next(line for line in capsys.readouterr().out.splitlines() if line.startswith(f"{name} ")).endswith("only")
    assert timm.models.get_pretrained_cfg(name).license == licence


def test_a_model_without_shipped_weights_has_the_licence_of_its_code():
    assert {describe(name)["licence"] for name in MODELS if name not in shipped()} == {"Apache-2.0", "BSD-3-Clause"}


def test_a_checkpoint_is_described_by_what_it_says_of_itself(monkeypatch, tmp_path):
    monkeypatch.setattr("facerwkv.models.graph.write_graph", lambda folder: 0.0)  # it takes seconds
    stored = load_checkpoint("facerwkv_fer_tiny")
    stored.save_pretrained(tmp_path / "mine")
    facts = describe_checkpoint(str(tmp_path / "mine"))
    assert (facts["name"], facts["model"], facts["labels"]) == ("mine", "facerwkv_fer_tiny", list(stored.labels))
    assert (facts["licence"], facts["input"]) == (stored.card["licence"], [1, 48, 48])
    accuracy = stored.card["metrics"]["test"]["accuracy"]["value"]
    assert facts["metrics"]["test"]["accuracy"] == accuracy
    assert json.loads(facerwkv("models", "info", tmp_path / "mine", "--json").stdout) == facts
    said = facerwkv("models", "info", tmp_path / "mine").stdout
    assert f"{accuracy:.4g}" in said
    assert "research only" in said
    gone = facerwkv("models", "info", "nosuch")
    assert (gone.returncode, "Unknown model 'nosuch'" in gone.stderr) == (2, True)
