"""What is left out, doubled or moved is said once, in numbers: by training, evaluation and `data check` alike."""

import shutil

import pytest

from facerwkv.core.errors import InputError
from facerwkv.data.check import check
from facerwkv.data.config import DataConfig, TransformConfig
from facerwkv.data.load import load_dataset
from facerwkv.data.loader import DataModule
from tests.commands import facerwkv
from tests.data import trees

OWN = ("happy", "sad")


def counts(source, **options):
    return {split: len(those) for split, those in load_dataset(source, labels=OWN, **options).splits.items()}


SPLIT_FOLDERS = [
    (("Training", "PublicTest", "PrivateTest"), {"train": 6, "val": 4, "test": 2}),
    (("train", "dev", "eval"), {"train": 6, "val": 4, "test": 2}),
    (("train", "eval", "test"), {"train": 6, "val": 4, "test": 2}),
    (("Train", "Valid", "Test"), {"train": 6, "val": 4, "test": 2}),
]


@pytest.mark.parametrize(("names", "expected"), SPLIT_FOLDERS)
@pytest.mark.parametrize("kind", ["imagefolder", "manifest"])
def test_splits_by_any_of_their_names(kind, names, expected, tmp_path):
    rows = [["path", "label", "split"]]
    for name, count in zip(names, (3, 2, 1), strict=True):
        trees.folders(tmp_path / name, OWN, count)
        rows += [[f"{name}/{label}/{n + 1:04d}.png", label, name] for label in OWN for n in range(count)]
    trees.table(tmp_path / "list.csv", rows)
    root = tmp_path / "list.csv" if kind == "manifest" else tmp_path
    assert counts(f"{kind}:{root}") == expected


def test_two_folders_of_one_split_are_refused(tmp_path):
    for name in ("train", "Training"):
        trees.folders(tmp_path / name, OWN, 1)
    with pytest.raises(InputError, match=r"Training and .*train are both the train split\. Rename one"):
        load_dataset(f"imagefolder:{tmp_path}", labels=OWN)


def beside(root):
    trees.folders(root, ("happy",), 3)
    return f"3 images in {root}/happy were left out: it is none of the splits train, val, test by its name."


def another(root):
    trees.folders(root / "holdout", OWN, 2)
    return f"4 images in {root}/holdout were left out: it is none of the splits train, val, test by its name."


def loose(root):
    trees.image(root / "train/1.png")
    return f"1 images directly in {root}/train were left out: they are in no class's folder."


def above(root):
    trees.image(root / "1.png")
    return f"1 images directly in {root} were left out: they are in no class's folder."


def films(root):
    (root / "train/sad/1.avi").touch()
    (root / "train/sad/2.heic2").touch()
    return f"2 files in {root}/train were left out: they are no images by their names (1 .avi, 1 .heic2)."


def fewer(root):
    trees.folders(root / "train", ("bored", "calm"), 2)
    return "4 images are of other classes than happy, sad: bored 2, calm 2."


@pytest.mark.parametrize("change", [beside, another, loose, above, films, fewer])
def test_what_lies_beside_the_splits_and_classes_is_counted(change, tmp_path):
    trees.folders(tmp_path / "train", OWN, 2)
    dataset = load_dataset(f"imagefolder:{tmp_path}", labels=OWN) if change(tmp_path) else None
    assert dataset.problems == [change(tmp_path)]
    assert counts(f"imagefolder:{tmp_path}") == {"train": 4}


def listed(root, rows):
    for number in range(6):
        trees.image(root / f"{number}.png")
    trees.table(root / "list.csv", [["path", "label", "split"], *rows])
    return f"manifest:{root}/list.csv"


ONCE = [[f"{number}.png", OWN[number % 2], "train"] for number in range(5)]
DOUBLED = [
    (
        [["./0.png", "happy", "train"], ["sub/../1.png", "Sad", "train"]],
        {"train": 5},
        "2 images are listed twice and count once, for example 0.png.",
    ),
    (
        [["0.png", "happy", "test"]],
        {"train": 4, "test": 1},
        "1 images are listed twice and count once, for example 0.png; 1 of them, in two splits, count in test before "
        "val before train.",
    ),
    (
        [["0.png", "sad", "test"]],
        {"train": 4},
        "1 images are listed under two labels and were left out, for example 0.png (happy, sad).",
    ),
]


@pytest.mark.parametrize(("rows", "expected", "said"), DOUBLED)
def test_an_image_that_is_listed_twice(rows, expected, said, tmp_path):
    source = listed(tmp_path, ONCE + rows)
    (tmp_path / "sub").mkdir()
    assert counts(source) == expected
    assert load_dataset(source, labels=OWN).problems == [said]


def test_missing_files_are_counted_before_the_first(tmp_path):
    source = listed(tmp_path, [*ONCE, *([f"gone{number}.png", "sad", "train"] for number in range(7))])
    first, second, *_ = load_dataset(source, labels=OWN).problems
    assert first == "7 of 12 rows or files were left out; the first:"
    assert second.startswith("list.csv:7 was left out: ")


@pytest.fixture
def copied(tmp_path):
    """Ten images of two classes; one of each is there three times, and one under the other label, too."""
    trees.folders(tmp_path / "own", OWN, 10)
    for label in OWN:
        for copy in ("0001b", "0001c"):
            shutil.copy(tmp_path / f"own/{label}/0001.png", tmp_path / f"own/{label}/{copy}.png")
    shutil.copy(tmp_path / "own/happy/0002.png", tmp_path / "own/sad/0099.png")
    return f"imagefolder:{tmp_path}/own"


@pytest.mark.parametrize("how", ["contiguous", "random"])
def test_copies_of_validation_images_leave_training(how, copied, caplog):
    config = DataConfig(source=copied, labels=OWN, validation=how, val_fraction=0.3)
    for seed in range(5):
        caplog.clear()
        splits = DataModule(config, TransformConfig(), seed).dataset.splits
        train, val = ({each.image.read_bytes() for each in splits[split]} for split in ("train", "val"))
        assert not train & val
        gone = 25 - len(splits["train"]) - len(splits["val"])
        assert [f"{gone} training images are copies of validation images and were left out."] * (gone > 0) == [
            record.message for record in caplog.records
        ]


def test_a_check_counts_copies_within_a_split_and_those_of_another_label(copied):
    report = check(copied, leaks=True)
    assert report.leaks.to_dict()["within"] == {"train": 5}
    assert report.leaks.to_dict()["within_other_label"] == {"train": 1}
    assert "Within train 5 images repeat another, 1 of them under another label." in report._lines()


def test_a_validation_that_lacks_classes_is_said(tmp_path, caplog):
    trees.folders(tmp_path, ("happy",), 10)
    trees.folders(tmp_path, ("sad",), 1)
    dataset = DataModule(DataConfig(source=f"imagefolder:{tmp_path}", labels=OWN), TransformConfig()).dataset
    assert {each.label for each in dataset.splits["val"]} == {"happy"}
    (said,) = caplog.messages
    assert said.startswith("No image of sad (of 1) is among the 1 held out for validation; all are of one class")


def test_training_says_it_once(tmp_path, caplog):
    trees.folders(tmp_path / "own", OWN, 6)
    trees.image(tmp_path / "own/1.png")
    said = f"1 images directly in {tmp_path}/own were left out: they are in no class's folder."
    tiny = ["transform.image_size=[8,8]", "model.options={patch_size: 8, width: 16}", "train.epochs=1"]
    source = f"imagefolder:{tmp_path}/own"
    common = ("--data", source, "--out", tmp_path / "run", "data.cache=false", "train.device=cpu", *tiny)
    assert facerwkv("train", "--labels", "happy,sad", *common).returncode == 0
    assert caplog.messages.count(said) == 1
    facerwkv("evaluate", "--model", tmp_path / "run", "--split", "val")
    assert caplog.messages.count(said) == 2
    assert said in facerwkv("data", "check", source).stdout
