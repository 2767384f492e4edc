"""The times of frames: one clock, the file's, and they increase."""

from itertools import pairwise

import av
import numpy as np
import pytest

from facerwkv.media.frames import Selection, duration, read_frames
from tests.media.made import counted, ffmpeg, tone

CODECS = {
    ".mp4": ("libx264", "aac"),
    ".mov": ("libx264", "aac"),
    ".mkv": ("libx264", "aac"),
    ".ts": ("libx264", "aac"),
    ".webm": ("libvpx", "libopus"),
    ".flv": ("libx264", "aac"),
}


def clock_of(path) -> tuple[float, float]:
    """The first frame's time and the file's length on its clock, as FFmpeg sees them."""
    with av.open(path) as file:
        start = file.start_time / 1e6
        first = next(frame for frame in file.decode(video=0))
        ends = [float(packet.pts * packet.time_base) - start for packet in file.demux() if packet.pts is not None]
    return float(first.pts * first.time_base) - start, max(ends)


@pytest.mark.parametrize("ending", CODECS)
@pytest.mark.parametrize("seconds", [3, 1], ids=["longer sound", "shorter sound"])
def test_a_video_track_that_starts_late_keeps_its_place(tmp_path, ending, seconds):
    video, audio = CODECS[ending]
    codecs = ["-map", "0", "-map", "1", "-fps_mode", "passthrough", "-c:v", video, "-c:a", audio]
    path = ffmpeg(tmp_path / f"late{ending}", *counted(1, late=1.5), *tone(seconds), *codecs)
    frames = list(read_frames(path))
    first, end = clock_of(path)
    assert first == pytest.approx(1.5, abs=0.05)
    assert [frame.time for frame in frames] == pytest.approx([first + i / 25 for i in range(25)], abs=2e-3)
    assert duration(path) == pytest.approx(end, abs=0.15)  # of a .ts it is an estimate
    part = list(read_frames(path, Selection(start=2.0, end=2.2)))
    wanted = [frame for frame in frames if 2.0 <= frame.time < 2.2]
    assert [(frame.time, frame.number) for frame in part] == [(frame.time, frame.number) for frame in wanted]
    assert all(np.array_equal(a.rgb, b.rgb) for a, b in zip(part, wanted, strict=True))


@pytest.mark.parametrize("ending", CODECS)
def test_without_sound_a_late_video_starts_at_0_and_its_length_is_its_own(tmp_path, ending):
    codec = ["-fps_mode", "passthrough", "-c:v", CODECS[ending][0], "-bf", "0"]
    path = ffmpeg(tmp_path / f"alone{ending}", *counted(1, late=1.5), *codec)
    frames = list(read_frames(path))
    assert [frame.time for frame in frames] == pytest.approx([i / 25 for i in range(25)], abs=2e-3)
    assert frames[-1].time + frames[-1].duration == pytest.approx(1, abs=2e-3)
    if ending != ".flv":  # its length counts from the first time stamp of the encoder
        assert duration(path) == pytest.approx(1, abs=2e-3)


def test_an_edit_list_is_kept(tmp_path):
    whole = ffmpeg(tmp_path / "whole.mp4", *counted(2), *tone(2), "-g", "25", "-c:v", "libx264")
    path = ffmpeg(tmp_path / "cut.mp4", "-ss", "1.4", "-i", str(whole), "-c", "copy")
    frames = list(read_frames(path))
    assert [frame.time for frame in frames] == pytest.approx([i / 25 for i in range(15)], abs=1e-3)
    assert round((frames[0].rgb.mean() / 255 * 219) / 4) == 35  # the frame at 1.4 s is the first that is shown


@pytest.mark.parametrize("codec", [["libx264", "-bf", "3"], ["mpeg4", "-bf", "2"], ["mpeg4", "-bf", "0"]])
@pytest.mark.parametrize("start", [0.0, 1.0])
def test_times_of_an_avi_increase_with_b_frames_too(tmp_path, codec, start):
    path = ffmpeg(tmp_path / "b.avi", *counted(2), "-g", "12", "-c:v", *codec)
    frames = list(read_frames(path, Selection(start=start)))
    assert [frame.time for frame in frames] == pytest.approx([i / 25 for i in range(int(25 * start), 50)], abs=1e-6)
    levels = [frame.rgb.mean() for frame in frames]
    assert levels == sorted(levels)


def test_times_of_files_that_were_joined_go_on(tmp_path):
    path = ffmpeg(tmp_path / "a.ts", *counted(1), "-c:v", "libx264")
    path.write_bytes(path.read_bytes() * 2)
    times = [frame.time for frame in read_frames(path)]
    assert times == pytest.approx([i / 25 for i in range(50)], abs=1e-3)


def test_frames_without_time_stamps_follow_the_rate(tmp_path):
    path = ffmpeg(tmp_path / "raw.h264", *counted(1), "-c:v", "libx264")
    for start in (0.0, 0.4):
        times = [frame.time for frame in read_frames(path, Selection(start=start))]
        assert times == pytest.approx([i / 25 for i in range(int(25 * start), 25)])


def test_negative_time_stamps_lose_no_frame(tmp_path):
    options = ["-avoid_negative_ts", "disabled", "-output_ts_offset", "-0.5"]
    frames = list(read_frames(ffmpeg(tmp_path / "negative.mkv", *counted(2), "-c:v", "libx264", *options)))
    times = [frame.time for frame in frames]
    assert len(times) == 50
    assert all(a < b for a, b in pairwise(times))


@pytest.mark.parametrize("ending", [".ts", ".mpg", ".mkv", ".mp4", ".avi"])
@pytest.mark.parametrize("start", [0.01, 1.2, 1.95])
def test_a_start_within_gives_the_frames_that_are_there(tmp_path, ending, start):
    codec = ["-c:v", "mpeg2video" if ending == ".mpg" else "mpeg4" if ending == ".avi" else "libx264", "-g", "30"]
    path = ffmpeg(tmp_path / f"a{ending}", *counted(2), *tone(2), *codec, "-b:v", "1M")
    found = [frame.time for frame in read_frames(path, Selection(start=start))]
    assert found == [frame.time for frame in read_frames(path) if frame.time >= start]
