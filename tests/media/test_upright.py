import numpy as np
import pytest

from facerwkv.media.faces import FaceBox
from facerwkv.media.upright import roll_of, upright

BLANK, BOX = np.zeros((40, 40, 3), np.uint8), (10, 10, 30, 30)


def face(score: float, left: tuple[float, float] = (10, 0)) -> FaceBox:
    return FaceBox(10, 10, 30, 30, score, ((0, 0), left))


@pytest.mark.parametrize(
    ("left", "degrees"), [((10, 0), 0), ((10, 1), 0), ((10, 10), 45), ((10, -10), -45), ((10, 2.5), 0), ((10, 3), 16.7)]
)
def test_a_face_that_the_detector_is_sure_of_is_turned_by_the_slope_of_its_eyes(left, degrees):
    assert roll_of(None, BLANK, face(0.95, left), BOX) == pytest.approx(degrees, abs=0.01)
    assert roll_of(None, BLANK, (10, 10, 30, 30), BOX) == 0


@pytest.mark.parametrize("surest", [0, 90, 180, 270])
def test_a_doubtful_face_has_the_position_of_which_the_detector_is_surest(surest):
    scores = {degrees: 0.9 if degrees == surest else 0.3 for degrees in (90, 180, 270)}
    asked = iter([[face(score)] for score in scores.values()])
    assert roll_of(lambda rgb: next(asked), BLANK, face(0.8), BOX) == surest
    assert roll_of(lambda rgb: [], BLANK, face(0.8), BOX) == 0


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_a_turned_image_comes_back_as_it_was(quarters):
    upward = np.zeros((40, 40, 3), np.uint8)
    upward[10:20, 10:30], upward[20:30, 10:20] = 200, 90  # nothing that a turn would leave as it was
    turned = np.ascontiguousarray(np.rot90(upward, -quarters))  # clockwise
    image, box = upright(turned, (10, 10, 30, 30), 90 * quarters)
    left, top, right, bottom = (round(side) for side in box)
    assert (right - left, bottom - top) == (20, 20)
    assert np.abs(image[top:bottom, left:right].astype(int) - upward[10:30, 10:30]).max() <= 1
