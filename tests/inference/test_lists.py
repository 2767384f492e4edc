"""Many images: opened and classified in threads, in order, as one by one."""

import threading
import time

import numpy as np
import pytest
from PIL import Image

from facerwkv import load
from facerwkv.core.errors import InputError
from facerwkv.data.toy.scenes import render
from facerwkv.inference import batcher
from facerwkv.inference import predictor as module


@pytest.fixture(scope="module")
def model():
    return load("facerwkv_fer_tiny", "cpu", engine="onnx")


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faces")
    for number in range(20):
        Image.fromarray(render(number, "test").image).save(folder / f"{number}.png")
    return [folder / f"{number}.png" for number in range(20)]


@pytest.fixture
def calls(model, monkeypatch):
    """What the model was called for: how many crops, whether beside other calls, in which thread."""
    calls, classify = [], model.classify

    def noting(crops, options, beside=False):
        calls.append((len(crops), beside, threading.current_thread()))
        return classify(crops, options, beside)

    monkeypatch.setattr(model, "classify", noting)
    monkeypatch.setattr(model, "_cores", 2)
    return calls


def test_batches_do_not_depend_on_what_was_opened_first(model, paths, monkeypatch, calls):
    sizes = []
    for slow in (0, 1):
        opens = model.open

        def open_late(source, options, number=0, opens=opens, slow=slow, **more):
            time.sleep(0.02 * (number % 2 == slow))
            return opens(source, options, number, **more)

        monkeypatch.setattr(model, "open", open_late)
        list(model.predict_iter(paths, batch_size=5, on_no_face="scene"))
        monkeypatch.setattr(model, "open", opens)
        sizes.append(sorted(count for count, *_ in calls))
        calls.clear()
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_a_list_is_answered_as_its_images_are(model, paths, calls, batch_size):
    several = list(model.predict_iter(paths, batch_size=batch_size))
    assert [each.source for each in several] == [str(path) for path in paths]
    for together, path in zip(several, paths, strict=True):
        alone = model.predict(path)
        assert [face.label for face in together.faces] == [face.label for face in alone.faces]
        for a, b in zip(together.faces, alone.faces, strict=True):
            assert a.probs == pytest.approx(b.probs, abs=2e-6)


def test_a_list_longer_than_a_batch_is_classified_beside_what_is_opened(model, paths, calls):
    list(model.predict_iter(paths, batch_size=4))
    beside = [thread for _, on_one, thread in calls if on_one]
    assert beside
    assert threading.main_thread() not in beside[:-1]
    calls.clear()
    list(model.predict_iter(paths[:3], batch_size=4))
    assert {on_one for _, on_one, _ in calls} == {False}


def test_arrays_are_not_taken_a_batch_ahead_and_large_ones_wait_for_no_batch(model, monkeypatch, calls):
    taken = []
    arrays = [render(number, "test").image for number in range(20)]
    monkeypatch.setattr(batcher, "HELD", 1)
    results = model.predict_iter((taken.append(1) or array for array in arrays), batch_size=16)
    next(results)
    assert len(taken) <= 5
    assert len(list(results)) == 19


def test_what_cannot_go_on_is_raised_after_the_results_before_it(model, paths, monkeypatch):
    search = module.search

    def failing(data, *rest):
        if str(data) == str(paths[5]):
            raise InputError("The detector is broken.")
        return search(data, *rest)

    monkeypatch.setattr(module, "search", failing)
    monkeypatch.setattr(model, "_cores", 2)
    results, got = model.predict_iter(paths, batch_size=2), []
    with pytest.raises(InputError, match=r"The detector is broken\."):
        got.extend(result.source for result in results)
    assert got == [str(path) for path in paths[:5]]


def test_one_session_of_one_thread_gives_the_same_logits(model):
    images = np.random.default_rng(0).integers(0, 256, (5, *model.model.shape), dtype=np.uint8)
    np.testing.assert_allclose(model.model.beside(images), model.model(images), atol=1e-5)
