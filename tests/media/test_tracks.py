"""Tracks of drawn people whose identities are known: no track holds two of them, nobody has two tracks."""

import cv2
import numpy as np
import pytest
from PIL import Image

from facerwkv.media.faces import FaceDetector
from facerwkv.media.scenes import Scene
from facerwkv.media.tracks import Tracker

WIDTH, HEIGHT, SIZE = 320, 180, 36
HOMES = {(i, j): (90 + 85 * i, 60 + 85 * j) for i in range(3) for j in range(2)}
"""Six persons, and where each is in the scene."""


def texture(seed: int, width: int, height: int, coarse: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    small = rng.integers(20, 236, (max(2, height // coarse), max(2, width // coarse), 3), np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


class Place:
    """A scene of 2 x 2 frames' size with people in it; `shot` is what a camera sees of it, and its people's boxes."""

    def __init__(self, seed: int = 0, homes=HOMES):
        self.seed, self.homes = seed, homes
        self.back = texture(1000 + seed, 2 * WIDTH, 2 * HEIGHT, 40)

    def shot(self, x: float, y: float, moved=None) -> tuple[np.ndarray, dict]:
        """With its upper left corner at (x, y) of the scene; `moved` are people's own offsets."""
        scene, boxes = self.back.copy(), {}
        for i, (person, (left, top)) in enumerate(self.homes.items()):
            dx, dy = (moved or {}).get(person, (0, 0))
            a, b = round(left + dx), round(top + dy)
            scene[b : b + SIZE, a : a + SIZE] = texture(100 * self.seed + i, SIZE, SIZE, 9)
            box = (a - x, b - y, a - x + SIZE, b - y + SIZE)
            if min(box[0], box[1]) > -SIZE / 2 and box[2] < WIDTH + SIZE / 2 and box[3] < HEIGHT + SIZE / 2:
                boxes[person] = tuple(np.clip(box, 0, [WIDTH, HEIGHT] * 2))
        frame = cv2.warpAffine(scene, np.float32([[1, 0, -x], [0, 1, -y]]), (WIDTH, HEIGHT))
        return frame, boxes


def followed(shots, rate: float = 25.0, tracker=None) -> tuple[dict, int, int]:
    """Which persons each track held; how often a person's track changed; how many cuts were seen."""
    tracker, rng = tracker or Tracker(), np.random.default_rng(0)
    held, last, switches, cuts = {}, {}, 0, 0
    for i, (frame, boxes) in enumerate(shots):
        people = list(boxes)
        rng.shuffle(people)
        jitter = rng.normal(0, 1, (len(people), 4))
        numbers = tracker(i / rate, [tuple(boxes[p] + j) for p, j in zip(people, jitter, strict=True)], frame)
        cuts += tracker.cut
        for person, number in zip(people, numbers, strict=True):
            held.setdefault(number, set()).add(person)
            switches += last.get(person, number) != number
            last[person] = number
    return held, switches, cuts


@pytest.mark.parametrize(("width", "hertz"), [(10, 3), (40, 1), (40, 2), (80, 1)])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_swaying_camera_over_six_persons_makes_six_tracks(width, hertz, stride):
    place, times = Place(), np.arange(0, 2, stride / 25)
    wave = 2 * np.pi * hertz * times
    spots = zip(60 + width * np.sin(wave), 45 + 0.3 * width * np.cos(0.7 * wave), strict=True)
    held, switches, cuts = followed((place.shot(x, y) for x, y in spots), 25 / stride)
    assert (len(held), switches, cuts) == (6, 0, 0)


@pytest.mark.parametrize("same", [False, True], ids=["another place", "the same place"])
def test_nobody_is_taken_for_another_after_a_cut(same):
    first, second = Place(1), Place(2)
    if same:
        second.back = first.back
    shots = []
    for place in (first, second):
        frame, boxes = place.shot(60, 45)
        shots += [(frame, {(place.seed, person): box for person, box in boxes.items()})] * 10
    held, switches, cuts = followed(shots)
    assert all(len(people) == 1 for people in held.values())
    assert (len(held), switches) == (12, 0)
    assert cuts == (0 if same else 1)


def test_two_who_pass_each_other_keep_their_tracks():
    place = Place(homes={"a": (80, 100), "b": (280, 104)})
    shots = [place.shot(60, 45, {"a": (5 * i, 0), "b": (-5 * i, 0)}) for i in range(40)]
    for _, boxes in shots:  # nobody finds the one who is hidden by the other
        if abs(boxes["a"][0] - boxes["b"][0]) < SIZE:
            del boxes["a"]
    held, switches, _ = followed(shots)
    assert (len(held), switches) == (2, 0)


def test_one_who_runs_keeps_the_track():
    place = Place(homes={"a": (70, 100)})
    held, switches, _ = followed(place.shot(60, 45, {"a": (28 * i, 0)}) for i in range(9))
    assert (len(held), switches) == (1, 0)


def test_one_who_takes_anothers_seat_gets_a_track_of_his_own():
    """The camera and the room stay."""
    first, second = Place(homes={"a": (150, 100)}), Place(homes={"a": (150, 100)})
    second.seed = 7
    shots = [first.shot(60, 45)] * 10 + [(frame, {"b": boxes["a"]}) for frame, boxes in [second.shot(60, 45)] * 10]
    held, switches, cuts = followed(shots)
    assert (sorted(map(sorted, held.values())), switches, cuts) == ([["a"], ["b"]], 0, 0)


def test_a_short_absence_under_a_moving_camera():
    place = Place(homes={"a": (150, 100)})
    shots = [place.shot(30 + 3 * i, 45) for i in range(30)]
    gone = [(frame, {} if 10 <= i < 18 else boxes) for i, (frame, boxes) in enumerate(shots)]
    held, switches, _ = followed(gone)
    assert (len(held), switches) == (1, 0)


def test_what_a_flash_a_lamp_and_a_black_frame_are_not():
    frame, _ = Place().shot(60, 45)
    shots = [frame, frame // 2, frame, np.clip(frame * 1.7 + 30, 0, 255).astype(np.uint8), np.zeros_like(frame), frame]
    scene = Scene()
    assert [scene(shot)[0] for shot in shots] == [False] * 6


def test_the_cameras_motion_is_measured():
    place, scene = Place(), Scene()
    scene(place.shot(60, 45)[0])
    for x, y, motion in ((66, 45, (-6, 0)), (40, 57, (26, -12)), (40, 57, (0, 0))):
        cut, moved = scene(place.shot(x, y)[0])
        assert not cut
        assert moved == pytest.approx(motion, abs=1.5)


def test_faces_of_a_photograph_under_a_swaying_camera(shared):
    """YuNet's own boxes, which jump where a face is cut by the frame's edge."""
    photograph = np.asarray(Image.open(shared / "media" / "selfie-many-people.jpg").convert("RGB").resize((960, 954)))
    detector, tracker = FaceDetector(), Tracker()
    people = [np.array([face.x1 + face.x2, face.y1 + face.y2]) / 2 for face in detector(photograph)]
    held, last, switches = {}, {}, 0
    for i in range(40):
        x, y = round(160 + 120 * np.sin(0.25 * i)), round(297 + 36 * np.cos(0.18 * i))
        frame = photograph[y : y + 360, x : x + 640]
        boxes = [(face.x1, face.y1, face.x2, face.y2) for face in detector(frame)]
        for number, box in zip(tracker(i / 25, boxes, frame), boxes, strict=True):
            centre = np.array([x + (box[0] + box[2]) / 2, y + (box[1] + box[3]) / 2])
            person = int(np.argmin([np.linalg.norm(centre - each) for each in people]))
            held.setdefault(number, set()).add(person)
            switches += last.get(person, number) != number
            last[person] = number
    assert len(held) == len(last) > 3
    assert switches == 0
