import csv
import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facerwkv.core.errors import InputError
from facerwkv.inference.drawn import Media
from facerwkv.inference.results import Face, Kept, Result
from facerwkv.inference.sinks import (
    SINKS,
    Summary,
    TextReport,
    deliver,
    table_columns,
    writer,
)
from facerwkv.media.frames import read_frames
from facerwkv.media.sources import expand_sources, is_video
from tests.examples import HAPPY, LABELS, RESULTS

DICTS = [result.to_dict() for result in RESULTS]
IMAGES = table_columns()


def write_results(results, path, labels, columns=IMAGES) -> None:
    with writer(path, labels, columns) as write:
        for result in results:
            write(result)


def judged(results, threshold: float) -> list[Result]:
    """The results with the threshold below which a label is unsure."""
    return [replace(result, faces=[replace(face, threshold=threshold) for face in result.faces]) for result in results]


BRIGHT = np.full((50, 60, 3), 200, np.uint8)


def frame(number: int, *tracks: int, source: str = "talk.mp4") -> Result:
    """A frame of a video with 4 frames a second, with these faces."""
    faces = [replace(HAPPY, track=track) for track in tracks]
    status = "ok" if tracks else "no_face"
    return Result(source, status, faces, (60, 50), kept=Kept(BRIGHT), time=number / 4, frame=number)


CUT = Result("talk.mp4", "unreadable", message="talk.mp4 stops at 0.5 s.", time=0.5, frame=3)
CLIP = [frame(0, 1, 2), frame(1, 2), frame(2), CUT]


def test_csv_has_a_row_per_face_and_a_column_per_label(tmp_path):
    write_results(RESULTS, tmp_path / "out.csv", LABELS)
    with open(tmp_path / "out.csv", encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    columns = "source status width height x1 y1 x2 y2 detection label score anger happiness"
    assert header == columns.split()
    assert rows == [
        ["a, b.jpg", "ok", "60", "50", "1", "2", "30", "40", "0.9", "happiness", "0.75", "0.25", "0.75"],
        ["a, b.jpg", "ok", "60", "50", "1", "2", "30", "40", "0.9", "happiness", "0.75", "0.25", "0.75"],
        ["scene.jpg", "ok", "60", "50", "", "", "", "", "", "anger", "0.5", "0.5", "0.5"],
        ["none.jpg", "no_face", "60", "50", *[""] * 9],
        ["bad.jpg", "unreadable", *[""] * 11],
    ]


def test_a_csv_is_utf8_without_formulas_and_with_six_digits(tmp_path):
    probs = {"=1+1": 2 / 3, "b": 1 / 3}
    face = Face("=1+1", 2 / 3, probs, (1, 2, 30, 40), 0.987654321)
    names = [os.fsdecode(b"caf\xe9.jpg"), "caf\u00e9.jpg", "-x.jpg", "@SUM(A1).jpg", "a=b.jpg"]
    write_results([Result(name, "ok", [face], (60, 50)) for name in names], tmp_path / "out.csv", probs)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out.csv").read_bytes().decode("utf-8"))))
    assert [row["source"] for row in rows] == ["caf\\xe9.jpg", "caf\u00e9.jpg", "'-x.jpg", "'@SUM(A1).jpg", "a=b.jpg"]
    cells = [rows[0][name] for name in ("detection", "label", "score", "'=1+1", "b")]
    assert cells == ["0.987654", "'=1+1", "0.666667", "0.666667", "0.333333"]
    values = Result("x", "ok", [face], (60, 50)).to_dict()["faces"][0]
    assert (values["score"], values["probs"]["b"], values["detection"]) == (0.666667, 0.333333, 0.987654)


ROWS = [
    ("talk.mp4", "ok", 60, 50, 0.0, 0, 1, 1, 2, 30, 40, 0.9, "happiness", 0.75, 0.25, 0.75),
    ("talk.mp4", "ok", 60, 50, 0.0, 0, 2, 1, 2, 30, 40, 0.9, "happiness", 0.75, 0.25, 0.75),
    ("talk.mp4", "ok", 60, 50, 0.25, 1, 2, 1, 2, 30, 40, 0.9, "happiness", 0.75, 0.25, 0.75),
    ("talk.mp4", "no_face", 60, 50, 0.5, 2, *[None] * 10),
    ("talk.mp4", "unreadable", None, None, 0.5, 3, *[None] * 10),
    ("none.jpg", "no_face", 60, 50, *[None] * 12),
]


def test_a_videos_csv_has_a_row_per_face_and_frame(tmp_path):
    write_results([*CLIP, RESULTS[2]], tmp_path / "out.csv", LABELS, table_columns(video=True))
    with open(tmp_path / "out.csv", encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    columns = "source status width height time frame track x1 y1 x2 y2 detection label score anger happiness"
    assert header == columns.split()
    assert rows == [["" if cell is None else str(cell) for cell in row] for row in ROWS]


@pytest.mark.parametrize("rows_at_once", [2, 4096])
def test_parquet_has_the_same_rows_with_their_types(tmp_path, monkeypatch, rows_at_once):
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("facerwkv.inference.sinks.ROWS", rows_at_once)
    write_results([*CLIP, RESULTS[2]], tmp_path / "out.parquet", LABELS, table_columns(video=True))
    table = parquet.read_table(tmp_path / "out.parquet")
    assert [tuple(row.values()) for row in table.to_pylist()] == ROWS
    assert table.column_names == [*table_columns(video=True), *LABELS]
    assert list(map(str, table.schema.types)) == [
        *("string", "string", "int64", "int64", "double", *["int64"] * 6, "double"),
        *("string", "double", "double", "double"),
    ]


def test_with_a_threshold_a_table_says_what_is_unsure(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = table_columns(video=False, threshold=0.6)
    for name in ("out.csv", "out.parquet"):
        write_results(judged(RESULTS, 0.6), tmp_path / name, LABELS, columns)
    with open(tmp_path / "out.csv", encoding="utf-8", newline="") as file:
        assert [row["unsure"] for row in csv.DictReader(file)] == ["False", "False", "True", "", ""]
    table = parquet.read_table(tmp_path / "out.parquet")
    assert table["unsure"].to_pylist() == [False, False, True, None, None]
    assert table.column_names == [*columns, *LABELS]


@pytest.mark.parametrize(("threshold", "doubt"), [(0.75, ""), (0.8, "  (unsure: below 0.8)")])
def test_a_face_whose_mean_through_a_video_is_below_the_threshold_is_unsure(threshold, doubt):
    report = TextReport()
    for result in judged(CLIP[:2], threshold):
        assert list(report(result)) == []
    (text,) = report.end()
    assert text.plain.splitlines()[1] == f"  2  0.0-0.2 s  happiness 0.75  anger 0.25{doubt}"


def test_parquet_of_nothing_has_columns(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    write_results([], tmp_path / "out.parquet", LABELS)
    assert parquet.read_table(tmp_path / "out.parquet").num_rows == 0


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r'pip install "facerwkv\[parquet\]"'):
        write_results([], tmp_path / "out.parquet", LABELS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("sources", "moving"), [(["a.jpg", "b.mp4"], True), (["rtsp://x/y"], True), (["a.jpg"], False)]
)
def test_a_table_has_a_videos_columns_if_there_is_one(sources, moving):
    assert ("track" in table_columns(any(map(is_video, sources)))) is moving


@pytest.mark.parametrize("results", [RESULTS, []])
def test_json_is_one_array_and_jsonl_one_object_a_line(tmp_path, results):
    write_results(results, tmp_path / "out.json", LABELS)
    write_results(results, tmp_path / "out.jsonl", LABELS)
    expected = DICTS[: len(results)]
    assert json.loads((tmp_path / "out.json").read_text()) == expected
    assert [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()] == expected


@pytest.mark.parametrize("ending", SINKS)
def test_names_that_are_no_unicode_are_written(tmp_path, ending):
    name = f"out{ending}"
    write_results([Result("caf\udce9.jpg", "no_face")], tmp_path / name, LABELS)
    assert b"caf" in (tmp_path / name).read_bytes()
    assert repr(Result("caf\udce9.jpg", "no_face")).startswith("caf?.jpg")


@pytest.mark.parametrize("name", ["out.xlsx", "out"])
def test_an_unknown_ending_is_refused_with_the_known_ones(tmp_path, name):
    with pytest.raises(InputError, match=f"end its name in one of {', '.join(SINKS)}\\."):
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
    assert str(summary).startswith("4 images, 2 faces, 1 without a face, 1 failed; ")
    assert [result.source for result in summary.failed] == ["bad.jpg"]
    assert (summary.without, summary.faces) == (1, 2)


def drawable(source: str) -> Result:
    return Result(source, "ok", [HAPPY], (60, 50), kept=Kept(BRIGHT))


DRAWINGS = {
    "a/1.jpg": "a/1_drawn.jpg",
    "b/1.jpg": "b/1_drawn.jpg",
    "b/1.png": "b/1_drawn-2.jpg",
    "b/1.JPG": "b/1_drawn-3.jpg",
    "../ünï \n.webp": "ünï \n_drawn.jpg",
    "../other/ünï \n.webp": "ünï \n_drawn-2.jpg",
    "../tree/sub/1.jpg": "sub/1_drawn.jpg",
    "array 0": "array_0_drawn.jpg",
}


def test_drawings_mirror_the_tree_and_none_overwrites_another_source_s(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for source in DRAWINGS:
        if source != "array 0":
            Path(source).parent.mkdir(parents=True, exist_ok=True)
            Path(source).touch()
    names = [*DRAWINGS.values()]
    for again in ("array_0_drawn.jpg", "array_0_drawn-2.jpg"):  # each source in a run of its own
        for source, name in zip(DRAWINGS, names, strict=True):
            with closing(Media("drawn", roots=["../tree"])) as media:
                assert str(media(drawable(source)).relative_to("drawn")) == (again if source == "array 0" else name)
                assert media(RESULTS[3]) is None
    found = [str(path.relative_to("drawn")) for path in Path("drawn").rglob("*.jpg")]
    assert sorted(found) == sorted([*names, "array_0_drawn-2.jpg"])
    assert Image.open("drawn/a/1_drawn.jpg").size == (480, 400)
    assert list(expand_sources(["drawn", "drawn/**/*.jpg"])) == ["drawn", "drawn/**/*.jpg"]


def test_lines_and_tables_name_the_drawing(capsys, tmp_path):
    out, folder = tmp_path / "out.csv", tmp_path / "drawn"
    deliver([drawable("x.jpg"), RESULTS[3]], Named(), out, folder, True, table_columns(drawn=True))
    drawn = str(folder / "x_jpg_drawn.jpg")
    assert [json.loads(line).get("drawn") for line in capsys.readouterr().out.splitlines()] == [drawn, None]
    with open(out, encoding="utf-8", newline="") as file:
        assert [row["drawn"] for row in csv.DictReader(file)] == [drawn, ""]


def test_an_unreadable_image_is_not_drawn(tmp_path):
    assert Media(tmp_path)(RESULTS[3]) is None


class Named:
    labels = LABELS

    def __repr__(self) -> str:
        return "tiny (2 labels) on cpu"


def test_programs_get_one_line_of_json_per_image(capsys):
    assert deliver(RESULTS, Named(), None, None, as_json=True) == [RESULTS[3]]
    out, err = capsys.readouterr()
    assert [json.loads(line) for line in out.splitlines()] == DICTS
    assert err.startswith("4 images, 2 faces, 1 without a face, 1 failed; ")


def test_people_get_text_a_summary_and_the_files_they_asked_for(capsys, tmp_path):
    image = drawable("party.jpg")
    assert deliver([image], Named(), tmp_path / "out.csv", tmp_path / "drawn", as_json=False) == []
    first, *middle, last = capsys.readouterr().out.splitlines()
    assert first == "tiny (2 labels) on cpu"
    assert middle == repr(image).splitlines()
    assert last.startswith("1 image, 1 face; ")
    assert last.endswith(f"; wrote {tmp_path / 'out.csv'}; wrote {tmp_path / 'drawn'}")
    assert (tmp_path / "out.csv").exists()
    assert (tmp_path / "drawn" / "party_jpg_drawn.jpg").exists()


def test_frames_of_a_source_become_one_video(tmp_path):
    again = frame(0, 1)
    clips = [*CLIP, frame(0, 1, source="b.mov"), frame(1, source="b.mov"), again]
    with closing(Media(tmp_path)) as media:
        files = list(dict.fromkeys(path for path in map(media, clips) if path))
    assert [file.name for file in files] == ["talk_mp4_drawn.mp4", "b_mov_drawn.mp4", "talk_mp4_drawn-2.mp4"]
    assert [len(list(read_frames(file))) for file in files] == [3, 2, 1]


def test_people_get_a_summary_of_a_video_when_it_has_ended(capsys):
    assert deliver([*CLIP, RESULTS[2]], Named(), None, None, as_json=False) == [CUT]
    assert capsys.readouterr().out.splitlines()[1:-1] == [
        "talk.mp4  60x50  3 frames  2 faces",
        "  2  0.0-0.2 s  happiness 0.75  anger 0.25",
        "  1  0.0-0.0 s  happiness 0.75  anger 0.25",
        "talk.mp4  0.50 s",
        "  talk.mp4 stops at 0.5 s.",
        "none.jpg  60x50  no face",
    ]


def test_the_summary_counts_frames(capsys):
    deliver([*CLIP, RESULTS[2]], Named(), None, None, as_json=True)
    summary = capsys.readouterr().err
    assert summary.startswith("1 image, 3 frames, 3 faces, 2 without a face, 1 failed; ")
    assert summary.endswith(" frames/s)\n")


def test_what_is_reported_of_a_crowd_is_bounded(monkeypatch):
    monkeypatch.setattr("facerwkv.inference.sinks.REMEMBERED", 50)
    report = TextReport()
    for i in range(200):
        assert list(report(frame(i, 1, i + 2))) == []
    (text,) = report.end()
    first, second, *_, last = text.plain.splitlines()
    assert first == "talk.mp4  60x50  200 frames  50 faces"
    assert second == "  1  0.0-49.8 s  happiness 0.75  anger 0.25"
    assert last == "  and 30 more"
