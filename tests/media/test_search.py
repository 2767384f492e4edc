"""What is read of an image, and the faces that are found in it."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from facerwkv.inference.predictor import load
from facerwkv.media.faces import FaceDetector
from facerwkv.media.geometry import overlap
from facerwkv.media.images import open_image, open_reduced
from facerwkv.media.search import search


def photo(size: tuple[int, int], form: str = "JPEG", orientation: int = 1, mode: str = "RGB") -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (8, 6, 3), dtype=np.uint8)
    file, exif = BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(noise).resize(size).convert(mode).save(file, form, exif=exif)
    return file.getvalue()


@pytest.mark.parametrize(
    ("given", "least", "shape"),
    [
        ({"size": (401, 300)}, 100, (75, 101)),
        ({"size": (401, 300)}, 101, (150, 201)),
        ({"size": (401, 300)}, 201, (300, 401)),
        ({"size": (401, 300)}, 0, (300, 401)),
        ({"size": (401, 300)}, 1, (38, 51)),
        ({"size": (401, 300), "orientation": 6}, 150, (201, 150)),
        ({"size": (401, 300), "orientation": 3}, 150, (150, 201)),
        ({"size": (401, 300), "mode": "L"}, 150, (150, 201)),
        ({"size": (401, 300), "mode": "CMYK"}, 150, (150, 201)),
        ({"size": (401, 300), "form": "PNG"}, 100, (300, 401)),
    ],
)
def test_a_jpeg_is_reduced_to_no_less_than_is_needed(given, least, shape):
    rgb, size = open_reduced(photo(**given), least=least)
    whole = open_image(photo(**given))
    assert (rgb.shape[:2], size) == (shape, whole.shape[1::-1])
    small = Image.fromarray(whole).resize(shape[::-1], Image.Resampling.BOX)
    assert np.abs(rgb.astype(int) - np.asarray(small)).mean() < 8


def enlarged(path, width: int) -> bytes:
    file = BytesIO()
    with Image.open(path) as image:
        image.resize((width, width * image.height // image.width)).save(file, "JPEG", quality=90)
    return file.getvalue()


def test_faces_of_a_reduced_photo_are_those_of_the_whole(shared):
    data, detector = enlarged(shared / "media" / "couple.jpg", 4000), FaceDetector()
    whole, reduced = search(data, detector), search(data, detector, 48)
    assert (whole.scale, reduced.scale, whole.size, reduced.size) == (1, 4, (4000, 2785), (4000, 2785))
    assert overlap(np.array(whole.corners), np.array(reduced.corners)).max(1).min() > 0.95
    assert len(whole.faces) == len(reduced.faces) == 2
    predictor = load("facerwkv_fer_tiny", "cpu", engine="onnx")
    results = [predictor.predict(data, reduced=each) for each in (False, True)]
    assert [(result.size, len(result.faces)) for result in results] == [((4000, 2785), 2)] * 2
    assert overlap(*(np.array([face.box for face in result.faces]) for result in results)).max(1).min() > 0.95


def test_small_faces_are_shown_in_all_their_pixels(shared):
    data = enlarged(shared / "media" / "selfie-many-people.jpg", 2000)
    found = search(data, FaceDetector(), 200)
    assert (found.scale, found.rgb.shape[1], len(found.faces)) == (1, 2000, 6)
    assert max(corner[2] for corner in found.corners) > 1000


def test_what_must_see_all_pixels_does(tmp_path):
    data = photo((2000, 1500))
    shapes = []
    assert search(data, lambda rgb: shapes.append(rgb.shape) or [], 48).scale == 1
    assert search(data, FaceDetector(min_face=20), 48).scale == 1
    assert search(BytesIO(data), FaceDetector(), 48).scale == 1
    assert search(Image.open(BytesIO(data)), FaceDetector(), 48).scale == 1
    assert shapes == [(1500, 2000, 3)]
    assert search(photo((1, 1)), FaceDetector(), 48).scale == 1
    assert search(data, None, 48).rgb.shape == (188, 250, 3)
