"""Folds have the classes in like shares, keep groups whole, and hold each image out once."""

from collections import Counter
from pathlib import Path

import pytest

from facerwkv.core.errors import InputError
from facerwkv.data.samples import Sample
from facerwkv.data.splits import split_folds

LABELS = ("happy", "sad", "angry")


def people(count: int, per_class: int) -> list[Sample]:
    return [
        Sample(f"{label}/{person}_{n}.png", Path("x"), label, group=f"p{person}", attributes={"site": f"s{person % 3}"})
        for person in range(count)
        for label in LABELS
        for n in range(per_class)
    ]


@pytest.mark.parametrize(
    ("folds", "by", "count"), [(5, None, 5), (5, "group", 5), ("all", "group", 10), (3, "site", 3)]
)
def test_each_image_is_held_out_once_with_like_shares(folds, by, count):
    samples = people(10, 4)
    parts = split_folds(samples, folds, by)
    assert len(parts) == count
    assert Counter(map(id, samples)) == Counter(id(each) for part in parts for each in part)
    for part in parts:
        shares = Counter(each.label for each in part)
        assert max(shares.values()) - min(shares.values()) <= 1
    if by:
        names = [{each.group if by == "group" else each.attributes[by] for each in part} for part in parts]
        assert sum(map(len, names)) == len(set.union(*names))


def test_uneven_groups_are_evened_out():
    lone = [Sample(f"{n}.png", Path("x"), LABELS[n % 2], group=f"g{n % 6}") for n in range(60)]
    shares = [Counter(each.label for each in part) for part in split_folds(lone, 3, "group")]
    assert shares == [Counter({"happy": 10, "sad": 10})] * 3


@pytest.mark.parametrize(
    ("folds", "by", "message"),
    [
        (11, "group", "10 groups cannot be cut into 11 folds; choose data.folds from 2 to 10."),
        (5, "age", "has no age, which the folds were to keep together. Leave out data.by."),
    ],
)
def test_what_cannot_be_cut_is_told(folds, by, message):
    with pytest.raises(InputError) as error:
        split_folds(people(10, 1), folds, by)
    assert message in str(error.value)
