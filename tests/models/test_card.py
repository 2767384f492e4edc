"""What weights were made from follows them."""

import pytest

from facerwkv.models.card import is_bounded, known_licence, licence_of_training

TERMS = {
    ("toy", ()): "Apache-2.0",
    ("toy:seed=1", (("mine", "Apache-2.0"),)): "Apache-2.0",
    ("toy", (("facerwkv_fer", "research only: x"),)): "learned from facerwkv_fer, research only: x",
    ("imagefolder:/me", ()): "Yours: the terms under which you got the images.",
    ("imagefolder:/me", (("a", "CC-BY-NC, non-commercial"),)): "learned from a, CC-BY-NC, non-commercial",
    ("sfew:/d", ()): "research only: Academic use under a licence agreement; frames of films.",
    ("gone:/d", ()): "research only: the data are not recorded.",
}


@pytest.mark.parametrize(("source", "starts"), TERMS)
def test_what_data_or_starting_weights_forbid_is_forbidden(source, starts):
    assert licence_of_training(source, dict(starts)) == TERMS[source, starts]
    assert is_bounded(TERMS[source, starts]) is TERMS[source, starts].startswith(("research", "learned"))


def test_a_card_without_a_licence_has_that_of_its_data():
    assert known_licence({"data": {"source": "toy"}}) == "Apache-2.0"
    assert known_licence({"data": {"source": "sfew:/d"}, "licence": "mine"}) == "mine"
    assert known_licence({}) is None
