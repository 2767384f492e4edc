import numpy as np
import pytest

from facerwkv.media.draw import COLOURS, UNSURE, draw_faces

PROBS = {"anger": 0.1, "happiness": 0.7, "neutral": 0.2}


def grey(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 128, np.uint8)


@pytest.mark.parametrize(
    ("size", "drawn"), [((48, 48), (480, 480)), ((300, 240), (480, 384)), ((900, 700), (900, 700))]
)
def test_small_images_are_enlarged_and_others_keep_their_size(size, drawn):
    image = draw_faces(grey(*size), [])
    assert (image.height, image.width) == drawn


def test_the_frame_has_the_colour_of_the_likeliest_label():
    image = draw_faces(grey(600, 600), [((100, 100, 300, 300), PROBS)])
    colour = tuple(bytes.fromhex(COLOURS[1][1:]))
    assert image.getpixel((100, 200)) == colour
    assert image.getpixel((299, 200)) == colour
    assert image.getpixel((200, 200)) == (128, 128, 128)


def test_an_unsure_face_is_framed_in_grey_and_called_so():
    box = (100, 100, 300, 300)
    sure, unsure = (np.asarray(draw_faces(grey(600, 600), [(box, PROBS)], unsure=[doubt])) for doubt in (False, True))
    assert tuple(unsure[200, 100]) == tuple(bytes.fromhex(UNSURE[1:]))
    wider = [np.ptp(np.nonzero((image != 128).any(-1)[301:])[1]) for image in (sure, unsure)]
    assert wider[1] > wider[0], "the panel, below the face, is longer by a word"


def test_panels_hide_no_face_and_no_other_panel():
    boxes = [(50, 50, 200, 250), (220, 60, 380, 260), (50, 300, 200, 500)]
    alone = [np.asarray(draw_faces(grey(700, 700), [(box, PROBS)])) != 128 for box in boxes]
    together = np.asarray(draw_faces(grey(700, 700), [(box, PROBS) for box in boxes])) != 128
    for x1, y1, x2, y2 in boxes:
        assert not together[y1 + 5 : y2 - 5, x1 + 5 : x2 - 5].any()
    assert together.any(-1).sum() >= sum(drawn.any(-1).sum() for drawn in alone)


def test_the_input_is_left_as_it_was():
    image = grey(500, 500)
    draw_faces(image, [(None, PROBS)])
    assert (image == 128).all()


@pytest.mark.parametrize("shape", [(1, 1), (20, 3000), (3000, 5)])
@pytest.mark.parametrize("box", [None, (0, 0, 1, 1)])
def test_any_shape_can_be_drawn(shape, box):
    assert max(draw_faces(grey(*shape), [(box, PROBS)] * 2).size) >= 480
