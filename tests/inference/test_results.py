import io
import json
import sys
from dataclasses import replace
from html import escape
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from facerwkv.core.errors import InputError
from facerwkv.inference.results import Kept, Result, Results, describe
from facerwkv.inference.schema import FACE, SCHEMA
from facerwkv.inference.sinks import table_columns
from tests.examples import HAPPY, RESULTS

HAPPY_DICT = {"box": [1, 2, 30, 40], "detection": 0.9, "label": "happiness", "score": 0.75}
HAPPY_DICT |= {"probs": {"anger": 0.25, "happiness": 0.75}}
SIZE = {"size": [60, 50]}
DICTS = [
    {"source": "a, b.jpg", "status": "ok", **SIZE, "faces": [HAPPY_DICT, HAPPY_DICT]},
    {
        "source": "scene.jpg",
        "status": "ok",
        **SIZE,
        "faces": [{"label": "anger", "score": 0.5, "probs": {"anger": 0.5, "happiness": 0.5}}],
    },
    {"source": "none.jpg", "status": "no_face", **SIZE, "faces": []},
    {"source": "bad.jpg", "status": "unreadable", "size": [0, 0], "faces": [], "message": "bad.jpg is empty."},
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
    face, moment = {"track": 3, **HAPPY_DICT}, {"time": 1.5, "frame": 36}
    assert result.to_dict() == {"source": "talk.mp4", **moment, "status": "ok", **SIZE, "faces": [face]}
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


def test_results_are_a_table_and_a_page(tmp_path):
    pandas = pytest.importorskip("pandas")
    results = Results(RESULTS)
    table = results.to_dataframe()
    assert [*table.columns] == [*table_columns(), "anger", "happiness"]
    assert table["label"].dropna().tolist() == ["happiness", "happiness", "anger"]
    results.to_csv(tmp_path / "out.csv")
    pandas.testing.assert_frame_equal(pandas.read_csv(tmp_path / "out.csv"), table, check_dtype=False)
    assert results[0].to_dataframe().equals(Results(results[:1]).to_dataframe())
    assert results._repr_html_() == "".join(f"<pre>{escape(repr(result))}</pre>" for result in RESULTS)
    pixels = np.zeros((50, 60, 3), np.uint8)
    assert replace(RESULTS[0], kept=Kept(pixels))._repr_html_().startswith('<img src="data:image/jpeg;base64,/9j/')


def test_without_pandas_the_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InputError, match="needs pandas: pip install pandas"):
        Results(RESULTS).to_dataframe()


def test_every_kind_of_result_keeps_to_the_schema():
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    moving = Result(
        "talk.mp4", "ok", [replace(HAPPY, track=3, threshold=0.5)], (60, 50), time=1.5, frame=36, drawn="d.mp4"
    )
    lines = [result.to_dict() for result in (*RESULTS, moving)]
    for line in lines:
        jsonschema.validate(json.loads(json.dumps(line)), SCHEMA)
    assert {*SCHEMA["properties"]} == {key for line in lines for key in line}
    assert {*FACE} == {key for line in lines for face in line["faces"] for key in face}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(lines[0] | {"scores": []}, SCHEMA)


def test_supervision_gets_boxes_names_and_tracks(monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(InputError, match="pip install supervision"):
        RESULTS[0].to_supervision()
    monkeypatch.setitem(sys.modules, "supervision", SimpleNamespace(Detections=SimpleNamespace))
    found = replace(RESULTS[0], faces=[replace(HAPPY, track=3)]).to_supervision()
    assert found.xyxy.tolist() == [[1, 2, 30, 40]]
    assert (found.confidence.tolist(), found.class_id.tolist(), found.tracker_id.tolist()) == ([0.75], [1], [3])
    assert found.data["class_name"].tolist() == ["happiness"]
    nothing = RESULTS[1].to_supervision()
    assert (nothing.xyxy.shape, nothing.tracker_id) == ((0, 4), None)


def test_supervision_itself_takes_them():
    supervision = pytest.importorskip("supervision")
    assert len(RESULTS[0].to_supervision()) == 2
    assert isinstance(RESULTS[2].to_supervision(), supervision.Detections)
