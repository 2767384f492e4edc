"""What a container says of how its frames are shown is honoured."""

from fractions import Fraction

import av
import numpy as np
import pytest

from facerwkv.media import container
from facerwkv.media.container import UnreadableVideo
from facerwkv.media.frames import read_frames, video_size
from tests.media.made import counted, ffmpeg, tone

BT709, BT2020 = (
    ["-vf", f"scale=out_color_matrix={name[:6]}:out_range=tv", "-colorspace", name] for name in ("bt709", "bt2020nc")
)
FULL = ["-vf", "scale=out_color_matrix=bt709:out_range=pc", "-colorspace", "bt709", "-color_range", "pc"]
FFV1 = ["-c:v", "ffv1", "-pix_fmt"]
LOSSLESS = ["-c:v", "libx264", "-qp", "0", "-pix_fmt", "yuv444p"]
SQUARE = "color=black:s=120x80:r=25:d=0.12,drawbox=x=20:y=10:w=30:h=40:color=white:t=fill"
"""White from (20, 10) to (50, 50)."""


def first(path) -> np.ndarray:
    return next(read_frames(path)).rgb


def white(rgb: np.ndarray) -> tuple[int, int, int, int]:
    """The box of what is white: x1, y1, x2, y2."""
    rows, columns = np.nonzero(rgb.mean(-1) > 128)
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


@pytest.mark.parametrize("ending", [".mp4", ".mkv", ".mov", ".avi"])
@pytest.mark.parametrize(
    ("aspect", "size", "box"),
    [
        ("16/12", (160, 80), (27, 10, 67, 50)),
        ("3/4", (120, 107), (20, 13, 50, 67)),
        ("1/1", (120, 80), (20, 10, 50, 50)),
    ],
)
def test_pixels_are_square(tmp_path, ending, aspect, size, box):
    codec = ["-c:v", "mpeg4", "-q:v", "1"] if ending == ".avi" else LOSSLESS
    path = ffmpeg(tmp_path / f"wide{ending}", "-f", "lavfi", "-i", f"{SQUARE},setsar={aspect}", *codec)
    rgb = first(path)
    assert rgb.shape == (size[1], size[0], 3)
    assert white(rgb) == pytest.approx(box, abs=1)
    assert video_size(path, "wide") == size


def test_an_aspect_that_makes_a_frame_too_large_is_refused(tmp_path, monkeypatch):
    path = ffmpeg(tmp_path / "line.mkv", "-f", "lavfi", "-i", f"{SQUARE},setsar=9/1", *LOSSLESS)
    monkeypatch.setattr(container, "MAX_PIXELS", 120 * 80)
    with pytest.raises(UnreadableVideo, match="its frames have 1080 x 80 pixels, more than the 9,600 that are allowed"):
        first(path)


def turned(path, matrix, size=(120, 80)):
    """A square as above, 4/3 as wide as high, under the display matrix whose first numbers are given."""
    image = np.zeros((size[1], size[0], 3), np.uint8)
    image[10:50, 20:50] = 255
    with av.open(path, "w") as file:
        track = file.add_stream("libx264", rate=25)
        track.width, track.height, track.pix_fmt = *size, "yuv420p"
        track.codec_context.sample_aspect_ratio = Fraction(4, 3)
        a, b, c, d = (value << 16 for value in matrix)
        track.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])
        file.mux(track.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        file.mux(track.encode(None))
    return path


@pytest.mark.parametrize(
    ("matrix", "size", "box"),
    [
        ((1, 0, 0, 1), (160, 80), (27, 10, 67, 50)),
        ((0, 1, -1, 0), (80, 160), (30, 27, 70, 67)),
        ((-1, 0, 0, -1), (160, 80), (93, 30, 133, 70)),
        ((0, -1, 1, 0), (80, 160), (10, 93, 50, 133)),
        ((-1, 0, 0, 1), (160, 80), (93, 10, 133, 50)),
        ((1, 0, 0, -1), (160, 80), (27, 30, 67, 70)),
    ],
    ids=["as it is", "a quarter", "half", "three quarters", "mirrored", "upside down, mirrored"],
)
def test_turned_and_mirrored_with_its_aspect(tmp_path, matrix, size, box):
    rgb = first(turned(tmp_path / "turned.mp4", matrix))
    assert rgb.shape == (size[1], size[0], 3)
    assert white(rgb) == pytest.approx(box, abs=1)


TRACKS = ["-f", "lavfi", "-i", "color=red:s=96x64:r=25:d=0.2", "-f", "lavfi", "-i", "color=lime:s=128x96:r=25:d=0.2"]


@pytest.mark.parametrize("default", [0, 1])
@pytest.mark.parametrize("ending", [".mkv", ".mp4", ".mov"])
def test_the_default_track_is_read(tmp_path, default, ending):
    marks = [f"-disposition:v:{default}", "default", f"-disposition:v:{1 - default}", "0"]
    path = ffmpeg(tmp_path / f"two{ending}", *TRACKS, "-map", "0", "-map", "1", "-c:v", "libx264", *marks)
    assert first(path).mean((0, 1)).argmax() == default
    assert video_size(path, "two") == [(96, 64), (128, 96)][default]


def covered(path, *tracks):
    """A file whose first track is an image, its cover."""
    cover = ffmpeg(path.parent / "cover.png", "-f", "lavfi", "-i", "color=red:s=64x64", "-frames:v", "1")
    maps = [part for i in range(len(tracks) + 1) for part in ("-map", str(i))]
    inputs = [argument for track in tracks for argument in track]
    return ffmpeg(path, "-i", str(cover), *inputs, *maps, "-c:v:0", "copy", "-disposition:v:0", "attached_pic")


def test_a_cover_is_no_video(tmp_path):
    path = covered(tmp_path / "both.mp4", counted(0.2), tone(0.2))
    assert len(list(read_frames(path))) == 5
    assert video_size(path, "both") == (96, 64)
    song = covered(tmp_path / "song.m4a", tone(0.2))
    for read in (lambda: first(song), lambda: video_size(song, "song")):
        with pytest.raises(UnreadableVideo, match="has no video track; give a video with images"):
            read()


COLOURS = "testsrc2=s=96x64:r=25:d=0.12,format=rgb24"


@pytest.mark.parametrize(
    ("ending", "arguments"),
    [
        (".mp4", [*BT709, *LOSSLESS]),
        (".mp4", [*FULL, *LOSSLESS]),
        (".mp4", ["-c:v", "libx264", "-qp", "0", "-pix_fmt", "yuvj444p"]),
        (".mkv", [*BT2020, *FFV1, "yuv444p10le"]),
        (".mkv", [*FFV1, "yuv444p10le"]),
        (".mkv", [*FFV1, "bgr0"]),
        (".mkv", [*FFV1, "gbrp10le"]),
        (".mkv", ["-c:v", "libx264rgb", "-qp", "0"]),
        (".mov", ["-c:v", "qtrle"]),
        (".mov", ["-c:v", "png"]),
        (".avi", ["-c:v", "mjpeg", "-q:v", "1", "-pix_fmt", "yuvj444p"]),
        (".avi", ["-c:v", "rawvideo", "-pix_fmt", "bgr24"]),
    ],
    ids=str,
)
def test_colours_come_back(tmp_path, ending, arguments):
    wanted = first(ffmpeg(tmp_path / "wanted.mov", "-f", "lavfi", "-i", COLOURS, "-c:v", "png", "-pix_fmt", "rgb24"))
    found = first(ffmpeg(tmp_path / f"found{ending}", "-f", "lavfi", "-i", COLOURS, *arguments))
    assert np.abs(found.astype(int) - wanted).mean() < 2


@pytest.mark.parametrize("kind", ["gray", "gray10le"])
def test_grey_is_grey(tmp_path, kind):
    path = ffmpeg(tmp_path / "grey.mkv", *counted(0.2), "-vf", f"format={kind}", "-c:v", "ffv1")
    rgb = first(path)
    assert np.ptp(rgb, axis=-1).max() == 0


def test_transparency_lies_over_white(tmp_path):
    half = "color=black:s=96x64:r=25:d=0.12,format=rgba,colorchannelmixer=aa=0.5"
    for name, codec in (("a.mov", ["-c:v", "qtrle", "-pix_fmt", "argb"]), ("b.mov", ["-c:v", "png"])):
        rgb = first(ffmpeg(tmp_path / name, "-f", "lavfi", "-i", half, *codec))
        assert rgb[32, 48].tolist() == pytest.approx([127] * 3, abs=2)


@pytest.mark.parametrize(
    ("ending", "codec"),
    [(".mp4", ["libx264", "-flags", "+ilme+ildct"]), (".ts", ["mpeg2video", "-flags", "+ilme+ildct", "-q:v", "2"])],
)
def test_interlaced_frames_are_deinterlaced(tmp_path, ending, codec):
    bar = "color=black:s=160x96:r=50:d=0.6[a];color=white:s=20x96:r=50:d=0.6[b];[a][b]overlay=x=8*n:y=0"
    woven = ["-filter_complex", f"{bar},tinterlace=interleave_top,setfield=tff", "-c:v", *codec]
    path = ffmpeg(tmp_path / f"woven{ending}", *woven)
    frames = list(read_frames(path))
    assert len(frames) == 15
    assert [frame.time for frame in frames] == pytest.approx([i / 25 for i in range(15)], abs=1e-3)
    grey = frames[7].rgb.mean(-1)
    with av.open(path) as file:
        raw = list(file.decode(video=0))[7].to_ndarray(format="gray").astype(float)
    combs = [np.abs(2 * each[1:-1] - each[:-2] - each[2:])[8:-8].mean() for each in (raw, grey)]
    assert combs[1] < 0.2 * combs[0]


@pytest.mark.parametrize("transfer", ["smpte2084", "arib-std-b67"])
def test_hdr_is_shown_as_sdr(tmp_path, transfer):
    """A grey ramp up to SDR's white, as HDR: what is dark is the same, what is bright compressed, no colour appears."""
    ramp = "color=black:s=256x64:r=25:d=0.12,format=gbrp,geq=r='X':g='X':b='X'"
    convert = f"zscale=tin=bt709:pin=bt709:min=gbr:rin=full:t={transfer}:p=bt2020:m=bt2020nc:r=tv,format=yuv420p10le"
    tags = ["-color_trc", transfer, "-color_primaries", "bt2020", "-colorspace", "bt2020nc"]
    path = ffmpeg(tmp_path / "hdr.mp4", "-f", "lavfi", "-i", f"{ramp},{convert}", "-c:v", "libx265", *tags)
    found = first(path)[32].astype(int)
    assert np.ptp(found, axis=-1).max() < 6
    assert (np.diff(found.mean(-1)[4:-4:8]) > 0).all()
    assert found[32:144:16].mean(-1) == pytest.approx(range(32, 144, 16), abs=6)
    assert 190 < found[250].mean() < 240
