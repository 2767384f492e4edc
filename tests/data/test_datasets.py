import numpy as np
import pytest

from facerwkv.core.errors import InputError
from facerwkv.core.labels import EXPRESSIONS, EXPRESSIONS_8
from facerwkv.data.datasets import DATASETS
from facerwkv.data.folders import list_images
from facerwkv.data.load import load_dataset
from facerwkv.data.samples import read_image
from tests.data import trees

COUNTS = {
    "caer_s": {"train": 21, "test": 14},
    "fer2013": {"train": 14, "val": 14, "test": 14},
    "ferplus": {"train": 9, "val": 9, "test": 9},
    "ferplus_soft": {"train": 10, "val": 10, "test": 10},
    "rafdb": {"train": 14, "test": 7},
    "affectnet": {"train": 16, "test": 8},
    "ck48": {"train": 21},
    "jaffe": {"train": 14},
    "sfew": {"train": 14, "test": 7},
    "expw": {"train": 14},
    "imagefolder": {"train": 21, "val": 7, "test": 14},
    "manifest": {"train": 14, "val": 7, "test": 7},
    "toy": {"train": 14, "val": 7, "test": 7},
    "hf": {"train": 14, "test": 14},
}
NATIVE = {
    "fer2013": "0 anger 1 disgust 2 fear 3 happiness 4 sadness 5 surprise 6 neutral",
    "ferplus": "0 neutral 1 happiness 2 surprise 3 sadness 4 anger 5 disgust 6 fear 7 contempt",
    "rafdb": "1 surprise 2 fear 3 disgust 4 happiness 5 sadness 6 anger 7 neutral",
    "affectnet": "0 neutral 1 happiness 2 sadness 3 surprise 4 fear 5 disgust 6 anger 7 contempt",
    "expw": "0 anger 1 disgust 2 fear 3 happiness 4 sadness 5 surprise 6 neutral",
    "jaffe": "NE neutral AN anger DI disgust FE fear HA happiness SA sadness SU surprise",
    "caer_s": "Angry anger Anger anger Disgust disgust Fear fear Happy happiness Neutral neutral Sad sadness "
    "Surprise surprise",
}


def load(name, root):
    return load_dataset(trees.build(name, root))


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_is_read_in_its_layout(name, tmp_path):
    dataset = load(name, tmp_path)
    assert {split: len(samples) for split, samples in dataset.splits.items()} == COUNTS[name]
    assert dataset.problems == []
    assert dataset.labels == DATASETS[name].labels
    for split, samples in dataset.splits.items():
        assert {sample.label for sample in samples} == set(dataset.labels), split
        assert len({sample.name for sample in samples}) == len(samples)
    image = read_image(samples[0])
    assert (image.dtype, image.ndim, image.shape[2]) == (np.uint8, 3, 3)


@pytest.mark.parametrize("folder", ["my #faces", "a: b", "été 表情, x=1", "it's [1] {2} %20~*?"])
@pytest.mark.parametrize("name", sorted(set(DATASETS) - {"toy"}))
def test_a_root_is_taken_as_it_is_typed(name, folder, tmp_path):
    if name == "hf" and "*" in folder:  # what its library reads is a pattern
        pytest.importorskip("datasets", reason="the extra hf is not installed")
        with pytest.raises(
            InputError, match=r"takes \*, \? and \[ in a folder's name for a pattern\. Rename the folder"
        ):
            load_dataset(f"hf:{tmp_path / folder}")
        return
    dataset = load(name, tmp_path / folder)
    assert dataset.root.is_relative_to(tmp_path / folder)
    assert {split: len(samples) for split, samples in dataset.splits.items()} == COUNTS[name]
    assert dataset.problems == []
    assert not any(folder in sample.name for samples in dataset.splits.values() for sample in samples)
    assert read_image(dataset.splits["train"][0]).dtype == np.uint8


def test_a_box_file_is_taken_as_it_is_typed(tmp_path):
    source = trees.build("caer_s", tmp_path / "a: b #c")
    boxes = tmp_path / "my boxes, 表: #1.txt"
    boxes.write_text("train/Angry/0001.png,0,1,2,3,4\n")
    assert load_dataset(source, boxes=boxes).splits["train"][0].box == (1, 2, 3, 4)


@pytest.mark.parametrize("ending", [".jpg", ".JPEG", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".jp2", ".pnm"])
def test_images_are_known_by_their_endings(ending, tmp_path):
    names = [f"a{ending}", f".hidden{ending}", "notes.txt", "Thumbs.db"]
    for name in names:
        (tmp_path / name).touch()
    assert list_images(tmp_path) == [tmp_path / names[0]]


@pytest.mark.parametrize("name", DATASETS)
def test_every_line_says_what_a_user_must_know(name):
    spec = DATASETS[name]
    assert spec.name == name
    assert all([spec.layout, spec.terms, spec.source])


@pytest.mark.parametrize("name", NATIVE)
def test_native_numbers_are_mapped_by_name(name, tmp_path):
    words = NATIVE[name].split()
    found = {s.attributes["native"]: s.label for samples in load(name, tmp_path).splits.values() for s in samples}
    assert found == dict(zip(words[::2], words[1::2], strict=True))


def test_caer_s_may_be_named_itself_or_its_parent(tmp_path):
    inside, outside = load_dataset(f"{trees.build('caer_s', tmp_path)}/CAER-S"), load_dataset(f"caer_s:{tmp_path}")
    assert inside.splits["train"][0].name == "train/Angry/0001.png"
    assert outside.splits["train"][0].name == "CAER-S/train/Angry/0001.png"


def test_a_folder_that_is_no_class_is_listed_and_takes_no_index(tmp_path):
    source = trees.build("caer_s", tmp_path)
    trees.image(tmp_path / "CAER-S/train/AAA/0001.png")
    dataset = load_dataset(source)
    assert len(dataset.splits["train"]) == 21
    assert dataset.problems == [f"{tmp_path}/CAER-S/train/AAA is none of the classes; its 1 images were left out."]


@pytest.mark.parametrize("prefix", ["", "CAER-S/", "/data/CAER-S/"])
def test_box_files_match_by_the_end_of_the_path(prefix, tmp_path):
    source = trees.build("caer_s", tmp_path)
    lines = [f"{prefix}train/Anger/0002.png,0,-7,3,20.5,30", f"{prefix}test/Fear/0001.png,2,1,2,3,4"]
    (tmp_path / "boxes.txt").write_text("\n".join([*lines, f"{prefix}test/Fear/0002.png,2,9,9,3,4"]))
    dataset = load_dataset(source, boxes=tmp_path / "boxes.txt")
    boxes = {s.name: s.box for samples in dataset.splits.values() for s in samples if s.box}
    assert boxes == {"CAER-S/train/Angry/0002.png": (0, 3, 20.5, 30), "CAER-S/test/Fear/0001.png": (1, 2, 3, 4)}
    assert dataset.problems == [
        "boxes.txt:3 was left out: its box 9 9 3 4 is empty.",
        f"{tmp_path}/boxes.txt has no box for 33 of 35 images, for example CAER-S/train/Angry/0001.png.",
    ]


def test_a_box_file_of_other_images_is_an_error(tmp_path):
    source = trees.build("caer_s", tmp_path)
    (tmp_path / "boxes.txt").write_text("0001.png,0,1,2,3,4\n")
    with pytest.raises(InputError, match=r"boxes.txt names none of the images; .* like CAER-S/train/Angry/0001.png"):
        load_dataset(source, boxes=tmp_path / "boxes.txt")


def test_fer2013_rows_keep_their_pixels_and_their_numbers(tmp_path):
    sample = load("fer2013", tmp_path).splits["val"][0]
    assert sample.name == "fer2013.csv:14"
    assert np.array_equal(sample.image, trees.noise("PublicTest00", 48, 48))
    assert read_image(sample).shape == (48, 48, 3)


def test_fer2013_may_be_the_csv_itself(tmp_path):
    trees.build_fer2013(tmp_path)
    assert len(load_dataset(f"fer2013:{tmp_path}/fer2013.csv").splits["test"]) == 14


def test_fer2013_folders_have_no_validation(tmp_path):
    trees.build_fer2013_mirror(tmp_path)
    dataset = load_dataset(f"fer2013:{tmp_path}")
    assert {split: len(samples) for split, samples in dataset.splits.items()} == {"train": 21, "test": 14}
    assert {s.attributes["native"]: s.label for s in dataset.splits["train"]} == dict(
        zip(trees.FOLDERS, EXPRESSIONS, strict=True)
    )


@pytest.mark.parametrize(
    ("cell", "value", "reason"),
    [
        (0, "7", "its class is '7', none of 0 to 6"),
        (0, "x", "its class is 'x', none of 0 to 6"),
        (1, "1 2 3", "its pixels are not 2,304 values of 0 to 255"),
        (1, "300 " * 2304, "its pixels are not 2,304 values of 0 to 255"),
        (2, "Test", "its Usage is 'Test', none of Training, PublicTest, PrivateTest"),
    ],
)
def test_malformed_rows_are_listed(cell, value, reason, tmp_path):
    rows = trees.fer2013_rows()
    rows[4][cell] = value
    trees.table(tmp_path / "fer2013.csv", rows)
    dataset = load_dataset(f"fer2013:{tmp_path}")
    assert dataset.problems == [f"fer2013.csv:3 was left out: {reason}."]
    assert len(dataset.splits["train"]) == 13


@pytest.mark.parametrize("pixels", ["1 2 x " + "3 " * 2301, "", "3 " * 2304 + "x"])
def test_pixels_that_are_no_numbers_are_listed(pixels, tmp_path):
    rows = trees.fer2013_rows()
    rows[1][1] = pixels
    trees.table(tmp_path / "fer2013.csv", rows)
    (problem,) = load_dataset(f"fer2013:{tmp_path}").problems
    assert problem.startswith("fer2013.csv:0 was left out: ")


def test_ferplus_takes_the_majority_without_single_votes(tmp_path):
    splits = load("ferplus", tmp_path).splits
    assert [s.label for s in splits["val"]] == [*trees.VOTES[:8], "neutral"]
    assert [s.name for s in splits["val"]][-1] == "fer2013.csv:25"
    assert splits["val"][0].votes is None


def test_ferplus_soft_keeps_the_shares_of_the_expressions(tmp_path):
    samples = load("ferplus_soft", tmp_path).splits["train"]
    assert [s.label for s in samples] == [*trees.VOTES[:8], "neutral", "neutral"]
    assert samples[8].votes == {"neutral": 0.5, "happiness": 0.5}
    assert samples[9].votes == {"neutral": 4 / 6, "happiness": 2 / 6}


def test_ferplus_refuses_files_that_do_not_belong_together(tmp_path):
    source = trees.build("ferplus", tmp_path)
    text = (tmp_path / "fer2013new.csv").read_text().splitlines()
    (tmp_path / "fer2013new.csv").write_text("\n".join(text[:-1]))
    with pytest.raises(
        InputError, match=r"rows of fer2013.csv \(42\) and fer2013new.csv \(41\) .* do not belong together"
    ):
        load_dataset(source)
    (tmp_path / "fer2013new.csv").write_text("\n".join([text[0], text[-1], *text[1:-1]]))
    with pytest.raises(InputError, match="do not belong together"):
        load_dataset(source)


def test_rafdb_reads_who_is_shown_and_falls_back_to_the_originals(tmp_path):
    trees.build_rafdb(tmp_path, images="original")
    sample = load_dataset(f"rafdb:{tmp_path}").splits["train"][1]
    assert sample.name == "basic/Image/original/train_00002.jpg"
    expected = {"native": "2", "gender": "female", "race": "African-American", "age": "4-19"}
    assert sample.attributes == expected


@pytest.mark.parametrize("damaged", [b"", b"1 2\n" * 5 + b"0\n1\n", b"1 2\n" * 5 + b"0\n3\n1\n", b"\xff" * 40])
def test_a_damaged_file_of_rafdb_leaves_unknown_who_is_shown(tmp_path, damaged):
    source = trees.build("rafdb", tmp_path)
    (tmp_path / "basic/Annotation/manual/test_00001_manu_attri.txt").write_bytes(damaged)
    (tmp_path / "basic/Annotation/manual/test_00002_manu_attri.txt").unlink()
    dataset = load_dataset(source)
    first, second, *_ = dataset.splits["test"]
    assert first.attributes == {"native": "1", "gender": "unknown", "race": "unknown", "age": "unknown"}
    assert second.attributes == {"native": "2"}
    (problem,) = dataset.problems
    said = "does not say gender, race, age; they count as unknown for its image."
    assert problem.endswith(f"test_00001_manu_attri.txt {said}")


def test_affectnet_is_read_in_its_older_release_too(tmp_path):
    trees.build_affectnet_older(tmp_path)
    dataset = load_dataset(f"affectnet:{tmp_path}")
    assert {split: [s.label for s in samples] for split, samples in dataset.splits.items()} == {
        "train": NATIVE["affectnet"].split()[1::2],
        "test": NATIVE["affectnet"].split()[1::2],
    }
    assert dataset.splits["test"][0].box == (1, 2, 6, 8)


def test_annotations_are_never_unpickled(tmp_path):
    source = trees.build("affectnet", tmp_path)
    np.save(tmp_path / "train_set/annotations/0_exp.npy", np.array({"a": 1}, dtype=object))
    dataset = load_dataset(source)
    assert len(dataset.splits["train"]) == 15
    assert "0_exp.npy was left out: Object arrays cannot be loaded when allow_pickle=False" in dataset.problems[0]


@pytest.mark.parametrize(("name", "groups"), [("ck48", {"S005", "S010", "S999"}), ("jaffe", {"KA", "YM"})])
def test_subjects_are_groups(name, groups, tmp_path):
    assert {s.group for s in load(name, tmp_path).splits["train"]} == groups


def test_expw_boxes_are_top_left_right_bottom(tmp_path):
    first, second = load("expw", tmp_path).splits["train"][:2]
    assert (first.name, first.box) == ("data/image/actor_0.jpg#0", (5, 4, 25, 30))
    assert (second.name, second.box) == ("data/image/actor_0.jpg#1", (6, 4, 25, 30))
    assert first.group == second.group == "actor_0.jpg"


def test_imagefolder_without_splits_is_all_training(tmp_path):
    trees.folders(tmp_path, trees.FOLDERS, 2)
    assert list(load_dataset(f"imagefolder:{tmp_path}").splits) == ["train"]


def test_an_imagefolder_may_lie_in_one_folder_more(tmp_path):
    trees.folders(tmp_path / "archive" / "images", trees.FOLDERS, 2)
    dataset = load_dataset(f"imagefolder:{tmp_path}")
    assert list(dataset.splits) == ["train"]
    assert {sample.label for sample in dataset.splits["train"]} == set(EXPRESSIONS)
    alone = load_dataset(f"imagefolder:{tmp_path}/archive/images", labels=["auto"])
    assert len(alone.splits["train"]) == len(dataset.splits["train"])
    for persons in ("a", "b"):  # folders of persons in the only class
        trees.folders(tmp_path / "one" / "happy", [persons], 2)
    assert load_dataset(f"imagefolder:{tmp_path}/one", labels=["auto"]).labels == ("happy",)


def test_manifest_rows_carry_box_group_and_attributes(tmp_path):
    sample = load("manifest", tmp_path).splits["train"][0]
    assert (sample.name, sample.label, sample.box, sample.group) == (
        "train/Anger0.png",
        "anger",
        (1, 2, 8, 9),
        "clip 0",
    )
    assert sample.attributes == {"native": "Anger", "gender": "female"}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("gone.png,sad,,,,,,train", "gone.png does not exist."),
        ("a.png,sad,1,2,,,,train", "it has no x2."),
        ("a.png,sad,1,2,x,4,,train", "could not convert string to float: 'x'."),
        ("a.png,sad,5,2,nan,4,,train", "its box 5 2 nan 4 is empty."),
        ("a.png,sad,,,,,,exam", "its split is 'exam', none of train, val, test."),
        ("a.png", "it has no label."),
    ],
)
def test_bad_manifest_rows_are_listed(row, reason, tmp_path):
    source = trees.build("manifest", tmp_path)
    trees.image(tmp_path / "a.png")
    with (tmp_path / "manifest.csv").open("a") as file:
        file.write(f"{row}\n")
    (problem,) = load_dataset(source).problems
    assert problem.startswith("manifest.csv:30 was left out: ")
    assert problem.endswith(reason)


def test_toy_takes_options():
    one, other = (load_dataset(f"toy:seed={seed},train=7,val=0,test=0") for seed in (1, 2))
    assert list(one.splits) == ["train"]
    assert [s.box for s in one.splits["train"]] != [s.box for s in other.splits["train"]]


def test_own_labels_restrict_rename_and_order(tmp_path):
    dataset = load_dataset(trees.build("caer_s", tmp_path), labels=["Sad", "happiness"])
    assert dataset.labels == ("Sad", "happiness")
    assert {s.label for s in dataset.splits["train"]} == {"Sad", "happiness"}
    listed = "anger 5, disgust 5, fear 5, neutral 5, surprise 5"
    assert dataset.problems == [f"25 images are of other classes than Sad, happiness: {listed}."]


def test_own_classes_are_matched_by_folder(tmp_path):
    trees.folders(tmp_path, ("Bored", "asleep"), 2)
    dataset = load_dataset(f"imagefolder:{tmp_path}", labels=["asleep", "bored"])
    assert [s.label for s in dataset.splits["train"]] == ["bored", "bored", "asleep", "asleep"]


def test_votes_follow_the_labels(tmp_path):
    dataset = load_dataset(trees.build("ferplus_soft", tmp_path), labels=["sadness", "neutral"])
    assert dataset.splits["train"][-1].votes == {"neutral": 1.0}


def empty_class(root):
    source = trees.build("imagefolder", root)
    for path in (root / "train/fear").iterdir():
        path.unlink()
    return source


def unknown_class(root):
    trees.folders(root, ("happy", "bored"), 1)
    return f"imagefolder:{root}"


def contempt(root):
    trees.folders(root, ("contempt",), 1)
    return f"imagefolder:{root}"


def no_images(root):
    return f"imagefolder:{root}"


def empty_csv(root):
    (root / "fer2013.csv").touch()
    return f"fer2013:{root}"


def no_columns(root):
    (root / "list.csv").write_text("file,emotion\na.png,sad\n")
    return f"manifest:{root}/list.csv"


BAD = [
    (lambda root: "nope:/x", "Unknown data set 'nope' in 'nope:/x'. Write NAME:ROOT; names: caer_s, fer2013, "),
    (lambda root: "/d/CAER-S", "Unknown data set '/d/CAER-S'"),
    (lambda root: str(root), "For your own folders of classes write imagefolder:/"),
    (
        lambda root: "rafdb",
        "rafdb needs its root folder or file, rafdb:ROOT. Expected layout of rafdb: ROOT/basic/EmoLabel",
    ),
    (lambda root: f"caer_s:{root}/gone", "gone does not exist. Expected layout of caer_s: ROOT/{train,test}"),
    (lambda root: "toy:sed=1", "toy does not know sed=1; its options are numbers: seed, context, train, val, test."),
    (lambda root: "toy:train=-1", "toy does not know train=-1"),
    (empty_class, "has no training images of fear ("),
    (empty_class, "data.labels=[anger, disgust, happiness, neutral, sadness, surprise]."),
    (unknown_class, "bored/0001.png: Unknown label 'bored'. Known labels: anger, disgust, fear,"),
    (contempt, "Unknown label 'contempt'."),
    (no_images, "contains no images of anger, disgust"),
    (empty_csv, "fer2013.csv does not begin with the header emotion,pixels,Usage"),
    (no_columns, "list.csv lacks the column path, label; its first line is 'file,emotion'."),
]


@pytest.mark.parametrize(("source", "message"), BAD)
def test_a_wrong_source_is_told_what_is_wrong(source, message, tmp_path):
    with pytest.raises(InputError) as error:
        load_dataset(source(tmp_path))
    assert message in str(error.value)


@pytest.mark.parametrize("name", sorted(set(DATASETS) - {"toy", "imagefolder", "jaffe", "hf"}))
def test_an_empty_folder_is_told_the_layout(name, tmp_path):
    with pytest.raises(InputError) as error:
        load_dataset(f"{name}:{tmp_path}")
    assert DATASETS[name].layout in str(error.value)


def test_two_names_of_one_label_are_an_error(tmp_path):
    with pytest.raises(InputError, match="Two of the labels happy, joy mean the same"):
        load_dataset(trees.build("fer2013", tmp_path), labels=["happy", "joy"])


def test_label_sets():
    eight = {name for name, spec in DATASETS.items() if spec.labels == EXPRESSIONS_8}
    assert eight == {"ferplus", "ferplus_soft", "affectnet"}
    assert set(DATASETS["ck48"].labels) == set(EXPRESSIONS_8) - {"neutral"}
    assert all(spec.labels == EXPRESSIONS for name, spec in DATASETS.items() if name not in eight | {"ck48"})


BROKEN_NPY = {
    "empty": (b"", "EOF: reading magic string, expected 8 bytes got 0"),
    "zip": (b"PK\x03\x04" + b"\0" * 40, "the magic string is not correct"),
    "cut": (b"\x93NUMPY\x01\x00", "EOF: reading array header length"),
    "header": (b"\x93NUMPY\x01\x00\x10\x00{'descr': 'x(', }", "('EOF in multi-line statement'"),
    "huge": (
        b"\x93NUMPY\x01\x00\x46\x00" + b"{'descr': '<i8', 'fortran_order': False, 'shape': (10**0, 9), }".ljust(70),
        "malformed node or string",
    ),
}


@pytest.mark.parametrize("kind", BROKEN_NPY)
def test_a_broken_annotation_is_left_out_and_named(kind, tmp_path):
    source = trees.build("affectnet", tmp_path)
    content, reason = BROKEN_NPY[kind]
    (tmp_path / "train_set/annotations/0_exp.npy").write_bytes(content)
    dataset = load_dataset(source)
    (problem,) = dataset.problems
    assert problem.startswith(f"{tmp_path}/train_set/annotations/0_exp.npy was left out: {reason}")
