import pytest

from facerwkv.core.errors import InputError
from facerwkv.core.labels import ALIASES, EXPRESSIONS, EXPRESSIONS_8, canonical


def test_the_order_is_alphabetical_with_contempt_last():
    assert list(EXPRESSIONS) == sorted(EXPRESSIONS)
    assert (*EXPRESSIONS, "contempt") == EXPRESSIONS_8


@pytest.mark.parametrize(("name", "aliases"), ALIASES.items())
def test_every_alias_maps_to_one_label_in_any_case(name, aliases):
    for alias in (name, *aliases):
        assert canonical(alias) == canonical(alias.upper()) == canonical(f" {alias.title()} ") == name


def test_no_alias_stands_for_two_labels():
    names = [alias for name, aliases in ALIASES.items() for alias in (name, *aliases)]
    assert len(names) == len(set(names))


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(InputError, match=r"Unknown label 'bored'.*anger, disgust, fear"):
        canonical("bored")


def test_contempt_is_unknown_among_seven():
    with pytest.raises(InputError, match="contempt"):
        canonical("contempt", EXPRESSIONS)


def test_classes_of_ones_own():
    assert canonical("Bored", ("Bored", "awake")) == "Bored"
