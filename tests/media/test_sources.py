import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from facerwkv.media.images import formats
from facerwkv.media.sources import LeftOut, expand_sources, is_live, is_one, is_video, title, why_no_image


def test_what_a_source_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "7").touch()
    videos = ["a.MP4", "0", 0, "rtsp://host/x", "https://host/a.mp4", Path("b.mov")]
    others = ["a.jpg", "7", "mp4", "file:a.jpg", b"0", None]
    assert [*map(is_video, videos)] == [True] * 6
    assert [*map(is_video, others)] == [False] * 6
    assert [*map(is_live, videos)] == [False, True, True, True, False, False]
    assert [*map(title, ["0", "rtsp://me:pw@host/x", "a@b.mp4"])] == ["camera 0", "rtsp://host/x", "a@b.mp4"]


SEVERAL = [[], ["a.png"], (), iter([]), {"a.png"}, np.zeros((2, 4, 6, 3)), torch.zeros(2, 3, 4, 6), np.array(["a.png"])]


def test_lists_batches_and_iterators_are_several_images_and_nothing_else_is():
    assert [is_one(each) for each in SEVERAL] == [False] * len(SEVERAL)
    single = [None, 7, {"image": "a.png"}, io.BytesIO(), bytearray(b"a"), np.zeros((2, 3)), torch.zeros(3, 4, 6), "a"]
    single.append(np.zeros((4, 6, 3), object))
    assert [is_one(each) for each in single] == [True] * len(single)


def test_what_is_in_a_folder_and_not_read_is_counted_and_named(tmp_path, caplog):
    (tmp_path / "photos").mkdir()
    for name in ("a.jpg", "b.HEIC", "talk.mp4", "b.mov", "notes.txt", "a_drawn.jpg", "scan", ".hidden.txt", "c.fake"):
        (tmp_path / "photos" / name).touch()
    (tmp_path / "photos" / "away").symlink_to(tmp_path)
    photos = str(tmp_path / "photos")
    assert list(expand_sources([photos])) == [f"{photos}/a.jpg", f"{photos}/b.HEIC"]
    left = (
        "1 linked folder (away), 1 drawing (a_drawn.jpg), 2 videos (b.mov, talk.mp4), 2 other files (c.fake, notes.txt)"
    )
    left += ", 1 file without an ending (scan)"
    assert caplog.messages == [f"{photos}: not read: {left}."]
    for name in ("a.jpg", "b.HEIC"):
        (tmp_path / "photos" / name).unlink()
    assert why_no_image(photos, "photos", "") == f"photos is a folder without images; in it: {left}."
    closed = LeftOut()
    closed.add("closed folder", "x/secret")
    assert str(closed) == "1 closed folder (secret)"


def test_formats_of_plugins_are_read_and_of_pillow_those_that_are_safe(tmp_path, monkeypatch):
    assert {"JPEG", "PNG", "WEBP"} <= {*formats()}
    assert not {"EPS", "TGA"} & {*formats()}
    monkeypatch.setitem(Image.OPEN, "FAKE", (lambda *_: None, None))
    monkeypatch.setitem(Image.EXTENSION, ".fake", "FAKE")
    assert "FAKE" in formats()
    (tmp_path / "c.fake").touch()
    assert list(expand_sources([str(tmp_path)])) == [f"{tmp_path}/c.fake"]


@pytest.fixture
def tree(tmp_path, monkeypatch) -> Path:
    for name in [
        "b/10.jpg",
        "b/2.JPG",
        "b/notes.txt",
        "b/.hidden.jpg",
        ".trash/1.jpg",
        "a.png",
        "x[1].png",
        "empty/t.txt",
    ]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "stdin", "expected"),
    [
        (["."], "", ["./a.png", "./x[1].png", "./b/2.JPG", "./b/10.jpg"]),
        (["b", "a.png"], "", ["b/2.JPG", "b/10.jpg", "a.png"]),
        (["*.png"], "", ["a.png", "x[1].png"]),
        (["**/*.jpg"], "", ["b/10.jpg"]),
        (["?"], "", ["b/2.JPG", "b/10.jpg"]),
        (["x[1].png"], "", ["x[1].png"]),
        (["b/notes.txt"], "", ["b/notes.txt"]),
        (["gone.jpg", "*.tif", "empty"], "", ["gone.jpg", "*.tif", "empty"]),
        (["-"], "a.png\n\nb\r\n-\n", ["a.png", "b/2.JPG", "b/10.jpg"]),
        (["-"], "a.png\0gone\0", ["a.png", "gone"]),
        ([], "", []),
    ],
)
def test_what_a_command_line_means(tree, arguments, stdin, expected):
    assert list(expand_sources(arguments, io.StringIO(stdin))) == expected
