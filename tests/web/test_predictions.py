"""How the images of many clients are divided into batches."""

import asyncio
import threading

import numpy as np
import pytest

from facerwkv.inference.predictor import Crop
from facerwkv.inference.results import Face, Result
from facerwkv.web import predictions
from facerwkv.web.guard import Limits
from facerwkv.web.predictions import Predictions
from facerwkv.web.uploads import UploadedImage


class Recorder:
    """A predictor that finds `faces` in every image, and keeps which images it was asked to classify together."""

    def __init__(self, faces: int):
        self.faces, self.batches, self._lock = faces, [], threading.Lock()

    def crops(self, data, mode, on_no_face):
        return Result(data.decode(), "ok"), [Crop(None, None, np.zeros((2, 2, 1), np.uint8))] * self.faces

    def classify(self, queue):
        with self._lock:
            self.batches.append([int(result.source) for result, _ in queue])
        for result, _ in queue:
            result.faces.append(Face("happiness", 1.0, {"happiness": 1.0}))


def ask(faces: int, count: int) -> list[list[int]]:
    recorder = Recorder(faces)
    service = Predictions(recorder, Limits())
    try:
        results = asyncio.run(service([UploadedImage(str(i), str(i).encode()) for i in range(count)]))
    finally:
        service.close()
    assert [result.source for result in results] == [str(i) for i in range(count)]
    assert all(len(result.faces) == faces for result in results)
    return sorted(recorder.batches)


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_a_batch_holds_images_in_the_order_in_which_they_came(threads, monkeypatch):
    monkeypatch.setattr(predictions, "thread_count", lambda: threads)
    assert ask(faces=1, count=25) == [list(range(9)), list(range(9, 18)), list(range(18, 25))]


def test_a_batch_is_full_when_its_images_have_many_faces(monkeypatch):
    monkeypatch.setattr(predictions, "thread_count", lambda: 1)
    assert ask(faces=5, count=6) == [[i] * 5 + [i + 1] * 5 for i in (0, 2, 4)]


def test_images_without_a_face_are_answered_without_a_batch():
    assert ask(faces=0, count=25) == []
