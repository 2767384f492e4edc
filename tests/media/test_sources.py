import io
from pathlib import Path

import pytest

from facerwkv.media.sources import expand_sources, is_live, is_video, title


def test_what_a_source_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "7").touch()
    videos = ["a.MP4", "0", 0, "rtsp://host/x", "https://host/a.mp4", Path("b.mov")]
    others = ["a.jpg", "7", "mp4", "file:a.jpg", b"0", None]
    assert [*map(is_video, videos)] == [True] * 6
    assert [*map(is_video, others)] == [False] * 6
    assert [*map(is_live, videos)] == [False, True, True, True, False, False]
    assert [*map(title, ["0", "rtsp://me:pw@host/x", "a@b.mp4"])] == ["camera 0", "rtsp://host/x", "a@b.mp4"]


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
