import numpy as np
import pytest

from facerwkv.media.upright import roll, upright


@pytest.mark.parametrize(
    ("left", "degrees"), [((10, 0), 0), ((0, 10), 90), ((-10, 0), 180), ((0, -10), -90), ((10, 10), 45)]
)
def test_a_face_is_turned_by_the_slope_of_its_eyes(left, degrees):
    assert roll([(0, 0), left]) == pytest.approx(degrees)
    assert roll(()) == 0


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_a_turned_image_comes_back_as_it_was(quarters):
    upward = np.zeros((40, 40, 3), np.uint8)
    upward[10:20, 10:30], upward[20:30, 10:20] = 200, 90  # nothing that a turn would leave as it was
    turned = np.ascontiguousarray(np.rot90(upward, -quarters))  # clockwise
    image, box = upright(turned, (10, 10, 30, 30), 90 * quarters)
    left, top, right, bottom = (round(side) for side in box)
    assert (right - left, bottom - top) == (20, 20)
    assert np.abs(image[top:bottom, left:right].astype(int) - upward[10:30, 10:30]).max() <= 1
