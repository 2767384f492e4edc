"""Animated images are videos; others are not."""

import numpy as np
import pytest
from PIL import Image

from facerwkv.media.container import UnreadableVideo
from facerwkv.media.frames import Selection, duration, read_frames
from facerwkv.media.sources import is_video

LASTS = (100, 200, 100, 50, 70)
ENDINGS = [".gif", ".webp", ".png", ".apng", ".avif"]


def grey(value: int) -> Image.Image:
    return Image.fromarray(np.full((64, 96, 3), value, np.uint8))


def animation(path, **options):
    """Five grey frames, 0.1, 0.2, 0.1, 0.05 and 0.07 s long."""
    first, *others = (grey(40 * i) for i in range(5))
    form = {".apng": "PNG"}.get(path.suffix)
    try:
        first.save(path, form, save_all=True, append_images=others, duration=LASTS, **options)
    except (KeyError, ValueError):
        pytest.skip(f"Pillow cannot write {path.suffix} here")
    return path


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_animation_is_a_video(tmp_path, ending):
    path = animation(tmp_path / f"a{ending}")
    assert is_video(path)
    assert is_video(str(path))
    frames = list(read_frames(path))
    assert [frame.number for frame in frames] == [0, 1, 2, 3, 4]
    assert [frame.time for frame in frames] == pytest.approx([0, 0.1, 0.3, 0.4, 0.45])
    assert [frame.duration for frame in frames] == pytest.approx([each / 1000 for each in LASTS])
    assert [frame.rgb.mean() for frame in frames] == pytest.approx([0, 40, 80, 120, 160], abs=2)
    part = list(read_frames(path, Selection(start=0.3, end=0.45)))
    assert [frame.number for frame in part] == [2, 3]
    assert duration(path) is None


@pytest.mark.parametrize("ending", [*ENDINGS, ".jpg"])
def test_a_single_image_is_none(tmp_path, ending):
    grey(90).save(tmp_path / f"a{ending}", "PNG" if ending == ".apng" else None)
    assert not is_video(tmp_path / f"a{ending}")


def test_what_is_there_is_asked_by_content_and_what_is_not_is_no_video(tmp_path):
    (tmp_path / "text.gif").write_text("I am a text.")
    assert not is_video(tmp_path / "text.gif")
    assert not is_video(tmp_path / "gone.webp")
    hidden = animation(tmp_path / "a.gif").rename(tmp_path / "upload")
    assert len(list(read_frames(hidden))) == 5


def test_transparency_lies_over_white_and_what_is_not_repainted_stays(tmp_path):
    frames = [Image.new("RGBA", (64, 64), (0, 0, 0, 0)) for _ in range(3)]
    for i, frame in enumerate(frames):
        frame.paste((200, 0, 0, 255), (0, 0, 10 + 20 * i, 64))
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:], duration=100, blend=0)
    found = [frame.rgb for frame in read_frames(tmp_path / "a.png")]
    assert [rgb[5, x].tolist() for rgb, x in zip(found, (5, 25, 45), strict=True)] == [[200, 0, 0]] * 3
    assert [rgb[5, 60].tolist() for rgb in found] == [[255, 255, 255]] * 3


def test_the_image_for_those_who_show_no_animation_is_left_out(tmp_path):
    frames = list(read_frames(animation(tmp_path / "a.png", default_image=True)))
    assert [round(frame.rgb.mean()) for frame in frames] == [40, 80, 120, 160]


def test_a_frame_that_says_no_duration_is_shown_as_browsers_do(tmp_path):
    grey(0).save(tmp_path / "a.gif", save_all=True, append_images=[grey(90)], duration=0)
    assert [frame.time for frame in read_frames(tmp_path / "a.gif")] == pytest.approx([0, 0.1])


@pytest.mark.parametrize("ending", [".gif", ".png"])
def test_an_animation_that_is_cut_short_gives_what_came_before(tmp_path, ending):
    rng = np.random.default_rng(0)
    first, *others = (Image.fromarray(rng.integers(0, 256, (64, 96, 3), np.uint8)) for _ in range(10))
    path = tmp_path / f"a{ending}"
    first.save(path, save_all=True, append_images=others, duration=100)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    found = []
    frames = read_frames(path)
    with pytest.raises(
        UnreadableVideo, match=r"stops at 0\.\d s: it is damaged or cut short. What came before is kept"
    ):
        any(found.append(frame) for frame in frames)
    assert 4 <= len(found) <= 7
