"""One predictor for many threads, and its copies in other processes: every answer is that of a single thread."""

import copy
import ctypes
import gc
import io
import pickle
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, get_args

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from facerwkv.data.toy.scenes import render
from facerwkv.export import export_onnx
from facerwkv.inference.explain import METHODS, explain
from facerwkv.inference.predictor import Predictor, _warn_once, load
from facerwkv.inference.stream import stream
from facerwkv.media.faces import FaceDetector
from facerwkv.media.images import open_image
from facerwkv.models.onnx import Runtime
from tests.inference.test_predictor import checkpoint
from tests.threads import forked, side_by_side

Ask = Callable[[Predictor, np.ndarray], Any]


def explained(method: str, predictor: Predictor, image: np.ndarray) -> list:
    return [(each.label, each.prob, each.scores.tolist()) for each in explain(predictor, image, method)]


def streamed(predictor: Predictor, image: np.ndarray, **options: Any) -> list:
    frames = [(0.1 * number, image[:, :: 1 - 2 * (number % 2)]) for number in range(3)]
    return [(result.frame, result.faces) for result in stream(predictor, frames, **options)]


EVERYWHERE: dict[str, Ask] = {
    "face": lambda predictor, image: predictor.predict(image, mode="face").faces,
    "scene": lambda predictor, image: predictor.predict(image, mode="scene").faces,
    "flip": lambda predictor, image: predictor.predict(image, tta="flip").faces,
    "several": lambda predictor, image: [each.faces for each in predictor.predict([image, image[:200]])],
    "stream": streamed,
}
IN_PYTORCH: dict[str, Ask] = {
    "temporal": partial(streamed, temporal=True),
    **{method: partial(explained, method) for method in METHODS},
}


def check_in_threads(calls: list[tuple[str, Predictor, Ask]], images: list[np.ndarray], times: int = 1) -> None:
    """Call number n is of image number n, and eight threads get the answers that one gets."""
    ask = lambda number: calls[number][2](calls[number][1], images[number])  # noqa: E731
    expected = list(map(ask, range(len(calls))))
    for _ in range(times):
        found = side_by_side(ask, len(calls))
        assert [(i, calls[i][0]) for i in range(len(calls)) if found[i] != expected[i]] == []


def drawn(count: int) -> list[np.ndarray]:
    """Different scenes in which the detector finds faces; no two that follow each other have one size."""
    scenes = [Image.fromarray(render(number, "test").image) for number in range(10)]
    sizes = [(300 + 37 * (i % 11), 200 + 29 * (i % 13)) for i in range(count)]
    return [np.array(scenes[(i + i // 143) % 10].resize(size)) for i, size in enumerate(sizes)]


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    return drawn(45)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(checkpoint(), "cpu")


def test_a_shared_predictor_answers_every_thread_as_it_answers_one(predictor, images):
    assert sum(len(predictor.predict(image).faces) for image in images[:10]) > 8
    ways = EVERYWHERE | IN_PYTORCH
    check_in_threads([(way, predictor, ways[way]) for way in ways] * 5, images)


@pytest.mark.parametrize("image", [0, 3])
def test_many_short_lived_threads_share_a_detector(images, image):
    detector, found = FaceDetector(), []
    expected = detector(images[image])
    threads = [threading.Thread(target=lambda: found.append(detector(images[image]))) for _ in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 30


def test_threads_may_share_an_image_whose_pixels_were_not_read_yet(images):
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    Image.fromarray(images[9]).resize((1500, 1200)).save(file, "JPEG", exif=exif)
    expected = open_image(file.getvalue())
    for _ in range(5):
        lazy = Image.open(io.BytesIO(file.getvalue()))
        assert all(np.array_equal(found, expected) for found in side_by_side(lambda _, lazy=lazy: open_image(lazy), 8))


def test_a_new_thread_computes_on_as_many_cores_as_pytorch_was_told(images):
    openmp, found, before = ctypes.CDLL(torch._C.__file__), [], torch.get_num_threads()
    if not hasattr(openmp, "omp_get_max_threads"):
        pytest.skip("this PyTorch does without OpenMP")

    def detector(rgb: np.ndarray) -> list:
        found.append(openmp.omp_get_max_threads())
        return []

    predictor = Predictor(checkpoint(), "cpu", detector)
    torch.set_num_threads(3)
    side_by_side(lambda _: predictor.predict(images[0]), 1)
    torch.set_num_threads(before)
    assert found == [3]


@pytest.mark.parametrize(("count", "together"), [(1, False), (4, True)])
def test_threads_take_turns_with_small_batches_of_a_small_model(images, count, together):
    predictor, both, met = load("facerwkv_fer_tiny", "cpu", engine="torch"), threading.Barrier(2), []

    def meet(*_: Any) -> None:
        with suppress(threading.BrokenBarrierError):
            both.wait(10 if together else 0.2)
            met.append(True)

    predictor.model.network.register_forward_pre_hook(meet)
    side_by_side(lambda _: predictor.predict([images[0]] * count, mode="scene"), 2, 2)
    assert met == [True] * (2 * together)


def test_many_threads_may_load_at_once_and_are_told_the_licence_once(images, caplog):
    _warn_once.cache_clear()
    found = side_by_side(lambda _: load("facerwkv_fer_tiny", "cpu").predict(images[0]).faces, 8)
    assert found == [load("facerwkv_fer_tiny", "cpu").predict(images[0]).faces] * 8
    assert len(caplog.records) == 1


def test_explaining_leaves_a_model_that_is_being_trained_alone(images):
    trained = checkpoint("scene")
    trained.model.train()
    for method in METHODS:
        explain(Predictor(trained, "cpu"), images[0], method)
    assert all(module.training for module in trained.model.modules())
    assert all(weight.requires_grad and weight.grad is None for weight in trained.model.parameters())


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))])
def test_a_copy_answers_alike_before_and_after_use(images, copied):
    original = Predictor(checkpoint(), "cpu")
    fresh = copied(original)
    expected = [ask(original, images[0]) for ask in (EVERYWHERE | IN_PYTORCH).values()]
    for each in (fresh, copied(original), copied(fresh)):
        assert [ask(each, images[0]) for ask in (EVERYWHERE | IN_PYTORCH).values()] == expected


@pytest.fixture
def two_threads():
    """PyTorch computes on two threads, which a fork does not copy."""
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def test_a_forked_process_answers_alike(predictor, images, two_threads):
    def answers() -> list:
        product = float((torch.ones(600, 600) @ torch.ones(600, 600)).sum())
        return [product, *(IN_PYTORCH[way](predictor, images[0]) for way in ("temporal", "gradient", "tokens"))]

    expected = answers()
    assert forked(lambda: answers() == expected) == "right"
    assert answers() == expected


@pytest.mark.slow
def test_a_thousand_predictions(predictor, tmp_path):
    calls = [(f"temporal {way}", predictor, ask) for way, ask in IN_PYTORCH.items()]
    for model in ("facerwkv_fer", "facerwkv_fer_tiny"):
        made = {"torch": load(model, "cpu")}
        export_onnx(made["torch"].checkpoint, tmp_path / f"{model}.onnx")
        made |= {engine: load(tmp_path / f"{model}.onnx", "cpu", engine=engine) for engine in get_args(Runtime)}
        calls += [(f"{model} {name} {way}", made[name], ask) for name in made for way, ask in EVERYWHERE.items()]
        calls += [(f"{model} {method}", made["torch"], IN_PYTORCH[method]) for method in METHODS]
    check_in_threads((calls * 26)[:1000], drawn(1000), times=2)


@pytest.mark.slow
@pytest.mark.alone
def test_short_lived_threads_leave_no_memory_behind(predictor, images):
    def memory_after(count: int) -> int:
        for _ in range(count // 20):
            side_by_side(lambda number: predictor.predict(images[number % len(images)]), 20, 20)
        gc.collect()
        return psutil.Process().memory_info().rss

    memory_after(200)
    assert memory_after(600) - memory_after(0) < 50 * 2**20
