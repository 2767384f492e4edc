import numpy as np
import pytest
from PIL import Image

from facerwkv.core.errors import InputError
from facerwkv.media.faces import FaceDetector, packaged_model

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


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 5000, 3), (3000, 2, 3)])
def test_odd_shapes_have_no_faces(detector, shape):
    assert detector(np.zeros(shape, np.uint8)) == []


def test_a_missing_model_is_named_with_the_next_step(tmp_path):
    with pytest.raises(InputError, match=r"gone\.onnx.*--detector-model PATH"):
        FaceDetector(tmp_path / "gone.onnx")


@pytest.mark.parametrize("content", [b"", b"no model", packaged_model().read_bytes()[:100_000]])
def test_a_broken_model_is_named_with_the_next_step(tmp_path, content):
    (tmp_path / "broken.onnx").write_bytes(content)
    with pytest.raises(InputError, match=r"broken\.onnx.*--detector-model PATH"):
        FaceDetector(tmp_path / "broken.onnx")(np.zeros((64, 64, 3), np.uint8))
