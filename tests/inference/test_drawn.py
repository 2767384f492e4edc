"""The drawn video: as long as what was drawn, one file per source, with its sound."""

from contextlib import closing

import av
import pytest
from PIL import Image

from facerwkv.inference.drawn import Media
from facerwkv.inference.options import Options
from facerwkv.inference.results import Kept, Result
from facerwkv.media.frames import read_frames
from tests.media.made import counted, ffmpeg, tone


def drawn(folder, path, **changes) -> list:
    """The files that become of a video's frames without a face."""
    options = Options(**changes)
    with closing(Media(folder, options)) as media:
        files = []
        for time, rgb, number, duration in read_frames(path, options.selection):
            moment = {"time": time, "frame": number, "duration": duration}
            files.append(media(Result(str(path), "no_face", kept=Kept(rgb), size=rgb.shape[1::-1], **moment)))
    return list(dict.fromkeys(files))


def tracks(path) -> dict[str, float]:
    """When each track of a file ends, in seconds."""
    with av.open(path) as file:
        return {track.type: float((track.start_time + track.duration) * track.time_base) for track in file.streams}


@pytest.mark.parametrize(
    ("changes", "ends"),
    [
        ({}, 2.0),
        ({"stride": 10}, 2.0),
        ({"stride": 7}, 2.0),
        ({"fps": 4}, 2.0),
        ({"end": 1.0}, 1.0),
        ({"start": 0.5, "end": 1.5, "stride": 3}, 1.0),
        ({"start": 1.0}, 1.0),
    ],
    ids=str,
)
def test_the_last_frame_lasts_to_the_end_and_the_sound_does_too(tmp_path, changes, ends):
    path = ffmpeg(tmp_path / "a.mp4", *counted(2), *tone(2), "-c:v", "libx264", "-c:a", "aac")
    (file,) = drawn(tmp_path / "drawn", path, **changes)
    assert tracks(file) == {"video": pytest.approx(ends, abs=0.005), "audio": pytest.approx(ends, abs=0.06)}


def test_a_long_last_frame_stays_long(tmp_path):
    chosen = "color=s=96x64:r=25:d=2,select='eq(n,0)+eq(n,5)+eq(n,10)'"
    codec = ["-fps_mode", "passthrough", "-c:v", "ffv1"]
    path = ffmpeg(tmp_path / "slides.mkv", "-f", "lavfi", "-i", chosen, *tone(2), *codec)
    frames = list(read_frames(path))
    (file,) = drawn(tmp_path / "drawn", path)
    assert [frame.time for frame in read_frames(file)] == pytest.approx([0, 0.2, 0.4], abs=0.01)
    assert tracks(file)["video"] == pytest.approx(frames[-1].time + frames[-1].duration, abs=5e-3)


def test_a_gif_is_drawn_as_long_as_it_is(tmp_path):
    first, *others = (Image.new("RGB", (96, 64), (60 * i, 0, 0)) for i in range(4))
    first.save(tmp_path / "a.gif", save_all=True, append_images=others, duration=[100, 200, 100, 500])
    (file,) = drawn(tmp_path / "drawn", tmp_path / "a.gif")
    assert [frame.time for frame in read_frames(file)] == pytest.approx([0, 0.1, 0.3, 0.4], abs=1e-3)
    assert tracks(file) == {"video": pytest.approx(0.9, abs=1e-3)}


def test_no_audio_means_none(tmp_path):
    path = ffmpeg(tmp_path / "a.mkv", *counted(0.4), *tone(0.4))
    (file,) = drawn(tmp_path / "drawn", path, audio=False)
    assert tracks(file) == {"video": pytest.approx(0.4, abs=0.01)}


def test_b_frames_of_an_avi_make_one_file(tmp_path):
    path = ffmpeg(tmp_path / "b.avi", *counted(2), *tone(2), "-c:v", "libx264", "-bf", "3", "-c:a", "libmp3lame")
    (file,) = drawn(tmp_path / "drawn", path)
    assert len(list(read_frames(file))) == 50
    assert tracks(file)["audio"] == pytest.approx(2, abs=0.1)


def test_a_video_that_starts_late_is_drawn_late_under_its_sound(tmp_path):
    late = [*counted(0.6, late=0.5), *tone(1.1), "-map", "0", "-map", "1", "-fps_mode", "passthrough"]
    path = ffmpeg(tmp_path / "late.mkv", *late, "-c:v", "libx264", "-c:a", "aac")
    (file,) = drawn(tmp_path / "drawn", path)
    found, wanted = ([frame.time for frame in read_frames(each)] for each in (file, path))
    assert found == pytest.approx(wanted, abs=2e-3)
    assert found[0] == pytest.approx(0.5, abs=0.06)
