import errno
import multiprocessing
import os
import pickle
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
from facerwkv.data.cache import open_cache, remove_caches
from facerwkv.data.config import DataConfig
from facerwkv.data.loader import DataModule, ImageDataset
from facerwkv.data.samples import Sample, read_image
from facerwkv.data.toy.scenes import toy_samples
from facerwkv.data.transforms import EvalTransform, TransformConfig
from tests.commands import facerwkv
from tests.data import trees

FORK = multiprocessing.get_context("fork")
CONFIG = TransformConfig(image_size=(10, 12))


def pixels(number, height=16, width=20):
    return np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)


@dataclass(frozen=True, repr=False)
class Drawn:
    """An image that is made when it is asked for."""

    number: int
    seconds: float = 0.0

    def __repr__(self):
        return f"image {self.number}"

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


def stacked(cache, rows=None):
    return np.stack([cache.image(row) for row in (range(len(cache.rows)) if rows is None else rows)])


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
    assert cache.image(0).dtype == np.uint8
    assert np.array_equal(stacked(cache), expected(3))
    assert not cache.unreadable
    assert {path.suffix for path in cache.folder.iterdir()} == {".bin", ".json"}


def test_more_images_than_one_chunk_stay_in_order(tmp_path):
    assert np.array_equal(stacked(open_cache(drawn(150), CONFIG, tmp_path)), expected(150))


def test_faces_are_cut_out_by_their_boxes(tmp_path):
    config = TransformConfig(image_size=(6, 6), crop="face", margin=0)
    sample = Sample("face", pixels(0), "fear", box=(3, 4, 9, 10))
    assert np.array_equal(open_cache([sample], config, tmp_path).image(0), pixels(0)[4:10, 3:9])


def test_a_cache_that_is_there_is_not_built_again(tmp_path):
    Counted.calls = 0
    for _ in range(3):
        cache = open_cache(drawn(kind=Counted), CONFIG, tmp_path)
    assert Counted.calls == 5
    assert np.array_equal(stacked(cache), expected())


FACE = TransformConfig(image_size=(10, 12), crop="face")
BOXED = [Sample("a", pixels(0), "fear", box=(1, 1, 5, 5)), Sample("b", pixels(1), "fear")]
OTHERS = {  # what is asked for after BOXED under CONFIG, and how many images are then added
    "the same": (BOXED, CONFIG, 0),
    "in another order": (BOXED[::-1], CONFIG, 0),
    "fewer": (BOXED[:1], CONFIG, 0),
    "one more": ([*BOXED, Sample("c", pixels(2), "fear")], CONFIG, 1),
    "under other names": ([replace(BOXED[0], label="anger", name="c", box=None), BOXED[1]], CONFIG, 0),
    "normalised otherwise": (BOXED, CONFIG.model_copy(update={"mean": (0.5,), "std": (2.0,)}), 0),
    "other pixels": ([BOXED[0], Sample("b", pixels(2), "fear")], CONFIG, 1),
    "another shape": ([BOXED[0], Sample("b", pixels(1).reshape(20, 16, 3), "fear")], CONFIG, 1),
    "faces": (BOXED, FACE, 2),
    "grey": (BOXED, CONFIG.model_copy(update={"in_chans": 1}), 2),
    "turned": (BOXED, CONFIG.model_copy(update={"image_size": (12, 10)}), 2),
    "aliased": (BOXED, CONFIG.model_copy(update={"interpolation": "bilinear_aliased"}), 2),
}


@pytest.mark.parametrize(("samples", "config", "added"), OTHERS.values(), ids=OTHERS)
def test_only_what_is_not_there_is_decoded(tmp_path, monkeypatch, samples, config, added):
    open_cache(BOXED, CONFIG, tmp_path)
    read = []
    monkeypatch.setattr(cache, "read_image", lambda sample: read.append(sample) or read_image(sample))
    found = stacked(open_cache(samples, config, tmp_path))
    assert len(read) == added
    assert np.array_equal(found, [EvalTransform(config)(read_image(each), each.box) for each in samples])


def test_a_face_s_other_box_is_another_image(tmp_path):
    open_cache(BOXED, FACE, tmp_path)
    other = [replace(BOXED[0], box=(1, 1, 5, 6)), BOXED[1]]
    found = open_cache(other, FACE, tmp_path)
    assert found.rows.tolist() == [[1, 0], [0, 1]]
    assert np.array_equal(found.image(0), EvalTransform(FACE)(pixels(0), (1, 1, 5, 6)))


def test_data_sets_have_stores_of_their_own(tmp_path):
    stores = {open_cache(drawn(), CONFIG, tmp_path, source=source).folder for source in ("a:/x", "a:/y", "a:/x")}
    assert len(stores) == 2


def test_a_file_that_changed_is_read_again(tmp_path, files):
    open_cache(files, CONFIG, tmp_path)
    Image.fromarray(pixels(7)).save(files[1].image)
    os.utime(files[1].image, ns=(1, 1))
    assert np.array_equal(open_cache(files, CONFIG, tmp_path).image(1), EvalTransform(CONFIG)(pixels(7)))


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
        assert np.array_equal(stacked(cache, (0, 2)), expected(3)[[0, 2]])


def test_nothing_readable_is_an_error_and_leaves_nothing(tmp_path):
    samples = [Sample(name, tmp_path / name, "fear") for name in ("a.png", "b.png")]
    with pytest.raises(InputError, match=r"None of the 2 train images can be read\. The first: .*a\.png"):
        open_cache(samples, CONFIG, tmp_path / "cache", "train images")


DAMAGE = {
    "cut short": lambda path: os.truncate(path, path.stat().st_size - 1),
    "empty": lambda path: os.truncate(path, 0),
    "gone": lambda path: path.unlink(),
    "no json": lambda path: path.with_suffix(".json").write_text("{"),
    "odd json": lambda path: path.with_suffix(".json").write_text('{"keys": 1, "unreadable": {}}'),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_shard_is_built_again_with_a_note_and_the_others_stay(tmp_path, monkeypatch, caplog, damage):
    monkeypatch.setattr(cache, "SHARD", 3 * 360)  # three images
    store, Counted.calls = open_cache(drawn(8, Counted), CONFIG, tmp_path).folder, 0
    damage(store / "00001.bin")
    assert np.array_equal(stacked(open_cache(drawn(8, Counted), CONFIG, tmp_path)), expected(8))
    assert Counted.calls == 3
    assert f"The cache {store / '00001.bin'} is damaged" in caplog.text
    caplog.clear()
    open_cache(drawn(8), CONFIG, tmp_path)
    assert not caplog.records


def test_a_disk_that_is_too_small_is_refused_before_anything_is_read(tmp_path):
    samples = drawn(50_000)
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


def test_a_disk_that_fills_up_keeps_what_was_written(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "SHARD", 50 * 360)

    def full(path, *arguments, **options):
        if path.name == "00002.bin":
            raise OSError(errno.ENOSPC, "No space left on device")
        return opened(path, *arguments, **options)

    opened = Path.touch
    with monkeypatch.context() as patch:
        patch.setattr(Path, "touch", lambda path, **options: full(path.with_name(path.name[1:10]), **options))
        with pytest.raises(InputError, match=r"No space left.*100 of 200 images were added and stay.*36,000 bytes"):
            open_cache(drawn(200), CONFIG, tmp_path)
    Counted.calls = 0
    assert np.array_equal(stacked(open_cache(drawn(200, Counted), CONFIG, tmp_path)), expected(200))
    assert Counted.calls == 200 - 100


def test_an_interrupted_build_goes_on_where_it_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "SHARD", 64 * 360)

    class Interrupted(Drawn):
        def __call__(self):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_cache([*drawn(70), Sample("stop", Interrupted(70), "fear")], CONFIG, tmp_path)
    assert open_cache(drawn(64), CONFIG, tmp_path).rows.tolist() == [[0, row] for row in range(64)]
    assert not list(tmp_path.rglob("*.part"))


def test_a_build_that_was_killed_goes_on_after_its_last_shard(tmp_path, monkeypatch):
    samples, config = drawn(200, seconds=0.01), TransformConfig(image_size=(64, 64))
    monkeypatch.setattr(cache, "SHARD", 64 * 64 * 64 * 3)
    process = FORK.Process(target=open_cache, args=(samples, config, tmp_path))
    process.start()
    while not list(tmp_path.glob("*/00000.json")):
        assert process.is_alive()
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    Counted.calls = 0
    built = open_cache(drawn(200, Counted), config, tmp_path)
    assert Counted.calls <= 200 - 64
    assert np.array_equal(stacked(built), expected(200, config))
    assert not list(tmp_path.glob("*/.*"))  # the killed build's file is cleared away


def test_of_two_processes_one_builds_and_the_other_waits(tmp_path):
    def build(results):
        Counted.calls = 0
        cache = open_cache(drawn(40, Counted, seconds=0.01), CONFIG, tmp_path)
        results.put((Counted.calls, np.array_equal(stacked(cache), expected(40))))

    results = FORK.Queue()
    processes = [FORK.Process(target=build, args=(results,)) for _ in range(2)]
    for process in processes:
        process.start()
    got = sorted(results.get(timeout=60) for _ in processes)
    for process in processes:
        process.join()
    assert got == [(0, True), (40, True)]


def test_a_cache_travels_between_processes_without_its_images(tmp_path):
    stored = open_cache(drawn(100), CONFIG, tmp_path)
    sent = pickle.dumps(stored)
    assert len(sent) < 2000
    assert np.array_equal(stacked(pickle.loads(sent)), stacked(stored))


def test_images_of_a_removed_store_are_decoded(tmp_path):
    data = ImageDataset(drawn(3), ["fear"], CONFIG, open_cache(drawn(3), CONFIG, tmp_path))
    remove_caches(tmp_path, [], everything=True)
    assert np.array_equal(data.image(1), expected(3)[1])


def test_the_default_folder_follows_the_environment_at_call_time(monkeypatch, tmp_path):
    monkeypatch.setenv("FACERWKV_HOME", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("FACERWKV_HOME")
    assert cache_folder() == Path.home() / ".cache" / "facerwkv"


def test_many_drawn_images_come_from_processes_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "MANY_DRAWN", 6)
    assert np.array_equal(stacked(open_cache(drawn(5), CONFIG, tmp_path / "threads")), expected(5))
    assert np.array_equal(stacked(open_cache(drawn(70), CONFIG, tmp_path / "processes")), expected(70))


@pytest.mark.timeout(120)
def test_processes_draw_also_after_opencv_and_torch_have_run_threads_here(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "MANY_DRAWN", 4)
    threads = cv2.getNumThreads()
    cv2.setNumThreads(4)
    torch.rand(2000, 2000).exp().sum()
    samples = toy_samples(counts={"train": 8, "val": 0, "test": 0})["train"]
    first = EvalTransform(CONFIG)(samples[0].image())
    assert np.array_equal(open_cache(samples, CONFIG, tmp_path).image(0), first)
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
    assert np.array_equal(stacked(open_cache(samples, CONFIG, tmp_path)), np.stack(drawn))


def test_splits_seeds_and_models_share_one_store_that_is_listed_and_removed(tmp_path):
    trees.folders(tmp_path / "own", ("happy", "sad"), 20)
    kept = tmp_path / "kept"
    source = f"imagefolder:{tmp_path}/own"
    for seed, how in ((0, "random"), (1, "random"), (2, "contiguous")):
        config = DataConfig(source=source, labels=("auto",), validation=how, cache=str(kept))
        data = DataModule(config, CONFIG, seed)
        assert data.train.cache.folder == data.val.cache.folder
    size, bin_files = 10 * 12 * 3, list(kept.glob("*/*.bin"))
    assert sum(path.stat().st_size for path in bin_files) == 40 * size
    listed = facerwkv("data", "cache", "list", "--folder", kept).stdout.splitlines()
    assert [line.split("  ")[-1] for line in listed[:-1]] == [f"40 images, 10 x 12 x 3, of {source}"]
    assert "Name the caches" in facerwkv("data", "cache", "remove", "--folder", kept).stderr
    assert "no cache 'zz'" in facerwkv("data", "cache", "remove", "zz", "--folder", kept).stderr
    with cache._locked(next(kept.glob("*/"))):
        assert (
            "Another process builds the cache" in facerwkv("data", "cache", "remove", "--all", "--folder", kept).stderr
        )
    assert facerwkv("data", "cache", "remove", listed[0][:6], "--folder", kept).stdout == "Removed 1: 0.0 MB\n"
    assert not list(kept.iterdir())
