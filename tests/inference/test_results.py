import io
from dataclasses import replace

import pytest
from rich.console import Console

from facerwkv.core.errors import InputError
from facerwkv.inference.results import Result, describe
from tests.examples import HAPPY, RESULTS

HAPPY_DICT = {"box": [1, 2, 30, 40], "label": "happiness", "score": 0.75, "probs": {"anger": 0.25, "happiness": 0.75}}
DICTS = [
    {"source": "a, b.jpg", "status": "ok", "faces": [HAPPY_DICT, HAPPY_DICT]},
    {
        "source": "scene.jpg",
        "status": "ok",
        "faces": [{"label": "anger", "score": 0.5, "probs": {"anger": 0.5, "happiness": 0.5}}],
    },
    {"source": "none.jpg", "status": "no_face", "faces": []},
    {"source": "bad.jpg", "status": "unreadable", "faces": [], "message": "bad.jpg is empty."},
]
TEXT = """\
a, b.jpg  60x50  2 faces
  1  [1, 2, 30, 40]  happiness 0.75  anger 0.25
  2  [1, 2, 30, 40]  happiness 0.75  anger 0.25
scene.jpg  60x50
  1  whole image  anger 0.50  happiness 0.50
none.jpg  60x50  no face
bad.jpg
  bad.jpg is empty.
"""


def test_the_dictionary_is_what_programs_read():
    assert [result.to_dict() for result in RESULTS] == DICTS


def test_the_text_is_what_people_read():
    console = Console(width=100, file=io.StringIO())
    console.print(*map(describe, RESULTS), sep="\n")
    assert console.file.getvalue() == TEXT
    assert "\n".join(map(repr, RESULTS)) + "\n" == TEXT


def test_a_frame_says_when_and_its_faces_say_who():
    result = Result("talk.mp4", "ok", [replace(HAPPY, track=3)], (60, 50), time=1.5, frame=36)
    face = {"track": 3, "detection": 0.9, **HAPPY_DICT}
    assert result.to_dict() == {"source": "talk.mp4", "time": 1.5, "frame": 36, "status": "ok", "faces": [face]}
    assert repr(result) == "talk.mp4  1.50 s  60x50  1 face\n  3  [1, 2, 30, 40]  happiness 0.75  anger 0.25"


@pytest.mark.parametrize(("threshold", "unsure"), [(0.0, False), (0.75, False), (0.76, True), (1.0, True)])
def test_a_score_below_the_threshold_is_unsure(threshold, unsure):
    face = replace(HAPPY, threshold=threshold)
    assert face.unsure is unsure
    assert face.to_dict() == HAPPY_DICT | {"unsure": unsure}
    assert repr(face) == repr(HAPPY) + f"  (unsure: below {threshold:g})" * unsure
    assert HAPPY.to_dict() == HAPPY_DICT


def test_a_result_is_read_again_without_its_threshold():
    judged = replace(RESULTS[0], faces=[replace(face, threshold=0.9) for face in RESULTS[0].faces])
    assert Result.from_dict(judged.to_dict()).to_dict() == RESULTS[0].to_dict()
    assert Result.from_dict(judged.to_dict(), 0.9).to_dict() == judged.to_dict()


def test_an_unreadable_image_cannot_be_drawn():
    with pytest.raises(InputError, match=r"bad\.jpg is empty"):
        RESULTS[3].plot()
