"""What a training writes down of its splits, and what becomes of them when the data change."""

import numpy as np
import pytest

from facerwkv.core.errors import InputError
from facerwkv.data.record import Record, same_source, write_record
from facerwkv.data.samples import Sample


def image(number: int, name: str = "") -> Sample:
    return Sample(name or f"{number}.png", np.full((2, 2), number, np.uint8), "anger")


def names(splits):
    return {split: [sample.name for sample in those] for split, those in splits.items()}


@pytest.fixture
def record(tmp_path):
    """Images 0 to 9 are all there was: 2 to 7 trained on, 0 and 1 held out, 8 left out as a leak; 9 is the test."""
    loaded = {"train": [image(number) for number in range(9)], "test": [image(9)]}
    made = {"train": loaded["train"][2:8], "test": loaded["test"], "val": loaded["train"][:2]}
    write_record(tmp_path / "splits.csv", loaded, made)
    return Record(tmp_path / "splits.csv")


@pytest.mark.parametrize(
    ("train", "test", "kept", "sentence"),
    [
        (range(9), [9], {"train": [2, 3, 4, 5, 6, 7], "val": [0, 1], "test": [9]}, ""),
        (range(8, -1, -1), [9], {"train": [2, 3, 4, 5, 6, 7], "val": [0, 1], "test": [9]}, ""),
        (
            [*range(1, 8), 20, 21],
            [9, 22],
            {"train": [2, 3, 4, 5, 6, 7], "val": [1], "test": [9, 22]},
            "of 10 images 2 are gone, 0 are changed and 0 are in another split; 3 are new",
        ),
        (
            range(4),
            [9, 4, 8],
            {"train": [2, 3], "val": [0, 1], "test": [9]},
            "of 10 images 3 are gone, 0 are changed and 1 are in another split; 0 are new",
        ),
    ],
)
def test_splits_are_those_of_the_training(record, train, test, kept, sentence):
    loaded = {"train": [image(number) for number in train], "test": [image(number) for number in test]}
    splits, said = record.restore(loaded, {"train": loaded["train"], "test": loaded["test"]})
    assert names(splits) == {split: [f"{number}.png" for number in those] for split, those in kept.items()}
    assert sentence in said
    assert bool(said) == bool(sentence)


def test_an_image_is_known_by_its_content_under_another_name(record):
    loaded = {"train": [image(2, "0.png"), image(0, "other.png"), image(50, "3.png")]}
    splits, said = record.restore(loaded, loaded)
    assert names(splits) == {"train": ["0.png"], "val": ["other.png"]}
    assert "1 are changed" in said
    new = [image(2, "a.png"), image(0, "b.png"), image(60)]
    assert [sample.name for sample in record.trained_on(new)] == ["a.png"]


def test_a_data_set_is_recognised_by_its_content(record):
    assert record.covers([image(number, f"x/{number}") for number in range(5)])
    assert not record.covers([image(number) for number in (1, *range(20, 30))])


def test_copied_validation_stays_in_both(tmp_path):
    loaded = {"train": [image(0), image(1)]}
    write_record(tmp_path / "splits.csv", loaded, {"train": loaded["train"], "val": loaded["train"][1:]})
    splits, _ = Record(tmp_path / "splits.csv").restore(loaded, loaded)
    assert names(splits) == {"train": ["0.png", "1.png"], "val": ["1.png"]}


def test_a_file_is_read_again_only_where_it_is_another(tmp_path, monkeypatch):
    path = tmp_path / "\udcff ü.png"
    path.write_bytes(b"one")
    sample = Sample("\udcff ü.png", path, "anger")
    write_record(tmp_path / "splits.csv", {"train": [sample]}, {"train": [sample]})
    record = Record(tmp_path / "splits.csv")
    with monkeypatch.context() as patch:
        patch.setattr(type(path), "read_bytes", None)
        assert record.trained_on([sample]) == {sample}
    path.write_bytes(b"another")
    assert record.trained_on([sample]) == set()
    path.unlink()
    assert record.trained_on([sample]) == set()


def test_a_damaged_record_is_a_sentence(tmp_path):
    (tmp_path / "splits.csv").write_text("image,split\na,train\n")
    with pytest.raises(InputError, match=r"splits.csv is damaged .* remove it to evaluate without it"):
        Record(tmp_path / "splits.csv")


@pytest.mark.parametrize("other", ["/d/faces/", "/d/x/../faces", "/d//faces", "./faces", "faces"])
def test_a_place_has_many_spellings(other, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    place = "/d/faces" if other.startswith("/") else f"{tmp_path}/faces"
    assert same_source(f"imagefolder:{place}", f"imagefolder:{other}")
    assert not same_source(f"imagefolder:{place}", f"manifest:{other}")
    assert not same_source(f"imagefolder:{place}", f"imagefolder:{other}2")
