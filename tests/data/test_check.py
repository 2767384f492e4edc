import json

import pytest

from facerwkv.core.errors import InputError
from facerwkv.data.check import check, describe_all, print_all
from facerwkv.data.datasets import DATASETS
from facerwkv.data.load import load_dataset
from tests.data import trees


@pytest.fixture
def whole(tmp_path):
    return trees.build("imagefolder", tmp_path)


def test_a_whole_set_is_ok_and_counted_by_class(whole):
    report = check(whole)
    assert report.ok
    assert report.totals == {"train": 21, "val": 7, "test": 14}
    assert report.counts["test"]["fear"] == 2
    assert report.leaks is None


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_can_be_checked_and_told_in_json(name, tmp_path):
    report = check(trees.build(name, tmp_path), leaks=name != "toy")
    told = json.loads(json.dumps(report.to_dict()))
    assert told["name"] == name
    assert told["unreadable"] == told["problems"] == []
    assert told["images"] == report.totals


def test_bad_files_are_listed_and_the_rest_is_counted(whole, tmp_path):
    (tmp_path / "train/sad/1.jpg").write_bytes(b"")
    (tmp_path / "test/sad/1.jpg").write_text("no image")
    report = check(whole)
    assert not report.ok
    assert [line.split(" cannot be read: ")[0] for line in report.unreadable] == [
        f"{tmp_path}/train/sad/1.jpg",
        f"{tmp_path}/test/sad/1.jpg",
    ]
    assert report.totals["train"] == 21


def test_counts_are_held_against_the_published_ones(tmp_path):
    report = check(trees.build("fer2013", tmp_path))
    assert not report.ok
    assert report.missing[0] == "train has 14 images, 28,709 are published."


def test_the_mirror_of_fer2013_holds_validation_in_test(tmp_path):
    trees.build_fer2013_mirror(tmp_path)
    assert check(f"fer2013:{tmp_path}").published == {"train": 28_709, "test": 7_178}


def test_imbalance_is_the_largest_class_to_the_smallest(whole, tmp_path):
    trees.image(tmp_path / "train/sad/4.jpg")
    assert check(whole).imbalance == {"train": 1.33, "val": 1.0, "test": 1.0}


def test_what_was_left_out_fails_the_check(tmp_path):
    source = trees.build("manifest", tmp_path)
    (tmp_path / "train/Sad0.png").unlink()
    report = check(source)
    assert not report.ok
    assert report.to_dict()["problems"][0].endswith("train/Sad0.png does not exist.")


def test_a_loaded_data_set_can_be_checked(whole):
    assert check(load_dataset(whole, labels=["sad", "fear"])).totals == {"train": 6, "val": 2, "test": 4}


def test_the_printed_report_names_what_is_wrong(tmp_path, capsys):
    source = trees.build("fer2013", tmp_path)
    check(source, leaks=True).print()
    printed = capsys.readouterr().out
    assert "28,709" in printed
    assert "Missing: train has 14 images, 28,709 are published." in printed
    assert "Leak: 0 images of test have an exact copy in train, 0 with the same label." in printed
    assert f"Terms: {DATASETS['fer2013'].terms}" in printed


def test_long_lists_are_cut_in_print_and_whole_in_json(whole, tmp_path, capsys):
    for path in tmp_path.glob("train/*/*.jpg"):
        path.write_bytes(b"")
    report = check(whole)
    report.print()
    assert "Unreadable: and 11 more" in capsys.readouterr().out
    assert len(report.to_dict()["unreadable"]) == 21


def test_a_wrong_source_is_an_input_error():
    with pytest.raises(InputError, match="Unknown data set"):
        check("nope:/x")


def test_the_list_of_data_sets_is_the_table(capsys):
    assert [line["name"] for line in json.loads(json.dumps(describe_all()))] == list(DATASETS)
    print_all()
    printed = capsys.readouterr().out
    assert all(name in printed for name in DATASETS)
