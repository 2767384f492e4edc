import json
import multiprocessing
import os
import pickle
import resource
import signal
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from facerwkv.core.errors import InputError
from facerwkv.core.files import cache_folder
from facerwkv.data import cache
from facerwkv.data.cache import open_cache
from facerwkv.data.load import load_dataset
from facerwkv.data.samples import Sample
from facerwkv.data.toy.scenes import toy_samples
from facerwkv.data.transforms import EvalTransform, TransformConfig
from tests.commands import facerwkv
from tests.data import trees

FORK = multiprocessing.get_context("fork")
CONFIG = TransformConfig(image_size=(10, 12))


def pixels(number, height=16, width=20):
    return np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)


@dataclass(frozen=True)
class Drawn:
    """An image that is made when it is asked for."""

    number: int
    seconds: float = 0.0

    def __call__(self):
        time.sleep(self.seconds)
        return pixels(self.number)


class Counted(Drawn):
    calls = 0

    def __call__(self):
        Counted.calls += 1
        return super().__call__()


def drawn(count=5, kind=Drawn, **options):
    return [Sample(f"{number}", kind(number, **options), "fear") for number in range(count)]


def expected(count=5, config=CONFIG):
    return np.stack([EvalTransform(config)(pixels(number)) for number in range(count)])


@pytest.fixture
def files(tmp_path):
    """Three images on the disk, as samples."""
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for number, path in enumerate(paths):
        Image.fromarray(pixels(number)).save(path)
    return [Sample(path.name, path, "fear") for path in paths]


def test_it_holds_the_transformed_images_of_files_arrays_and_renderers(tmp_path, files):
    samples = [files[0], Sample("array", pixels(1), "fear"), drawn(3)[2]]
    cache = open_cache(samples, CONFIG, tmp_path / "cache")
    assert cache.array.dtype == np.uint8
    assert np.array_equal(cache.array, expected(3))
    assert not cache.unreadable
    assert not cache.array.flags.writeable
    assert {path.suffix for path in (tmp_path / "cache").iterdir()} <= {".npy", ".json", ".lock"}


def test_more_images_than_one_chunk_stay_in_order(tmp_path):
    assert np.array_equal(open_cache(drawn(150), CONFIG, tmp_path).array, expected(150))


def test_faces_are_cut_out_by_their_boxes(tmp_path):
    config = TransformConfig(image_size=(6, 6), crop="face", margin=0)
    sample = Sample("face", pixels(0), "fear", box=(3, 4, 9, 10))
    assert np.array_equal(open_cache([sample], config, tmp_path).array[0], pixels(0)[4:10, 3:9])


def test_a_cache_that_is_there_is_not_built_again(tmp_path):
    Counted.calls = 0
    for _ in range(3):
        cache = open_cache(drawn(kind=Counted), CONFIG, tmp_path)
    assert Counted.calls == 5
    assert np.array_equal(cache.array, expected())


FACE = TransformConfig(image_size=(10, 12), crop="face")
BOXED = [Sample("a", pixels(0), "fear", box=(1, 1, 5, 5)), Sample("b", pixels(1), "fear")]
SAME = [  # samples, transform, and others with the same images
    (BOXED, CONFIG, [replace(BOXED[0], label="anger", name="c", box=None), BOXED[1]], CONFIG),
    (BOXED, CONFIG, BOXED, CONFIG.model_copy(update={"mean": (0.5,), "std": (2.0,)})),
]
DIFFERENT = [
    (BOXED, CONFIG, BOXED[::-1], CONFIG),
    (BOXED, CONFIG, BOXED[:1], CONFIG),
    (BOXED, CONFIG, [BOXED[0], Sample("b", pixels(2), "fear")], CONFIG),
    (BOXED, CONFIG, [BOXED[0], Sample("b", pixels(1).reshape(20, 16, 3), "fear")], CONFIG),
    (BOXED, FACE, [replace(BOXED[0], box=(1, 1, 5, 6)), BOXED[1]], FACE),
    (BOXED, FACE, BOXED, FACE.model_copy(update={"margin": 0.3})),
    (BOXED, CONFIG, BOXED, CONFIG.model_copy(update={"in_chans": 1})),
    (BOXED, CONFIG, BOXED, CONFIG.model_copy(update={"image_size": (12, 10)})),
    (drawn(2), CONFIG, [drawn(2)[0], drawn(3)[2]], CONFIG),
]


@pytest.mark.parametrize(("samples", "config", "others", "changed"), SAME)
def test_what_does_not_touch_the_pixels_keeps_the_cache(tmp_path, samples, config, others, changed):
    assert open_cache(samples, config, tmp_path).path == open_cache(others, changed, tmp_path).path


@pytest.mark.parametrize(("samples", "config", "others", "changed"), DIFFERENT)
def test_what_touches_the_pixels_makes_another(tmp_path, samples, config, others, changed):
    assert open_cache(samples, config, tmp_path).path != open_cache(others, changed, tmp_path).path


def test_a_file_that_changed_is_read_again(tmp_path, files):
    open_cache(files, CONFIG, tmp_path)
    Image.fromarray(pixels(7)).save(files[1].image)
    os.utime(files[1].image, ns=(1, 1))
    assert np.array_equal(open_cache(files, CONFIG, tmp_path).array[1], EvalTransform(CONFIG)(pixels(7)))


def test_unreadable_images_are_listed_and_the_others_stay_in_place(tmp_path, files):
    Path(files[1].image).write_bytes(b"")
    missing = Sample("gone.png", tmp_path / "gone.png", "fear")
    misplaced = Sample("odd", pixels(4), "fear", box=(90, 90, 99, 99))
    config = TransformConfig(image_size=(10, 12), crop="face")
    for _ in range(2):  # built, then found
        cache = open_cache([*files, missing, misplaced], config, tmp_path)
        assert list(cache.unreadable) == [1, 3, 4]
        assert "1.png cannot be read" in cache.unreadable[1]
        assert "gone.png cannot be read" in cache.unreadable[3]
        assert cache.unreadable[4].startswith("odd: The box (90, 90, 99, 99)")
        assert np.array_equal(cache.array[[0, 2]], expected(3)[[0, 2]])


def test_nothing_readable_is_an_error_and_leaves_nothing(tmp_path):
    samples = [Sample(name, tmp_path / name, "fear") for name in ("a.png", "b.png")]
    with pytest.raises(InputError, match=r"None of the 2 train images can be read\. The first: .*a\.png"):
        open_cache(samples, CONFIG, tmp_path / "cache", "train images")
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] in ([], [".lock"])


DAMAGE = {
    "cut short": lambda path: os.truncate(path, path.stat().st_size - 1),
    "empty": lambda path: os.truncate(path, 0),
    "no array": lambda path: path.write_bytes(b"x" * path.stat().st_size),
    "another array": lambda path: np.save(path, np.zeros((5, 10, 12, 1), np.uint8)),
    "a pickle": lambda path: np.save(path, np.array([{}], dtype=object)),
    "gone": lambda path: path.unlink(),
    "no json": lambda path: path.with_suffix(".json").write_text("{"),
    "odd json": lambda path: path.with_suffix(".json").write_text('{"unreadable": [1]}'),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_cache_is_built_again_with_a_note(tmp_path, caplog, damage):
    damage(open_cache(drawn(), CONFIG, tmp_path).path)
    cache = open_cache(drawn(), CONFIG, tmp_path)
    assert np.array_equal(cache.array, expected())
    assert f"The cache {cache.path} is damaged" in caplog.text
    caplog.clear()
    open_cache(drawn(), CONFIG, tmp_path)
    assert not caplog.records


def test_a_disk_that_is_too_small_is_refused_before_anything_is_read(tmp_path):
    samples = [Sample("huge", pixels(0, 1, 1), "fear")] * 50_000
    config = TransformConfig(image_size=(10_000, 10_000))
    with pytest.raises(InputError) as caught:
        open_cache(samples, config, tmp_path)
    message = str(caught.value)
    assert "The cache of 50000 images needs 15,000,000,000,000 bytes" in message
    assert all(way in message for way in ("data.cache=false", "transform.image_size", "data.cache=FOLDER"))


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=rf"Cannot write the cache in {tmp_path}/file/cache.*data\.cache=FOLDER"):
        open_cache(drawn(), CONFIG, tmp_path / "file" / "cache")


def test_a_disk_that_fills_up_leaves_nothing(tmp_path):
    def build():
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        try:
            open_cache(drawn(200), CONFIG, tmp_path)
        except InputError as error:
            os._exit(0 if "Cannot write" in str(error) else 1)
        os._exit(2)

    process = FORK.Process(target=build)
    process.start()
    process.join()
    assert process.exitcode == 0
    assert [path.suffix for path in tmp_path.iterdir()] in ([], [".lock"])


def test_an_interrupted_build_leaves_nothing(tmp_path):
    class Interrupted(Drawn):
        def __call__(self):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_cache([*drawn(3), Sample("stop", Interrupted(3), "fear")], CONFIG, tmp_path)
    assert [path.suffix for path in tmp_path.iterdir()] in ([], [".lock"])


def test_a_build_that_was_killed_does_not_count_and_the_next_one_is_right(tmp_path):
    samples, config = drawn(300, seconds=0.01), TransformConfig(image_size=(64, 64))
    process = FORK.Process(target=open_cache, args=(samples, config, tmp_path))
    process.start()
    while not any(path.stat().st_size > 500_000 for path in tmp_path.glob("*.part")):
        assert process.is_alive()
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not list(tmp_path.glob("*.npy"))
    cache = open_cache(samples, config, tmp_path)
    assert np.array_equal(cache.array, expected(300, config))
    assert not list(tmp_path.glob(".*"))  # the killed build's file is cleared away


def test_of_two_processes_one_builds_and_the_other_waits(tmp_path):
    def build(results):
        Counted.calls = 0
        cache = open_cache(drawn(40, Counted, seconds=0.01), CONFIG, tmp_path)
        results.put((Counted.calls, np.array_equal(cache.array, expected(40))))

    results = FORK.Queue()
    processes = [FORK.Process(target=build, args=(results,)) for _ in range(2)]
    for process in processes:
        process.start()
    got = sorted(results.get(timeout=60) for _ in processes)
    for process in processes:
        process.join()
    assert got == [(0, True), (40, True)]


def test_a_cache_travels_between_processes_as_a_path(tmp_path):
    cache = open_cache(drawn(100), CONFIG, tmp_path)
    assert cache.array.nbytes > 30_000
    sent = pickle.dumps(cache)
    assert len(sent) < 1000
    assert np.array_equal(pickle.loads(sent).array, cache.array)


def test_the_notes_beside_it_are_plain_json(tmp_path):
    cache = open_cache(drawn(), CONFIG, tmp_path)
    assert json.loads(cache.path.with_suffix(".json").read_text()) == {
        "format": 1,
        "unreadable": {},
        "about": "5 images, 10 x 12, from 0",
    }


def test_the_default_folder_follows_the_environment_at_call_time(monkeypatch, tmp_path):
    monkeypatch.setenv("FACERWKV_HOME", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("FACERWKV_HOME")
    assert cache_folder() == Path.home() / ".cache" / "facerwkv"


def test_many_drawn_images_come_from_processes_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "MANY_DRAWN", 6)
    assert np.array_equal(open_cache(drawn(5), CONFIG, tmp_path / "threads").array, expected(5))
    assert np.array_equal(open_cache(drawn(70), CONFIG, tmp_path / "processes").array, expected(70))


@pytest.mark.timeout(120)
def test_processes_draw_also_after_opencv_and_torch_have_run_threads_here(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "MANY_DRAWN", 4)
    threads = cv2.getNumThreads()
    cv2.setNumThreads(4)
    torch.rand(2000, 2000).exp().sum()
    samples = toy_samples(counts={"train": 8, "val": 0, "test": 0})["train"]
    first = EvalTransform(CONFIG)(samples[0].image())
    assert np.array_equal(open_cache(samples, CONFIG, tmp_path).array[0], first)
    assert cv2.getNumThreads() == 4
    cv2.setNumThreads(threads)


@pytest.mark.slow
@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_what_workers_get_reaches_them_however_processes_start(tmp_path, monkeypatch, method):
    monkeypatch.setattr(cache, "MANY_DRAWN", 4)
    monkeypatch.setattr(cache, "cores", lambda: 1)
    monkeypatch.setattr(cache, "DataLoader", partial(DataLoader, multiprocessing_context=method))
    samples = toy_samples(counts={"train": 7, "val": 0, "test": 0})["train"]
    drawn = [EvalTransform(CONFIG)(sample.image()) for sample in samples]
    assert np.array_equal(open_cache(samples, CONFIG, tmp_path).array, np.stack(drawn))


def test_caches_are_listed_and_removed(tmp_path):
    trees.folders(tmp_path / "own", ("happy", "sad"), 2)
    samples = load_dataset(f"imagefolder:{tmp_path}/own", labels=["auto"]).splits["train"]
    for size in (8, 16):
        open_cache(samples, TransformConfig(image_size=(size, size)), tmp_path / "kept")
    (tmp_path / "kept/abc.npy").write_bytes(b"cut off")
    listed = facerwkv("data", "cache", "list", "--folder", tmp_path / "kept").stdout.splitlines()
    assert sorted(line.split("  ")[-1] for line in listed[:-1]) == [
        "4 images, 16 x 16, from happy/0001.png",
        "4 images, 8 x 8, from happy/0001.png",
        "not whole: its build did not end",
    ]
    assert "Name the caches" in facerwkv("data", "cache", "remove", "--folder", tmp_path / "kept").stderr
    assert "no cache 'zz'" in facerwkv("data", "cache", "remove", "zz", "--folder", tmp_path / "kept").stderr
    assert facerwkv("data", "cache", "remove", "abc", "--folder", tmp_path / "kept").stdout == "Removed 1: 0.0 MB\n"
    facerwkv("data", "cache", "remove", "--all", "--folder", tmp_path / "kept")
    assert list((tmp_path / "kept").glob("*.npy")) == list((tmp_path / "kept").glob("*.json")) == []
