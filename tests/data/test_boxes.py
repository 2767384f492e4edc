"""Faces found by the detector, for a whole data set."""

import json
import shutil

import pytest
from PIL import Image

from facerwkv.core.errors import InputError
from facerwkv.data import boxes as module
from facerwkv.data.load import load_dataset
from facerwkv.data.loader import DataConfig, DataModule
from facerwkv.data.samples import read_image
from facerwkv.data.toy.scenes import render
from facerwkv.data.transforms import TransformConfig
from facerwkv.media.faces import FaceBox


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FACERWKV_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def scenes(tmp_path):
    """Three scenes with a face as files of two classes, one image without a face, and one that is none."""
    truth = {}
    for index in range(3):
        scene = render(index, "train")
        folder = tmp_path / "scenes" / "train" / ("Happy" if index else "Sad")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(scene.image).save(folder / f"{index:04d}.png")
        truth[f"train/{folder.name}/{index:04d}.png"] = scene.box
    Image.new("RGB", (200, 100), "green").save(folder / "wall.png")
    (folder / "broken.png").write_bytes(b"no image")
    return tmp_path / "scenes", truth


def load(root):
    return load_dataset(f"imagefolder:{root}", labels=["Happy", "Sad"], boxes="detect")


def keys(text):
    """The images that a store knows; a line that was cut off is none."""
    return {json.loads(line)[0] for line in text.splitlines() if line.endswith("]")}


def overlap(a, b):
    sides = [max(0, min(a[i + 2], b[i + 2]) - max(a[i], b[i])) for i in (0, 1)]
    common = sides[0] * sides[1]
    return common / (sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)) - common)


def test_each_image_gets_its_largest_face(scenes, home):
    root, truth = scenes
    dataset = load(root)
    found = {sample.name: sample.box for sample in dataset.splits["train"]}
    for name, box in truth.items():
        assert overlap(found[name], box) > 0.5
    assert found["train/Happy/wall.png"] is None
    assert any("no face in 2 of 5 images, for example train/Happy/broken.png" in text for text in dataset.problems)


def test_a_box_of_the_data_set_s_own_stays(home):
    given = load_dataset("toy:train=7,val=7,test=7", boxes="detect")
    own = load_dataset("toy:train=7,val=7,test=7")
    assert [sample.box for sample in given.splits["train"]] == [sample.box for sample in own.splits["train"]]
    assert not home.exists()


@pytest.mark.parametrize("boxes", ["detect", "boxes.csv"])
def test_each_row_of_an_image_with_several_faces_keeps_its_box(boxes, home, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "FaceDetector", lambda: lambda rgb: [FaceBox(5, 5, 50, 45, 0.6, ())])
    for name in ("a.png", "b.png"):
        Image.new("RGB", (60, 60)).save(tmp_path / name)
    rows = ["path,label,x1,y1,x2,y2", "a.png,sad,1,2,3,4", "a.png,sad,5,6,7,8", "a.png,sad", "b.png,sad"]
    (tmp_path / "list.csv").write_text("\n".join(rows))
    (tmp_path / "boxes.csv").write_text("b.png,sad,9,9,20,20")
    boxes = boxes if boxes == "detect" else tmp_path / boxes
    samples = load_dataset(f"manifest:{tmp_path}/list.csv", labels=["sad"], boxes=boxes).splits["train"]
    bare = [(5, 5, 50, 45)] * 2 if boxes == "detect" else [None, (9, 9, 20, 20)]
    assert [sample.box for sample in samples] == [(1, 2, 3, 4), (5, 6, 7, 8), *bare]


def test_what_was_found_is_not_searched_again(scenes, home, monkeypatch):
    before = [sample.box for sample in load(scenes[0]).splits["train"]]
    monkeypatch.setattr(module, "FaceDetector", None)
    assert [sample.box for sample in load(scenes[0]).splits["train"]] == before


def test_an_image_that_has_changed_is_searched_again(scenes, home):
    root, truth = scenes
    load(root)
    name = next(iter(truth))
    shutil.copy(root / "train" / "Happy" / "wall.png", root / name)
    assert {sample.name: sample.box for sample in load(root).splits["train"]}[name] is None


def test_a_search_that_was_cut_off_goes_on(scenes, home):
    before = [sample.box for sample in load(scenes[0]).splits["train"]]
    store = home / "faces.jsonl"
    whole = store.read_text()
    store.write_text(whole[: len(whole) // 2])
    assert [sample.box for sample in load(scenes[0]).splits["train"]] == before
    assert keys(store.read_text()) == keys(whole)


def test_of_several_faces_the_largest_counts(scenes, home, monkeypatch):
    faces = [FaceBox(0, 0, 9, 9, 0.9, ()), FaceBox(5, 5, 50, 45, 0.6, ()), FaceBox(60, 0, 70, 10, 0.8, ())]
    monkeypatch.setattr(module, "FaceDetector", lambda: lambda rgb: faces)
    boxes = {sample.name: sample.box for sample in load(scenes[0]).splits["train"]}
    assert boxes.pop("train/Happy/broken.png") is None
    assert set(boxes.values()) == {(5, 5, 50, 45)}


def test_a_model_of_two_inputs_gets_scene_and_face(scenes, home):
    root, _ = scenes
    transform = TransformConfig(image_size=(32, 48), crop="both")
    data = DataModule(
        DataConfig(
            source=f"imagefolder:{root}", labels=("Happy", "Sad"), boxes="detect", cache=False, val_fraction=0.5
        ),
        transform,
    )
    assert data.train.image(0).shape == (32, 48, 6)


def test_a_cache_that_may_not_be_written_is_a_sentence(scenes, home):
    home.write_text("a file where the folder should be")
    with pytest.raises(InputError, match=r"cannot be kept in .*faces\.jsonl.*FACERWKV_HOME"):
        load(scenes[0])


def test_unreadable_images_are_left_out_as_ever(scenes, home):
    broken = next(sample for sample in load(scenes[0]).splits["train"] if "broken" in sample.name)
    with pytest.raises(InputError, match="broken"):
        read_image(broken)
