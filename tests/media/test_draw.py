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


def test_in_a_crowd_no_face_is_covered():
    rgb = np.full((480, 480, 3), 128, np.uint8)
    boxes = [(x, y, x + 58, y + 58) for y in range(0, 480, 60) for x in range(0, 480, 60)][:-3]
    drawn = np.asarray(draw_faces(rgb, [(box, {"happiness": 0.9, "sadness": 0.1}) for box in boxes]))
    for x1, y1, x2, y2 in boxes:
        assert (drawn[y1 + 4 : y2 - 4, x1 + 4 : x2 - 4] == 128).all()
    assert (drawn[422:, 302:] != 128).any()  # where there is room, a label is


def test_boxes_only_draws_no_text():
    rgb, box = np.full((480, 480, 3), 128, np.uint8), (100, 100, 200, 200)
    drawn = np.asarray(draw_faces(rgb, [(box, {"happiness": 0.9})], boxes_only=True))
    changed = np.argwhere((drawn != rgb).any(2))
    assert (changed.min(0).tolist(), changed.max(0).tolist()) == ([100, 100], [199, 199])
    assert (np.asarray(draw_faces(rgb, [], boxes_only=True)) == rgb).all()
