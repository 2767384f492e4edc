"""How the images of many clients are divided into batches."""

import asyncio
import threading

import numpy as np
import pytest

from facerwkv.inference.results import Crop, Face, Opened
from facerwkv.media.images import NamedImage
from facerwkv.web import predictions
from facerwkv.web.guard import Limits
from facerwkv.web.predictions import Predictions


class Recorder:
    """A predictor that finds `faces` in every image, and keeps which images it was asked to classify together.

    An image whose name is in `slow` is opened once `released`.
    """

    def __init__(self, faces: int, slow: tuple[str, ...] = ()):
        self.faces, self.slow, self.batches, self._lock = faces, slow, [], threading.Lock()
        self.released = threading.Event()

    def open(self, image, options, max_pixels):
        if image.name in self.slow:
            assert self.released.wait(30)
        crop = Crop(None, float(image.name), np.zeros((2, 2, 1), np.uint8))
        return Opened({"source": image.name, "status": "ok"}, [crop] * self.faces, options)

    def classify(self, crops, options):
        with self._lock:
            self.batches.append([int(crop.detection) for crop in crops])
        return [Face("happiness", 1.0, {"happiness": 1.0})] * len(crops)


def ask(faces: int, count: int) -> list[list[int]]:
    recorder = Recorder(faces)
    service = Predictions(recorder, Limits())
    try:
        results = asyncio.run(service([NamedImage(str(i), b"") for i in range(count)]))
    finally:
        service.stop()
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


def test_nobody_waits_for_an_image_that_takes_long_to_open(monkeypatch):
    monkeypatch.setattr(predictions, "thread_count", lambda: 2)
    recorder = Recorder(1, slow=("1",))
    service = Predictions(recorder, Limits())

    async def ask_all():
        waiting = [asyncio.create_task(service([NamedImage(str(i), b"")])) for i in range(4)]
        done, _ = await asyncio.wait([waiting[i] for i in (0, 2, 3)], timeout=20)
        assert len(done) == 3, "the others wait for the slow image"
        recorder.released.set()
        return await waiting[1]

    try:
        (result,) = asyncio.run(ask_all())
    finally:
        recorder.released.set()
        service.stop()
    assert (result.source, len(result.faces)) == ("1", 1)
    assert recorder.batches[-1] == [1]
    assert sorted(image for batch in recorder.batches for image in batch) == [0, 1, 2, 3]


def test_an_image_whose_client_is_gone_holds_nobody_up(monkeypatch):
    monkeypatch.setattr(predictions, "thread_count", lambda: 1)
    recorder = Recorder(1, slow=("0",))
    service = Predictions(recorder, Limits())

    async def ask_all():
        first, second, gone = (asyncio.create_task(service([NamedImage(str(i), b"")])) for i in range(3))
        await asyncio.sleep(0.05)
        gone.cancel()
        await asyncio.sleep(0.05)
        recorder.released.set()
        return await asyncio.wait_for(asyncio.gather(first, second), 20)

    try:
        results = asyncio.run(ask_all())
    finally:
        service.stop()
    assert [result.source for (result,) in results] == ["0", "1"]


def test_others_have_their_turn_between_the_images_of_one_request(monkeypatch):
    monkeypatch.setattr(predictions, "thread_count", lambda: 1)
    recorder = Recorder(1, slow=("0",))
    service, answered = Predictions(recorder, Limits()), []

    async def ask_for(*names):
        await service([NamedImage(name, b"") for name in names])
        answered.append(names)

    async def ask_all():
        many = asyncio.create_task(ask_for(*map(str, range(100))))
        await asyncio.sleep(0.05)
        one = asyncio.create_task(ask_for("100"))
        await asyncio.sleep(0.05)
        recorder.released.set()
        await asyncio.gather(many, one)

    asyncio.run(ask_all())
    service.stop()
    assert answered[0] == ("100",)


def test_a_request_has_faces_up_to_the_limit():
    service = Predictions(Recorder(4), Limits(faces=9))

    async def ask_for(count):
        return await service([NamedImage(str(i), b"") for i in range(count)])

    first, second, third = asyncio.run(ask_for(3))
    assert [first.status, second.status, third.status].count("ok") == 2
    (left_out,) = (result.message for result in (first, second, third) if result.message)
    assert left_out.endswith(": with it there are 12 faces; 9 are allowed per request.")
    assert [len(result.faces) for result in asyncio.run(ask_for(2))] == [4, 4]
    service.stop()


def test_nobody_waits_for_a_crowd(monkeypatch):
    """Images with more faces than a batch are classified by one thread at a time; the other answers everybody else."""
    monkeypatch.setattr(predictions, "thread_count", lambda: 2)
    recorder, held = Recorder(1), threading.Event()
    opened, classified = recorder.open, recorder.classify

    def open_crowd(image, options, max_pixels):
        result = opened(image, options, max_pixels)
        return Opened(result.fields, result.crops * 50, options) if image.name.startswith("9") else result

    def classify(crops, options):
        assert crops[0].detection < 90 or held.wait(30)
        return classified(crops, options)

    recorder.open, recorder.classify = open_crowd, classify
    service = Predictions(recorder, Limits())

    async def ask_all():
        crowds = [asyncio.create_task(service([NamedImage(str(i), b"")])) for i in (90, 91, 92)]
        await asyncio.sleep(0.1)
        others = await asyncio.wait_for(asyncio.gather(*(service([NamedImage(str(i), b"")]) for i in range(5))), 20)
        assert not any(crowd.done() for crowd in crowds)
        held.set()
        return others, await asyncio.gather(*crowds)

    try:
        others, crowds = asyncio.run(ask_all())
    finally:
        held.set()
        service.stop()
    assert [len(result.faces) for (result,) in (*others, *crowds)] == [1] * 5 + [50] * 3


def test_an_image_that_fails_fails_alone():
    recorder = Recorder(1)
    service = Predictions(recorder, Limits())

    async def ask_all():
        tasks = [service([NamedImage(name, b"")]) for name in ("0", "no number", "2")]
        return await asyncio.gather(*tasks, return_exceptions=True)

    try:
        first, failed, last = asyncio.run(ask_all())
    finally:
        service.stop()
    assert (first[0].source, last[0].source) == ("0", "2")
    assert isinstance(failed, ValueError)
