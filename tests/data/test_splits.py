import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facerwkv.core.errors import InputError
from facerwkv.data.samples import Sample
from facerwkv.data.splits import METHODS, blocks_apart, split_validation

PIXEL = np.zeros((1, 1), np.uint8)


def clip_frames(sizes, groups=3):
    """Samples "train/CLASS/7.png" of every class, numbered from 1, without leading zeros; neighbours share a group."""
    return [
        Sample(f"train/{label}/{number}.png", PIXEL, label, group=f"{label} {number // groups}")
        for label, size in sizes.items()
        for number in range(1, size + 1)
    ]


def names(samples):
    return [sample.name for sample in samples]


cases = given(
    sizes=st.dictionaries(st.sampled_from("abcdefg"), st.integers(5, 120), min_size=1),
    how=st.sampled_from(sorted(METHODS)),
    fraction=st.floats(0.02, 0.6),
    seed=st.integers(0, 9),
    shuffle=st.randoms(use_true_random=False),
)


@cases
@settings(max_examples=60, deadline=None)
def test_every_rule_depends_on_the_seed_and_not_on_the_order_of_the_list(sizes, how, fraction, seed, shuffle):
    samples = clip_frames(sizes)
    train, val = split_validation(samples, how, fraction, seed)
    shuffled = samples.copy()
    shuffle.shuffle(shuffled)
    again = split_validation(shuffled, how, fraction, seed)
    assert (names(train), names(val)) == (names(again[0]), names(again[1]))


@cases
@settings(max_examples=60, deadline=None)
def test_no_sample_is_lost_and_none_is_on_both_sides_unless_copied(sizes, how, fraction, seed, shuffle):
    samples = clip_frames(sizes)
    train, val = split_validation(samples, how, fraction, seed)
    assert train
    assert val
    assert set(names(train)) | set(names(val)) == set(names(samples))
    assert (set(names(train)) & set(names(val))) == (set(names(val)) if how == "copied" else set())


@cases
@settings(max_examples=60, deadline=None)
def test_shares_are_exact(sizes, how, fraction, seed, shuffle):
    _, val = split_validation(clip_frames(sizes), how, fraction, seed)
    per_class = {label: sum(sample.label == label for sample in val) for label in sizes}
    if how in ("contiguous", "per_class"):
        assert per_class == {label: max(1, round(fraction * size)) for label, size in sizes.items()}
    elif how in ("random", "copied"):
        assert len(val) == max(1, round(fraction * sum(sizes.values())))
    else:
        assert len(val) <= max(3, round(fraction * sum(sizes.values())))


@cases
@settings(max_examples=60, deadline=None)
def test_no_group_is_on_both_sides(sizes, how, fraction, seed, shuffle):
    train, val = split_validation(clip_frames(sizes), "group", fraction, seed)
    assert not {sample.group for sample in train} & {sample.group for sample in val}


@pytest.mark.parametrize(("size", "runs"), [(7000, 5), (150, 1), (250, 2)])
def test_contiguous_takes_few_runs_of_file_numbers(size, runs):
    _, val = split_validation(clip_frames({"fear": size}), "contiguous", 0.1, seed=3)
    numbers = np.array([int(name.split("/")[2][:-4]) for name in names(val)])
    assert 1 + np.count_nonzero(np.diff(numbers) != 1) == runs


def test_the_papers_split_of_caer_s_has_its_size():
    train, val = split_validation(clip_frames({"anger": 24_495, "fear": 24_500}), "random", 0.1)
    assert (len(train), len(val)) == (44_095, 4_900)


@pytest.mark.parametrize("how", ["random", "per_class", "contiguous", "group"])
def test_another_seed_gives_another_split(how):
    samples = clip_frames({"anger": 60, "fear": 60})
    assert names(split_validation(samples, how, seed=0)[1]) != names(split_validation(samples, how, seed=1)[1])


def test_both_sides_come_in_the_order_of_their_numbers():
    samples = clip_frames({"anger": 30})
    random.Random(0).shuffle(samples)
    train, _ = split_validation(samples, "copied")
    assert names(train) == [f"train/anger/{number}.png" for number in range(1, 31)]


def test_a_group_larger_than_the_share_is_still_held_out_whole():
    samples = clip_frames({"anger": 20}, groups=10)
    train, val = split_validation(samples, "group", 0.01)
    assert names(val) == ["train/anger/20.png"]
    assert len(train) == 19


WITHOUT_GROUPS = [Sample(f"{number}.png", PIXEL, "fear") for number in range(9)]


@pytest.mark.parametrize(
    ("samples", "how", "fraction", "message"),
    [
        (WITHOUT_GROUPS, "group", 0.1, r"without groups .* data.validation=contiguous"),
        (WITHOUT_GROUPS, "halves", 0.1, "'halves'. Known: random, per_class, contiguous, group, copied"),
        (WITHOUT_GROUPS, "random", 1.0, "Cannot hold out 1 of 9 images"),
        (WITHOUT_GROUPS[:1], "random", 0.1, "Cannot hold out 0.1 of 1 images"),
        (clip_frames({"anger": 1, "fear": 1}), "contiguous", 0.1, "No class has two images"),
    ],
)
def test_what_cannot_be_split_is_said(samples, how, fraction, message):
    with pytest.raises(InputError, match=message):
        split_validation(samples, how, fraction)


def test_blocks_keep_the_first_of_training_and_the_last_of_test_of_every_class():
    train, test = blocks_apart(clip_frames({"b": 20, "a": 7000}), clip_frames({"a": 3000, "b": 3}))
    numbers = [int(sample.name.split("/")[-1].removesuffix(".png")) for sample in train + test]
    assert numbers == [*range(1, 5601), *range(1, 17), *range(2551, 3001), 3]
