import pytest

from facerwkv.models import MODELS
from facerwkv.models.describe import describe


@pytest.mark.parametrize("name", MODELS)
def test_every_model_is_described(name):
    facts = describe(name)
    assert facts["name"] == name
    assert facts["trainable"] <= facts["parameters"]
    assert facts["macs"] > facts["input"][1] * facts["input"][2]
    assert facts["about"]


def test_the_frozen_hybrid_trains_what_was_published():
    facts = describe("facerwkv_hybrid_frozen")
    assert (facts["parameters"], facts["trainable"], facts["unused"]) == (14_998_375, 14_988_839, 307_200)


def test_multiply_accumulates_of_the_small_model_agree_with_a_count_by_hand():
    tokens, width = 600, 128
    embed = tokens * 1200 * width
    channel_mix = tokens * (3 * width * 320 + width * width)
    time_mix = tokens * (4 * width * 2)
    head = width * width + width * 7
    table = 2 * sum(min(64, tokens - start) * min(start + 64, tokens) for start in range(0, tokens, 64))
    assert describe("facerwkv_small")["macs"] == embed + 2 * (channel_mix + time_mix + table) + head


@pytest.mark.parametrize(("name", "channels"), [("facerwkv_small", 2), ("facerwkv_medium", 4), ("facerwkv_large", 8)])
def test_the_narrow_time_mix_is_explained(name, channels):
    assert f"it mixes {channels} of" in describe(name)["about"]
