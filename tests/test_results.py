import csv
import io
import json
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from facerwkv.errors import InputError
from facerwkv.results import Face, Media, Result, Summary, deliver, save_media, table, write_results

LABELS = ("anger", "happiness")
HAPPY = Face("happiness", 0.75, {"anger": 0.25, "happiness": 0.75}, (1, 2, 30, 40), 0.9)
ANGRY = Face("anger", 0.5, {"anger": 0.5, "happiness": 0.5})
RESULTS = [
    Result("a, b.jpg", "ok", [HAPPY, HAPPY], (60, 50)),
    Result("scene.jpg", "ok", [ANGRY], (60, 50)),
    Result("none.jpg", "no_face", size=(60, 50)),
    Result("bad.jpg", "unreadable", message="bad.jpg is empty."),
]
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
  1  whole picture  anger 0.50  happiness 0.50
none.jpg  60x50  no face
bad.jpg
  bad.jpg is empty.
"""


def test_the_dictionary_is_what_programs_read():
    assert [result.to_dict() for result in RESULTS] == DICTS


def test_the_text_is_what_people_read():
    console = Console(width=100, file=io.StringIO())
    console.print(table(RESULTS))
    assert console.file.getvalue() == TEXT
    assert "\n".join(map(repr, RESULTS)) + "\n" == TEXT


def test_csv_has_a_row_per_face_and_a_column_per_label(tmp_path):
    write_results(RESULTS, tmp_path / "out.csv", LABELS)
    with open(tmp_path / "out.csv", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["source", "status", "x1", "y1", "x2", "y2", "label", "score", "anger", "happiness"]
    assert rows == [
        ["a, b.jpg", "ok", "1", "2", "30", "40", "happiness", "0.75", "0.25", "0.75"],
        ["a, b.jpg", "ok", "1", "2", "30", "40", "happiness", "0.75", "0.25", "0.75"],
        ["scene.jpg", "ok", "", "", "", "", "anger", "0.5", "0.5", "0.5"],
        ["none.jpg", "no_face", "", "", "", "", "", "", "", ""],
        ["bad.jpg", "unreadable", "", "", "", "", "", "", "", ""],
    ]


@pytest.mark.parametrize("results", [RESULTS, []])
def test_json_is_one_array_and_jsonl_one_object_a_line(tmp_path, results):
    write_results(results, tmp_path / "out.json", LABELS)
    write_results(results, tmp_path / "out.jsonl", LABELS)
    expected = DICTS[: len(results)]
    assert json.loads((tmp_path / "out.json").read_text()) == expected
    assert [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()] == expected


@pytest.mark.parametrize("name", ["out.csv", "out.json", "out.jsonl"])
def test_names_that_are_no_unicode_are_written(tmp_path, name):
    write_results([Result("caf\udce9.jpg", "no_face")], tmp_path / name, LABELS)
    assert "caf" in (tmp_path / name).read_text(errors="replace")
    assert repr(Result("caf\udce9.jpg", "no_face")).startswith("caf?.jpg")


@pytest.mark.parametrize("name", ["out.xlsx", "out"])
def test_an_unknown_ending_is_refused_with_the_known_ones(tmp_path, name):
    with pytest.raises(InputError, match=r"\.csv, \.json, \.jsonl"):
        write_results(RESULTS, tmp_path / name, LABELS)
    assert list(tmp_path.iterdir()) == []


def stopped_by(error: BaseException) -> Iterator[Result]:
    yield RESULTS[0]
    raise error


def test_ctrl_c_leaves_what_came_before(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        write_results(stopped_by(KeyboardInterrupt()), tmp_path / "out.json", LABELS)
    assert json.loads((tmp_path / "out.json").read_text()) == DICTS[:1]


def test_an_error_leaves_nothing(tmp_path):
    with pytest.raises(InputError):
        write_results(stopped_by(InputError("no detector")), tmp_path / "out.json", LABELS)
    assert list(tmp_path.iterdir()) == []


def test_the_summary_counts():
    summary = Summary()
    for result in RESULTS:
        summary.add(result)
    assert str(summary).startswith("4 pictures, 2 faces, 1 without a face, 1 failed; ")
    assert [result.source for result in summary.failed] == ["bad.jpg"]
    assert (summary.without, summary.faces) == (1, 2)


def drawable(source: str) -> Result:
    return Result(source, "ok", [HAPPY], (60, 50), picture=np.full((50, 60, 3), 200, np.uint8))


def test_drawings_get_safe_unique_names_and_unreadable_pictures_none(tmp_path):
    sources = ["a/party.jpg", "b/Party.png", "../we?ird\n name.jpg", "array 0", "ünï.webp", ".jpg"]
    files = save_media([*map(drawable, sources), RESULTS[3]], tmp_path / "drawn")
    assert [file.name for file in files] == [
        "party_drawn.jpg",
        "Party_drawn-2.jpg",
        "we_ird_name_drawn.jpg",
        "array_0_drawn.jpg",
        "ünï_drawn.jpg",
        "jpg_drawn.jpg",
    ]
    assert sorted(tmp_path.glob("drawn/*")) == sorted(files)
    assert Image.open(files[0]).size == (480, 400)


def test_an_unreadable_picture_cannot_be_drawn(tmp_path):
    assert Media(tmp_path)(RESULTS[3]) is None
    with pytest.raises(InputError, match=r"bad\.jpg is empty"):
        RESULTS[3].plot()


class Named:
    labels = LABELS

    def __repr__(self) -> str:
        return "tiny (2 labels) on cpu"


def test_programs_get_one_line_of_json_per_picture(capsys):
    assert deliver(RESULTS, Named(), None, None, as_json=True) == [RESULTS[3]]
    out, err = capsys.readouterr()
    assert [json.loads(line) for line in out.splitlines()] == DICTS
    assert err.startswith("4 pictures, 2 faces, 1 without a face, 1 failed; ")


def test_people_get_text_a_summary_and_the_files_they_asked_for(capsys, tmp_path):
    picture = drawable("party.jpg")
    assert deliver([picture], Named(), tmp_path / "out.csv", tmp_path / "drawn", as_json=False) == []
    first, *middle, last = capsys.readouterr().out.splitlines()
    assert first == "tiny (2 labels) on cpu"
    assert middle == repr(picture).splitlines()
    assert last.startswith("1 picture, 1 face; ")
    assert last.endswith(f"; wrote {tmp_path / 'out.csv'}; wrote {tmp_path / 'drawn'}")
    assert (tmp_path / "out.csv").exists()
    assert (tmp_path / "drawn" / "party_drawn.jpg").exists()
