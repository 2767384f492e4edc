"""How crops of several images become batches, and images complete."""

from concurrent.futures import wait

import numpy as np
import pytest

from facerwkv.core.errors import InputError
from facerwkv.inference.batcher import Batcher, even_batch
from facerwkv.inference.options import Options
from facerwkv.inference.results import Crop, Face, Opened


def opened(name: str, faces: int, **options) -> Opened:
    crop = Crop(None, None, np.zeros((2, 2, 1), np.uint8))
    return Opened({"source": name, "status": "ok"}, [crop] * faces, Options(**options))


class Counting:
    """Classifies, and keeps the sizes of its batches; the label is the crop's number since the start."""

    def __init__(self):
        self.sizes = []

    def __call__(self, crops, options):
        assert len(crops) == len(options)
        done = sum(self.sizes)
        self.sizes.append(len(crops))
        return [Face(str(done + i), 1.0, {}, threshold=each.threshold) for i, each in enumerate(options)]


def joined(batcher: Batcher, images: list[Opened], size: int):
    for image in images:
        entry = batcher.join(size)
        batcher.put(entry, image)
        yield entry.future


@pytest.mark.parametrize(
    ("faces", "size", "most", "sizes"),
    [
        ([1] * 7, 3, 3, [3, 3, 1]),
        ([2] * 5, 4, 4, [4, 4, 2]),
        ([3] * 4, 4, 4, [3, 3, 3, 3]),
        ([3] * 4, 4, 8, [6, 6]),
        ([100], 4, 32, [25] * 4),
        ([0, 1, 0], 2, 2, [1]),
        ([0, 0], 2, 2, []),
    ],
)
def test_images_share_batches_of_one_size(faces, size, most, sizes):
    classify = Counting()
    batcher = Batcher(classify, most)
    futures = list(joined(batcher, [opened(str(i), count) for i, count in enumerate(faces)], size))
    batcher.flush()
    assert classify.sizes == sizes
    results = [future.result(0) for future in futures]
    assert [result.source for result in results] == [str(i) for i in range(len(faces))]
    assert [len(result.faces) for result in results] == faces
    labels = [face.label for result in results for face in result.faces]
    assert labels == [str(i) for i in range(sum(faces))]


def test_every_image_keeps_its_own_options():
    batcher = Batcher(Counting(), 8)
    images = [opened(str(share), 2, threshold=share) for share in (0.25, 0.75)]
    results = [future.result(0) for future in list(joined(batcher, images, 4))]
    assert [[face.threshold for face in result.faces] for result in results] == [[0.25] * 2, [0.75] * 2]


def test_a_batch_has_images_in_the_order_in_which_they_joined():
    classify = Counting()
    batcher = Batcher(classify, 8)
    first, second, third = (batcher.join(2) for _ in range(3))
    batcher.put(third, opened("third", 1))
    batcher.put(second, opened("second", 1))
    assert [second.future.done(), third.future.done()] == [False, False]
    batcher.put(first, opened("first", 1))
    assert [first.future.result(0).faces[0].label, second.future.result(0).faces[0].label] == ["0", "1"]
    assert not third.future.done()
    batcher.flush()
    assert third.future.result(0).faces[0].label == "2"


def test_an_image_that_is_opened_for_too_long_is_left_behind():
    batcher = Batcher(Counting(), 8)
    slow, fast = batcher.join(2), batcher.join(2)
    batcher.put(fast, opened("fast", 1))
    batcher.leave_behind(60)
    assert batcher.waits
    assert not fast.future.done()
    batcher.leave_behind(0)
    assert fast.future.result(0).source == "fast"
    batcher.put(slow, opened("slow", 2))
    assert len(slow.future.result(0).faces) == 2
    assert not batcher.waits


def test_what_goes_wrong_reaches_those_whom_it_concerns():
    def broken(crops, options):
        raise InputError("broken")

    batcher = Batcher(broken, 8)
    bad, face, empty = batcher.join(3), batcher.join(3), batcher.join(3)
    batcher.put(bad, ValueError("unreadable"))
    batcher.put(face, opened("face", 1))
    batcher.put(empty, opened("empty", 0))
    wait([bad.future, face.future, empty.future], 1)
    assert str(bad.future.exception()) == "unreadable"
    assert str(face.future.exception()) == "broken"
    assert empty.future.result().source == "empty"


@pytest.mark.parametrize(
    ("count", "most", "size"), [(0, 12, 1), (1, 12, 1), (12, 12, 12), (13, 12, 7), (50, 12, 10), (50, 8, 8)]
)
def test_what_waits_is_divided_evenly(count, most, size):
    assert even_batch(count, most) == size
