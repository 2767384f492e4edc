import re
import socket
import struct
import subprocess
import sys
import threading
from contextlib import ExitStack, closing, suppress
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from facerwkv.core.errors import InputError
from facerwkv.media import container, frames
from facerwkv.media.frames import Selection, UnreadableVideo, VideoWriter, duration, read_frames
from tests.media.made import counted, ffmpeg, tone

SIZE = (96, 64)
CODECS = {".avi": "mpeg4"}


def grey(value: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.full((size[1], size[0], 3), value, np.uint8)


def noise(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)


def clip(path: Path, images, ticks=None, turned: int = 0, **options) -> Path:
    """A video of these images, 25 a second or at these 25ths of a second."""
    images = list(images)
    with av.open(path, "w", options=options) as file:
        track = file.add_stream(CODECS.get(path.suffix, "libx264"), rate=25)
        track.width, track.height, track.pix_fmt = images[0].shape[1], images[0].shape[0], "yuv420p"
        track.gop_size, track.codec_context.options = 10, {} if path.suffix in CODECS else {"crf": "1"}
        if turned:
            track.set_display_rotation(turned)
        for tick, rgb in zip(ticks or range(len(images)), images, strict=True):
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame.pts, frame.time_base = tick, Fraction(1, 25)
            file.mux(track.encode(frame))
        file.mux(track.encode(None))
    return path


def read_all(source, *part, **named) -> tuple[list[frames.Frame], str]:
    """The frames, and the sentence that they end with."""
    found: list[frames.Frame] = []
    try:
        found.extend(read_frames(source, Selection(*part, **named), timeout=1))
    except UnreadableVideo as error:
        return found, str(error)
    return found, ""


@pytest.fixture(scope="module", name="counted")
def fifty_frames(tmp_path_factory) -> Path:
    """Two seconds; the grey value says which frame it is."""
    return clip(tmp_path_factory.mktemp("frames") / "counted.mp4", [grey(4 * i) for i in range(50)])


@pytest.mark.parametrize("ending", [".mp4", ".mkv", ".ts", ".avi", ".mov"])
def test_frames_come_in_order_with_their_times(tmp_path, ending):
    found, end = read_all(clip(tmp_path / f"a{ending}", [grey(20 * i) for i in range(10)]))
    assert end == ""
    assert [frame.number for frame in found] == list(range(10))
    assert [frame.time for frame in found] == pytest.approx([i / 25 for i in range(10)], abs=1e-3)
    for i, frame in enumerate(found):
        assert (frame.rgb.shape, frame.rgb.dtype) == ((64, 96, 3), np.uint8)
        assert abs(frame.rgb.mean() - 20 * i) < 6


def test_colours_are_red_green_blue(tmp_path):
    red = np.zeros((64, 96, 3), np.uint8)
    red[..., 0] = 200
    (frame,), _ = read_all(clip(tmp_path / "red.mp4", [red]))
    assert frame.rgb[32, 48].tolist() == pytest.approx([200, 0, 0], abs=12)


@pytest.mark.parametrize(
    ("part", "numbers"),
    [
        ({}, range(50)),
        ({"stride": 7}, range(0, 50, 7)),
        ({"fps": 5}, range(0, 50, 5)),
        ({"fps": 100}, range(50)),
        ({"start": 1.0}, range(25, 50)),
        ({"start": 0.5, "end": 1.0}, range(13, 25)),
        ({"start": 1.2, "end": 1.8, "stride": 4}, [30, 34, 38, 42]),
        ({"end": 99}, range(50)),
    ],
    ids=str,
)
def test_a_part_has_the_frames_it_says(counted, part, numbers):
    found, end = read_all(counted, **part)
    assert (end, [frame.number for frame in found]) == ("", list(numbers))
    for frame in found:
        assert frame.time == pytest.approx(frame.number / 25)
        assert abs(frame.rgb.mean() - 4 * frame.number) < 4


def test_frames_that_are_not_wanted_are_not_converted(counted, monkeypatch):
    converted = []
    monkeypatch.setattr(frames, "to_rgb", lambda frame, size: converted.append(frame.pts))
    assert len(read_all(counted, stride=10)[0]) == len(converted) == 5


def test_a_variable_frame_rate_is_kept(tmp_path):
    ticks = [0, 1, 2, 10, 30, 31, 60]
    found, end = read_all(clip(tmp_path / "vfr.mp4", [grey(30 * i) for i in range(7)], ticks))
    assert (end, [round(25 * frame.time) for frame in found]) == ("", ticks)
    found, _ = read_all(tmp_path / "vfr.mp4", fps=2.5)
    assert [round(25 * frame.time) for frame in found] == [0, 10, 30, 60]


@pytest.mark.parametrize("degrees", [90, 180, -90])
def test_a_turned_video_is_read_upright(tmp_path, degrees):
    image = grey(40)
    image[:20, :20] = 220
    (frame,), _ = read_all(clip(tmp_path / "turned.mp4", [image], turned=degrees))
    expected = np.rot90(image, degrees // 90)
    assert frame.rgb.shape == expected.shape
    assert np.abs(frame.rgb.astype(int) - expected).mean() < 5


CUT = r"cut\.\w+ stops at \d\.\d s( of 4\.0 s)?: it is damaged or cut short\. What came before is kept\."


@pytest.mark.parametrize(
    ("name", "options"), [("cut.mp4", {"movflags": "faststart"}), ("cut.mkv", {}), ("cut.avi", {})]
)
def test_a_video_that_is_cut_short_gives_what_came_before(tmp_path, name, options):
    path = clip(tmp_path / name, map(noise, range(100)), **options)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    found, end = read_all(path)
    assert 40 < len(found) < 70
    assert pytest.approx(float(end.split(" at ")[1].split(" s")[0]), abs=0.2) == found[-1].time
    assert re.fullmatch(r".*" + CUT, end)


def test_one_frame_under_a_longer_sound_is_whole(tmp_path):
    found, end = read_all(ffmpeg(tmp_path / "one.mkv", *counted(0.04), *tone(1), "-c:v", "libx264"))
    assert (len(found), end) == (1, "")


def test_a_damaged_tail_gives_what_came_before(tmp_path):
    path = clip(tmp_path / "cut.avi", map(noise, range(100)))
    data = bytearray(path.read_bytes())
    data[len(data) * 6 // 10 :] = bytes(len(data) - len(data) * 6 // 10)
    path.write_bytes(data)
    found, end = read_all(path)
    assert 40 < len(found) < 70
    assert "What came before is kept." in end


def test_a_variable_rate_that_ends_with_a_long_frame_is_whole(tmp_path):
    assert read_all(clip(tmp_path / "slides.mp4", map(grey, (10, 90, 200)), [0, 100, 300]))[1] == ""


def sound(path: Path) -> Path:
    with av.open(path, "w") as file:
        track = file.add_stream("aac", rate=48_000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 48_000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 48_000
        file.mux(track.encode(frame))
        file.mux(track.encode(None))
    return path


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def bare(path: Path) -> Path:
    """A track without a frame."""
    with av.open(path, "w", format="mp4", options={"movflags": "empty_moov+frag_keyframe"}) as file:
        track = file.add_stream("mpeg4", rate=25)
        track.width, track.height, track.pix_fmt = 96, 64, "yuv420p"
        file.start_encoding()
    return path


BAD = {
    "gone.mp4": (lambda path: path, "cannot be read: there is no such file."),
    "empty.mp4": (lambda path: written(path, b""), "cannot be read: it is empty."),
    "folder.mp4": (lambda path: path.mkdir() or path, "cannot be read: it is a folder."),
    "text.mp4": (lambda path: written(path, b"I am a text."), "it is no video, or it is damaged or cut short."),
    "sound.mp4": (sound, "has no video track; give a video with images."),
    "bare.mp4": (bare, "has no frames: it is empty or damaged."),
    "list.mp4": (
        lambda path: written(path, b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n"),
        "",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_video_is_a_sentence(tmp_path, name):
    make, sentence = BAD[name]
    found, end = read_all(make(tmp_path / name))
    assert found == []
    assert end.startswith(str(tmp_path / name))
    assert end.endswith(sentence)


def test_a_start_behind_the_end_is_a_sentence(counted):
    assert read_all(counted, start=60)[1] == f"{counted} has no frames from 60 s on; start earlier."


def test_frames_that_are_too_large_are_refused(counted, monkeypatch):
    monkeypatch.setattr(container, "MAX_PIXELS", 96 * 64 - 1)
    found, end = read_all(counted)
    assert (found, "96 x 64 pixels, more than the 6,143 that are allowed" in end) == ([], True)


def test_no_camera_is_a_sentence_and_quiet(capfd):
    found, end = read_all(98)
    assert (found, end.startswith("There is no camera 98, or it may not be used.")) == ([], True)
    assert capfd.readouterr().err == ""


class Camera:
    """Two frames, red in OpenCV's order, then nothing."""

    def __init__(self, number):
        self.left = 2

    def isOpened(self):
        return True

    def read(self):
        self.left -= 1
        return self.left >= 0, np.full((8, 8, 3), (0, 0, 200), np.uint8)

    def release(self):
        self.left = 0


def test_a_camera_gives_rgb_until_it_stops(monkeypatch):
    monkeypatch.setattr("cv2.VideoCapture", Camera)
    found, end = read_all("0")
    assert [frame.number for frame in found] == [0, 1]
    assert 0 <= found[0].time <= found[1].time < 1
    assert found[0].rgb[0, 0].tolist() == [200, 0, 0]
    assert end.startswith("Camera 0 stopped after 0.")


@pytest.fixture
def served():
    """Serves bytes: `served(data, sent, length, end)` sends the first `sent` of them over HTTP, or TCP without HTTP's
    header (`length` None), and then waits, closes or resets; the address."""
    over, sockets = threading.Event(), ExitStack()

    def serve(data: bytes, sent: int, length: str | None = "full", end: str = "close") -> str:
        listening = sockets.enter_context(socket.create_server(("127.0.0.1", 0)))

        def answer() -> None:
            with suppress(OSError):
                connection, _ = listening.accept()
                if length is not None:
                    connection.recv(4096)
                    header = f"Content-Length: {len(data)}\r\n" if length == "full" else ""
                    connection.sendall(f"HTTP/1.1 200 OK\r\nConnection: close\r\n{header}\r\n".encode())
                connection.sendall(data[:sent])
                if end == "wait":
                    over.wait(20)
                if end == "reset":
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.close()

        threading.Thread(target=answer, daemon=True).start()
        scheme = "tcp" if length is None else "http"
        return f"{scheme}://user:secret@127.0.0.1:{listening.getsockname()[1]}/a.ts"

    yield serve
    over.set()
    sockets.close()


@pytest.fixture(scope="module")
def streams(tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("streams")
    return {ending: clip(folder / f"a{ending}", map(noise, range(50))).read_bytes() for ending in (".ts", ".mkv")}


def test_a_stream_that_stalls_is_given_up_and_its_password_is_not_told(streams, served):
    address = served(streams[".ts"], 200_000, end="wait")
    found, end = read_all(address)
    assert len(found) > 10
    assert end.startswith(f"{address.replace('user:secret@', '')} stops at ")
    assert end.endswith(" s: nothing came for 1 s. What came before is kept.")


def test_a_stream_that_never_answers_is_given_up(served):
    found, end = read_all(served(b"", 0, "unknown", "wait"))
    assert (found, end.endswith("/a.ts did not answer within 1 s. Is its address right?")) == ([], True)


@pytest.mark.parametrize("ending", [".ts", ".mkv"])
@pytest.mark.parametrize("length", ["full", "unknown", None])
@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_stream_whose_connection_drops_says_so(streams, served, ending, length, how):
    data = streams[ending]
    found, end = read_all(served(data, len(data) * 6 // 10, length, how))
    assert (0 if how == "reset" else 20) <= len(found) < 35  # a reset takes what was not read yet
    kept = r" stops at \d\.\d s( of 2\.0 s)?: [a-z ]+\. What came before is kept\.$"
    assert re.search(kept if found else ".", end), end


def test_a_stream_that_comes_whole_is_whole(streams, served):
    for ending, length in ((".ts", "full"), (".mkv", "full"), (".mkv", "unknown"), (".mkv", None)):
        data = streams[ending]
        found, end = read_all(served(data, len(data), length))
        assert (len(found), end) == (50, "")


def test_where_a_stream_says_neither_length_nor_size_its_end_is_said(streams, served):
    found, end = read_all(served(streams[".ts"], len(streams[".ts"]), None))
    assert (len(found), end.endswith("stops at 2.0 s: the stream ended. What came before is kept.")) == (50, True)


@pytest.mark.parametrize("share", [0.9, 0.56])
@pytest.mark.parametrize("ending", [".mp4", ".mov", ".mkv", ".webm", ".avi", ".ts", ".flv", ".wmv"])
def test_a_short_file_that_is_cut_a_little_says_so(tmp_path, ending, share):
    codecs = {
        ".webm": ["libvpx", "-c:a", "libopus"],
        ".avi": ["mpeg4", "-q:v", "2"],
        ".wmv": ["wmv2", "-q:v", "2"],
    }.get(ending, ["libx264", "-crf", "9"])
    pattern = ["-f", "lavfi", "-i", "testsrc2=s=96x64:r=25:d=2"]
    path = ffmpeg(tmp_path / f"cut{ending}", *pattern, *tone(2), "-c:v", *codecs, "-movflags", "faststart")
    whole, end = read_all(path)
    assert (len(whole), end) == (50, "")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    found, end = read_all(path)
    assert 0 < len(found) < 50
    assert re.fullmatch(r".*cut\.\w+ stops at \d\.\d s( of 2\.0 s)?: it is damaged or cut short\..*", end), (
        len(found),
        end,
    )


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"stride": 0}, "stride is 0"),
        ({"fps": 0.0}, r"fps is 0\.0"),
        ({"fps": float("nan")}, "fps is nan"),
        ({"start": -1.0}, "start is -1 s"),
        ({"start": 5.0, "end": 5.0}, "choose 0 <= start < end"),
    ],
)
def test_a_part_that_means_nothing_is_refused(part, message):
    with pytest.raises(InputError, match=message):
        Selection(**part)


def test_the_length_of_a_file_is_known_before(counted):
    assert duration(counted) == pytest.approx(2)
    assert [duration("gone.mp4"), duration(0), duration("rtsp://host/x")] == [None] * 3


@pytest.mark.parametrize("size", [(96, 64), (97, 65), (2, 1)])
def test_what_is_written_can_be_read_again(tmp_path, size):
    times = [3.0, 3.1, 3.5, 3.5, 9.0]
    with closing(VideoWriter(tmp_path / "new" / "out.mp4")) as writer:
        for i, time in enumerate(times):
            writer.write(time, grey(40 * i, size))
    found, end = read_all(tmp_path / "new" / "out.mp4")
    assert end == ""
    assert [frame.time for frame in found] == pytest.approx([0, 0.1, 0.5, 0.5, 6], abs=0.001)
    assert found[0].rgb.shape == (size[1] + size[1] % 2, size[0] + size[0] % 2, 3)
    assert [frame.rgb.mean() for frame in found] == pytest.approx([0, 40, 80, 120, 160], abs=3)


def test_frames_of_other_sizes_are_scaled_to_the_first(tmp_path):
    with closing(VideoWriter(tmp_path / "out.mp4")) as writer:
        writer.write(0, grey(100))
        writer.write(1, grey(100, (50, 30)))
    assert [frame.rgb.shape for frame in read_all(tmp_path / "out.mp4")[0]] == [(64, 96, 3)] * 2


KILLED = """
import os, sys, numpy as np
from facerwkv.media.frames import VideoWriter
writer = VideoWriter(sys.argv[1])
for i in range(200):
    writer.write(i / 25, np.random.default_rng(i).integers(0, 256, (64, 96, 3), np.uint8))
os._exit(9)
"""


def test_what_was_written_before_a_kill_plays(tmp_path):
    subprocess.run([sys.executable, "-c", KILLED, tmp_path / "out.mp4"], check=False)
    found, _ = read_all(tmp_path / "out.mp4")
    assert len(found) >= 200 - 3 * frames.KEYFRAMES


@pytest.fixture
def small_disk(tmp_path):
    """A disk of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_what_was_written_before_the_disk_was_full_plays(small_disk):
    path = small_disk / "out.mp4"
    sentence = f"Cannot write {path}: No space left on device. What was written plays;"
    with closing(VideoWriter(path)) as writer, pytest.raises(InputError, match=re.escape(sentence)):
        any(writer.write(i / 25, noise(i, (160, 120))) for i in range(400))
    found, _ = read_all(path)
    assert len(found) > frames.KEYFRAMES


def test_where_nothing_can_be_written_is_a_sentence(tmp_path):
    (tmp_path / "file").touch()
    with closing(VideoWriter(tmp_path / "file" / "out.mp4")) as writer, pytest.raises(InputError, match="Cannot write"):
        writer.write(0, grey(1))


def test_without_pyav_the_extra_is_named(monkeypatch, counted):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(InputError, match=r'pip install "facerwkv\[video\]"'):
        next(read_frames(counted))


def test_an_image_under_a_videos_name_is_one_frame(tmp_path):
    Image.fromarray(grey(90)).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.mp4")
    assert [frame.number for frame in read_all(tmp_path / "a.mp4")[0]] == [0]
