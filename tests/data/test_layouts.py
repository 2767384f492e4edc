"""The layouts in which people have the data sets, beside those that their authors published."""

import csv
import io
import json
import pickle

import numpy as np
import pytest
from PIL import Image

from facerwkv.core.errors import InputError
from facerwkv.core.labels import EXPRESSIONS, EXPRESSIONS_8
from facerwkv.data.load import load_dataset
from facerwkv.data.samples import read_image
from tests.data import trees

RAF_DB = ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral")
AFFECTNET = ("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger", "contempt")
EIGHT = (*trees.FOLDERS, "contempt")


def png(seed):
    Image.fromarray(trees.noise(seed)).save(file := io.BytesIO(), "PNG")
    return file.getvalue()


def in_folders(root, splits, classes, inside=""):
    for split in splits:
        trees.folders(root / inside / split, classes, 2)


def parquet(root, classes, names=None):
    arrow, tables = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    (root / "data").mkdir()
    for split in ("train", "test"):
        images = [{"bytes": png(f"{split}{label}"), "path": None} for label in classes]
        table = arrow.table({"image": images, "label": list(classes if names is None else range(len(classes)))})
        if names:
            info = {"info": {"features": {"label": {"names": list(names), "_type": "ClassLabel"}}}}
            table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
        tables.write_table(table, root / f"data/{split}-00000-of-00001.parquet", row_group_size=3)


def yolo(root, outer):
    for number, name in enumerate(EIGHT):
        for split in ("train", "valid", "test"):
            homes = [(split, kind) if outer == "split" else (kind, split) for kind in ("images", "labels")]
            image, label = (root / "YOLO_format" / one / other for one, other in homes)
            trees.image(image / f"{name}.png", 20, 10)
            label.mkdir(parents=True, exist_ok=True)
            (label / f"{name}.txt").write_text(f"{number} 0.5 0.5 0.4 0.8\n")
    (root / "YOLO_format/data.yaml").write_text(f"nc: 8\nnames: {list(EIGHT)}\n")


def ferplus_folders(root):
    for home in ("FER2013Train", "FER2013Valid", "FER2013Test"):
        rows = []
        for label in range(8):
            trees.image(root / home / f"fer{label:07d}.png", 48, 48)
            votes = [9 * (place == label) for place in range(10)]
            rows.append([f"fer{label:07d}.png", "(0, 0, 48, 48)", *votes])
        trees.table(root / home / "label.csv", rows)


def pixels(root, file, header, usages, count=7, start=""):
    names = [name.strip(' "').lower() for name in header]
    rows = []
    for usage in usages:
        for number in range(count):
            cells = {"emotion": number, "usage": usage}
            cells["pixels"] = " ".join(map(str, trees.noise(f"{file}{usage}{number}", 48, 48).ravel()))
            rows.append([cells[name] for name in names])
    with (root / file).open("w", newline="") as out:
        out.write(start + ",".join(header) + "\r\n")
        csv.writer(out, quoting=csv.QUOTE_ALL).writerows(rows)


def jaffe_folders(root):
    trees.folders(root, trees.FOLDERS, 2, "KA{:d}.png")


TWO, THREE = ("train", "test"), ("train", "val", "test")
SEVEN_CK = sorted(set(EIGHT) - {"neutral"})
TABLE = ["emotion", "pixels", "Usage"]
LAYOUTS = {  # name → data set, how it is made, the images of each split
    "RAF-DB numbered": ("rafdb", lambda r: in_folders(r, TWO, "1234567"), (14, 0, 14)),
    "RAF-DB in DATASET": ("rafdb", lambda r: in_folders(r, TWO, "1234567", "DATASET"), (14, 0, 14)),
    "RAF-DB named": ("rafdb", lambda r: in_folders(r, TWO, trees.FOLDERS), (14, 0, 14)),
    "RAF-DB Parquet": ("rafdb", lambda r: parquet(r, trees.FOLDERS, trees.FOLDERS), (7, 0, 7)),
    "AffectNet named": ("affectnet", lambda r: in_folders(r, THREE, EIGHT), (16, 16, 16)),
    "AffectNet numbered": ("affectnet", lambda r: in_folders(r, TWO, "01234567"), (16, 0, 16)),
    "AffectNet alone": ("affectnet", lambda r: in_folders(r, ("",), EIGHT), (16, 0, 0)),
    "AffectNet YOLO": ("affectnet", lambda r: yolo(r, "split"), (8, 8, 8)),
    "AffectNet YOLO turned": ("affectnet", lambda r: yolo(r, "kind"), (8, 8, 8)),
    "AffectNet Parquet": ("affectnet", lambda r: parquet(r, EIGHT), (8, 0, 8)),
    "CAER-S valid": ("caer_s", lambda r: in_folders(r, ("train", "valid"), trees.SEVEN), (14, 14, 0)),
    "CK+ splits": ("ck48", lambda r: in_folders(r, TWO, SEVEN_CK), (14, 0, 14)),
    "CK+ extended": ("ck48", lambda r: pixels(r, "ckextended.csv", TABLE, trees.USAGES, 8), (8, 8, 8)),
    "FER2013 train": ("fer2013", lambda r: pixels(r, "train.csv", TABLE[:2], ("",)), (7, 0, 0)),
    "FER2013 icml": (
        "fer2013",
        lambda r: pixels(r, "icml_face_data.csv", ["emotion", " Usage", " pixels"], trees.USAGES),
        (7, 7, 7),
    ),
    "FER2013 BOM": (
        "fer2013",
        lambda r: pixels(r, "fer2013.csv", [f'"{name}"' for name in TABLE], trees.USAGES, 7, "\ufeff"),
        (7, 7, 7),
    ),
    "FERPlus folders": ("ferplus", ferplus_folders, (8, 8, 8)),
    "JAFFE folders": ("jaffe", jaffe_folders, (14, 0, 0)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_read(layout, tmp_path):
    name, make, expected = LAYOUTS[layout]
    make(tmp_path)
    dataset = load_dataset(f"{name}:{tmp_path}")
    assert tuple(len(dataset.splits.get(split, ())) for split in THREE) == expected
    assert dataset.problems == []
    for samples in dataset.splits.values():
        assert {sample.label for sample in samples} == set(dataset.labels)
        assert read_image(pickle.loads(pickle.dumps(samples[0]))).dtype == np.uint8


NUMBERED = [("RAF-DB numbered", 1, RAF_DB), ("AffectNet numbered", 0, AFFECTNET)]


@pytest.mark.parametrize(("layout", "first", "names"), NUMBERED)
def test_numbered_folders_are_the_data_set_s_own_numbers(layout, first, names, tmp_path):
    name, make, _ = LAYOUTS[layout]
    make(tmp_path)
    found = {each.attributes["native"]: each.label for each in load_dataset(f"{name}:{tmp_path}").splits["train"]}
    assert found == {str(number): name for number, name in enumerate(names, first)}


def test_extended_ck_has_all_eight_classes_in_order(tmp_path):
    LAYOUTS["CK+ extended"][1](tmp_path)
    dataset = load_dataset(f"ck48:{tmp_path}")
    assert dataset.labels == EXPRESSIONS_8
    assert [each.label for each in dataset.splits["test"]][-2:] == ["neutral", "contempt"]


def test_a_row_of_parquet_is_its_image(tmp_path):
    parquet(tmp_path, trees.FOLDERS)
    samples = load_dataset(f"manifest:{tmp_path}/data/test-00000-of-00001.parquet").splits["test"]
    assert np.array_equal(read_image(samples[4])[..., 0], trees.noise("testneutral"))
    assert samples[4].name == "test-00000-of-00001.parquet:4"


def test_numbers_without_names_are_refused(tmp_path):
    yolo(tmp_path, "split")
    (tmp_path / "YOLO_format/data.yaml").unlink()
    with pytest.raises(InputError, match=r"are numbers without names\. Add a file data\.yaml"):
        load_dataset(f"affectnet:{tmp_path}")


def test_yolo_boxes_are_pixels(tmp_path):
    yolo(tmp_path, "split")
    sample = load_dataset(f"affectnet:{tmp_path}").splits["train"][0]
    assert sample.box == pytest.approx((3, 2, 7, 18))


@pytest.mark.parametrize("name", ["rafdb", "caer_s", "affectnet", "fer2013", "ck48"])
def test_another_layout_is_refused_with_what_is_there(name, tmp_path):
    (tmp_path / "stuff").mkdir()
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match=rf"Expected layout of {name}: .* Found there: notes\.txt, stuff/\."):
        load_dataset(f"{name}:{tmp_path}")


EXCEL = [
    "\ufeffpath,label,split\r\nsub\\0.png,happy,train\r\nsub\\1.png,sad,train\r\n,,\r\n",
    "Path;Label;Split\r\nsub\\0.png;happy;train\r\nsub\\1.png;sad;train\r\n;;\r\n\r\n",
    "path\tlabel\nsub/0.png\thappy\n\nsub/1.png\tsad\n",
    '"path","label"\n"sub\\0.png","happy"\n"sub\\1.png","sad"\n   \n',
]


@pytest.mark.parametrize("text", EXCEL)
def test_a_manifest_as_excel_writes_it(text, tmp_path):
    for number in range(2):
        trees.image(tmp_path / f"sub/{number}.png")
    (tmp_path / "list.csv").write_bytes(text.encode())
    dataset = load_dataset(f"manifest:{tmp_path}/list.csv", labels=("happy", "sad"))
    assert ([each.label for each in dataset.splits["train"]], dataset.problems) == (["happy", "sad"], [])


BOXES = {
    "two files": {"train.txt": "Anger/0001.png,0,1,2,5,6", "test.txt": "Anger/0001.png,0,2,3,6,7"},
    "spaces": {"a.txt": "train/Anger/0001.png 0 1 2 5 6\ntest/Angry/0001.png 0 2 3 6 7"},
    "spaces, no label": {"a.txt": "train/Anger/0001.png 1 2 5 6\ntest/Angry/0001.png 2 3 6 7"},
    "sizes by the header": {"a.csv": "path,x,y,w,h\ntrain/Anger/0001.png,1,2,4,4\ntest/Angry/0001.png,2,3,4,4"},
    "sizes": {"a.txt": "train/Anger/0001.png,0,11,12,4,4\ntest/Anger/0001.png,0,12,13,4,4"},
}


@pytest.mark.parametrize("kind", BOXES)
def test_boxes_in_the_forms_that_they_have(kind, tmp_path):
    source = trees.build("caer_s", tmp_path / "set")
    (tmp_path / "boxes").mkdir()
    for file, text in BOXES[kind].items():
        (tmp_path / "boxes" / file).write_text(text)
    dataset = load_dataset(source, boxes=tmp_path / "boxes")
    boxes = [next(each.box for each in dataset.splits[split] if each.box) for split in ("train", "test")]
    assert boxes == ([(11, 12, 15, 16), (12, 13, 16, 17)] if kind == "sizes" else [(1, 2, 5, 6), (2, 3, 6, 7)])
    assert any("is read as x, y, width, height" in each for each in dataset.problems) == (kind == "sizes")


@pytest.mark.parametrize("saved", [True, False])
def test_a_folder_that_the_library_datasets_reads(saved, tmp_path):
    library = pytest.importorskip("datasets", reason="the extra hf is not installed")
    in_folders(tmp_path / "images", ("train", "test"), trees.FOLDERS)
    place = tmp_path / "images"
    if saved:
        library.load_dataset(str(place), cache_dir=str(tmp_path / "cache")).save_to_disk(place := tmp_path / "saved")
    dataset = load_dataset(f"hf:{place}")
    assert {split: len(samples) for split, samples in dataset.splits.items()} == {"train": 14, "test": 14}
    assert dataset.labels == EXPRESSIONS
    assert read_image(pickle.loads(pickle.dumps(dataset.splits["train"][0]))).shape == (12, 10, 3)


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(InputError, match=r'hf:org/name needs datasets: pip install "facerwkv\[hf\]"'):
        load_dataset("hf:org/name")
