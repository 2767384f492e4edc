import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from facerwkv.data import leaks as module
from facerwkv.data.leaks import NEAR, compare, copies_in_training, drop_leaks, fingerprints, look, nearest
from facerwkv.data.load import load_dataset
from facerwkv.data.samples import read_image
from tests.data import trees


def scene(seed: int, shift: float = 0.0) -> Image.Image:
    """A smooth image, brighter by `shift`."""
    coarse = np.random.default_rng(seed).uniform(30, 200, (6, 8, 3)) + shift
    return Image.fromarray(coarse.astype(np.uint8)).resize((80, 60), Image.Resampling.BICUBIC)


def find_leaks(dataset, near: bool = True):
    return compare(fingerprints(dataset.splits), near)


@pytest.fixture(autouse=True)
def home(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("FACERWKV_HOME", str(tmp_path_factory.mktemp("home")))


@pytest.fixture
def tree(tmp_path):
    """Seven classes of 3, 1 and 2 different images; then known leaks are laid into it."""
    source = trees.build("imagefolder", tmp_path)
    for split, label, number, seed, shift in (
        ("train", "happy", 90, 1, 0),  # the same scene in all three splits
        ("val", "happy", 90, 1, 0),
        ("test", "sad", 90, 1, 0),
        ("train", "fear", 91, 2, 0),  # near: brighter and compressed anew
        ("test", "fear", 91, 2, 9),
        ("train", "angry", 92, 3, 0),  # repeated in the split itself
        ("train", "angry", 93, 3, 0),
    ):
        scene(seed, shift).save(tmp_path / split / label / f"{number}.png")
    (tmp_path / "test/neutral/94.jpg").write_bytes(b"no image")
    return load_dataset(source)


def test_exact_copies_are_found_with_their_labels(tree):
    exact = find_leaks(tree).exact
    found = {pair: [(copy.name, copy.of, copy.same_label) for copy in copies] for pair, copies in exact.items()}
    assert found == {
        ("val", "train"): [("val/happy/90.png", "train/happy/90.png", True)],
        ("test", "train"): [("test/sad/90.png", "train/happy/90.png", False)],
        ("test", "val"): [("test/sad/90.png", "val/happy/90.png", False)],
    }


def test_near_copies_are_found_and_are_not_the_exact_ones(tree):
    near = {pair: [(copy.name, copy.of) for copy in copies] for pair, copies in find_leaks(tree).near.items()}
    assert near == {
        ("val", "train"): [],
        ("test", "train"): [("test/fear/91.png", "train/fear/91.png")],
        ("test", "val"): [],
    }


def test_repeats_within_a_split_are_counted(tree):
    assert find_leaks(tree, near=False).within == {"train": 1, "val": 0, "test": 0}


def test_dropping_leaks_removes_training_images_only(tree):
    clean = drop_leaks(tree)
    gone = {s.name for s in tree.splits["train"]} - {s.name for s in clean.splits["train"]}
    assert gone == {"train/happy/90.png"}
    assert [clean.splits[split] for split in ("val", "test")] == [tree.splits[split] for split in ("val", "test")]
    assert find_leaks(clean, near=False).exact[("test", "train")] == []


def test_copies_in_training_are_named(tree):
    assert copies_in_training(tree) == {"test/sad/90.png"}
    assert copies_in_training(tree, "val") == {"val/happy/90.png"}


def test_the_search_is_done_once_for_a_data_set(tree, monkeypatch):
    whole = find_leaks(tree)
    read = []
    monkeypatch.setattr(module, "read_image", lambda sample: read.append(sample.name) or read_image(sample))
    assert find_leaks(tree) == whole
    assert drop_leaks(tree).splits["val"] == tree.splits["val"]
    assert read == []
    scene(7).save(tree.root / "test/sad/90.png")
    assert find_leaks(load_dataset(f"imagefolder:{tree.root}")).exact["test", "train"] == []
    assert read == ["test/sad/90.png"]


def test_a_set_with_one_split_has_no_leaks(tmp_path):
    dataset = load_dataset(trees.build("jaffe", tmp_path))
    assert find_leaks(dataset).exact == {}
    assert drop_leaks(dataset) is dataset
    assert copies_in_training(dataset) == set()


def test_faces_of_one_image_do_not_repeat_it(tmp_path):
    assert find_leaks(load_dataset(trees.build("expw", tmp_path))).within == {"train": 0}


def test_to_dict_counts(tree):
    told = find_leaks(tree).to_dict()
    assert told["exact"]["test in train"] == {
        "images": 1,
        "same_label": 0,
        "examples": [["test/sad/90.png", "train/happy/90.png"]],
    }
    assert told["near"]["test in train"]["images"] == 1
    assert told["within"] == {"train": 1, "val": 0, "test": 0}


@pytest.mark.parametrize("value", [0, 128, 255])
def test_flat_images_have_no_look(value):
    """A thousand black frames are not half a million near copies."""
    noise = np.random.default_rng(0).integers(0, 2, (50, 50, 3))
    assert look(np.clip(value + noise, 0, 255).astype(np.uint8)) is None


def test_a_look_bears_resizing_light_and_compression(tmp_path):
    image = scene(5)
    image.resize((160, 120)).save(tmp_path / "a.jpg", quality=40)
    for other in (Image.open(tmp_path / "a.jpg"), scene(5, shift=20)):
        assert (look(np.asarray(image)) ^ look(np.asarray(other))).bit_count() <= NEAR
    assert (look(np.asarray(image)) ^ look(np.asarray(scene(6)))).bit_count() > 2 * NEAR


def test_the_nearest_is_exact_and_the_first_of_several():
    rng = np.random.default_rng(0)
    ours, theirs = (rng.integers(0, 2**63, count, dtype=np.uint64) for count in (1030, 2050))
    theirs[1500:1520] = theirs[:20]
    bits, places = nearest(ours, theirs)
    distances = np.bitwise_count(ours[:, None] ^ theirs[None])
    assert np.array_equal(bits, distances.min(1))
    assert np.array_equal(places, distances.argmin(1))


@pytest.mark.slow
def test_caer_s_size_takes_seconds():
    rng = np.random.default_rng(0)
    ours, theirs = (rng.integers(0, 2**63, count, dtype=np.uint64) for count in (20_987, 48_995))
    start = time.perf_counter()
    nearest(ours, theirs)
    assert time.perf_counter() - start < 60


@pytest.fixture(scope="session")
def fer2013(shared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fer2013")
    subprocess.run([sys.executable, shared / "data/fer2013/unpack.py", folder], check=True, capture_output=True)
    return folder


@pytest.mark.slow
def test_fer2013_has_the_known_leaks(fer2013):
    dataset = load_dataset(f"fer2013:{fer2013}")
    exact = {
        pair: (len(c), sum(each.same_label for each in c)) for pair, c in find_leaks(dataset, near=False).exact.items()
    }
    assert exact == {("val", "train"): (280, 273), ("test", "train"): (288, 279), ("test", "val"): (44, 42)}
    assert len(drop_leaks(dataset).splits["train"]) == 28_709 - 703 == 28_006
    assert len(copies_in_training(dataset)) == 288


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "train", "val", "test"), [("ferplus", 25_060, 3_199, 3_153), ("ferplus_soft", 28_153, 3_524, 3_521)]
)
def test_ferplus_has_its_size(name, train, val, test, fer2013):
    splits = load_dataset(f"{name}:{fer2013}").splits
    assert {split: len(samples) for split, samples in splits.items()} == {"train": train, "val": val, "test": test}
