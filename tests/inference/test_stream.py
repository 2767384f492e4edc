import csv
import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from functools import partial
from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from facerwkv.core.errors import InputError
from facerwkv.core.labels import EXPRESSIONS
from facerwkv.data.transforms import TransformConfig
from facerwkv.inference.drawn import DrawnVideo
from facerwkv.inference.options import Options
from facerwkv.inference.predictor import Predictor
from facerwkv.inference.results import Face, Kept, Result
from facerwkv.inference.stream import Follower, predict_sources, stream
from facerwkv.media.frames import read_frames
from facerwkv.media.geometry import overlap
from facerwkv.media.images import UnreadableImage
from facerwkv.media.tracks import Tracker, smoother
from facerwkv.models.checkpoint import save_checkpoint
from facerwkv.models.folder import Checkpoint
from facerwkv.models.zoo import create_model
from tests import commands
from tests.media.made import ffmpeg, tone

SIZE = (48, 48)
FACE = (10, 10, 40, 40)


def checkpoint() -> Checkpoint:
    torch.manual_seed(0)
    options = {"image_size": SIZE, "patch_size": 8, "width": 32, "depth": 2, "heads": 2}
    model = create_model("facerwkv4_small", num_classes=7, **options).eval()
    return Checkpoint(model, "facerwkv4_small", EXPRESSIONS, TransformConfig(image_size=SIZE, crop="face"))


def one_face(rgb: np.ndarray) -> list:
    return [FACE]


def lit(rgb: np.ndarray) -> list:
    """A face in bright frames only."""
    return [FACE] if rgb.mean() > 100 else []


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(checkpoint(), "cpu", one_face)


def frames_of(values, rate: float = 25.0) -> list[tuple[float, np.ndarray]]:
    return [(i / rate, np.full((64, 96, 3), value, np.uint8)) for i, value in enumerate(values)]


def clip(path: Path, values, form: str | None = None) -> Path:
    with av.open(path, "w", form, options={"movflags": "faststart"}) as file:
        track = file.add_stream("libx264", rate=25)
        track.width, track.height, track.pix_fmt = 96, 64, "yuv420p"
        track.codec_context.options = {"preset": "ultrafast"}
        for i, (_, rgb) in enumerate(frames_of(values)):
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 25)
            file.mux(track.encode(frame))
        file.mux(track.encode(None))
    return path


class TestTracker:
    def test_a_face_that_moves_keeps_its_number(self):
        tracker = Tracker()
        assert [tracker(i / 25, [(4 * i, 0, 4 * i + 30, 30)]) for i in range(50)] == [[1]] * 50

    def test_faces_keep_their_numbers_in_whatever_order_they_are_found(self):
        tracker = Tracker()
        a, b, c = (0, 0, 10, 10), (50, 0, 60, 10), (0, 50, 10, 60)
        assert tracker(0, [a, b, c]) == [1, 2, 3]
        assert tracker(1, [c, a, b]) == [3, 1, 2]

    def test_the_pair_that_overlaps_most_comes_first(self):
        tracker = Tracker()
        tracker(0, [(0, 0, 10, 10)])
        assert tracker(0.1, [(4, 0, 14, 10), (1, 0, 11, 10)]) == [2, 1]

    def test_a_face_that_leaves_and_another_that_comes_have_different_numbers(self):
        tracker = Tracker()
        assert tracker(0, [(0, 0, 10, 10)]) == [1]
        assert tracker(0.1, []) == []
        assert tracker(0.2, [(50, 50, 60, 60)]) == [2]

    @pytest.mark.parametrize(("gap", "number"), [(0.9, 1), (1.1, 2)])
    def test_a_face_that_is_not_seen_for_a_second_is_forgotten(self, gap, number):
        tracker = Tracker(patience=1.0)
        tracker(0, [FACE])
        tracker(gap, [])
        assert tracker(gap + 0.01, [FACE]) == [number]

    def test_frames_that_are_seconds_apart_are_matched_too(self):
        tracker = Tracker()
        assert [tracker(5.0 * i, [FACE]) for i in range(4)] == [[1]] * 4

    def test_fifty_faces(self):
        rng, tracker, first = np.random.default_rng(0), Tracker(), {}
        corners = np.array([(60 * (i % 10), 60 * (i // 10)) for i in range(50)])
        for i in range(20):
            order = rng.permutation(50)
            moved = corners + rng.integers(-3, 4, corners.shape)
            numbers = tracker(i / 25, [(x, y, x + 40, y + 40) for x, y in moved[order].tolist()])
            first = first or dict(zip(order, numbers, strict=True))
            assert numbers == [first[place] for place in order]
        assert sorted(first.values()) == list(range(1, 51))

    def test_what_is_remembered_does_not_grow(self):
        tracker = Tracker()
        for i in range(500):
            tracker(i, [(i * 100, 0, i * 100 + 10, 10)])
        assert set(tracker.alive) == {499, 500}


def test_overlap_is_intersection_over_union():
    a, b = np.array([[0, 0, 10, 10.0]]), np.array([[0, 0, 10, 10.0], [5, 0, 15, 10], [10, 0, 20, 10], [3, 3, 3, 3]])
    assert overlap(a, b) == pytest.approx(np.array([[1, 1 / 3, 0, 0]]))


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("ema:0.6", [[1, 0], [0.4, 0.6], [0.16, 0.84]]),
        ("ema:1", [[1, 0], [0, 1], [0, 1]]),
        ("median:3", [[1, 0], [0.5, 0.5], [0, 1]]),
        ("median:1", [[1, 0], [0, 1], [0, 1]]),
    ],
)
def test_smoothing(how, expected):
    smooth = smoother(how)()
    assert [smooth(np.array(probs, float)).tolist() for probs in ([1, 0], [0, 1], [0, 1])] == [
        pytest.approx(row) for row in expected
    ]


@pytest.mark.parametrize("how", ["ema", "ema:0", "ema:1.1", "ema:x", "median:0", "median:2.5", "mean:3", ""])
def test_a_smoothing_that_is_not_known_is_refused(how):
    with pytest.raises(InputError, match=r"is no smoothing: write ema:WEIGHT.* or median:FRAMES"):
        smoother(how)


def face(a: float, box=FACE) -> Face:
    return Face("a" if a >= 0.5 else "b", max(a, 1 - a), {"a": a, "b": 1 - a}, box)


def test_every_face_is_smoothed_for_itself_and_its_label_follows():
    follow, other = Follower("ema:0.5"), (60, 60, 90, 90)
    first = follow(Result("x", "ok", [face(1.0), face(0.0, other)], time=0.0, frame=0))
    second = follow(Result("x", "ok", [face(0.0, other), face(0.2)], time=0.1, frame=1))
    assert [(each.track, each.probs["a"]) for each in first.faces] == [(1, 1.0), (2, 0.0)]
    assert [(each.track, each.label, each.score) for each in second.faces] == [(2, "b", 1.0), (1, "a", 0.6)]


def test_nothing_is_smoothed_across_a_cut_and_nobody_keeps_a_track():
    follow, rng = Follower("ema:0.5"), np.random.default_rng(0)
    first, second = (np.kron(rng.integers(0, 256, (6, 9, 3)), np.ones((12, 12, 1))).astype(np.uint8) for _ in range(2))
    second[..., 0] //= 4  # other colours, too
    found = []
    for i, (rgb, a) in enumerate([(first, 1.0), (first, 0.0), (second, 0.0), (second, 1.0)]):
        faces = [face(a), face(a, None)]
        found.append(follow(Result("x", "ok", faces, kept=Kept(rgb), time=i / 25, frame=i)).faces)
    assert [(box.track, box.probs["a"], whole.track, whole.probs["a"]) for box, whole in found] == [
        (1, 1.0, None, 1.0),
        (1, 0.5, None, 0.5),
        (2, 0.0, None, 0.0),
        (2, 0.5, None, 0.5),
    ]


def test_the_whole_image_is_smoothed_and_has_no_track():
    follow = Follower("ema:0.5")
    for a, smoothed in [(1.0, 1.0), (0.0, 0.5)]:
        (found,) = follow(Result("x", "ok", [face(a, None)], time=0.0, frame=0)).faces
        assert (found.track, found.probs["a"]) == (None, smoothed)


def test_frames_answer_as_images_do(predictor):
    images = frames_of(range(0, 250, 10))
    results = list(stream(predictor, images, batch_size=4))
    assert [(result.time, result.frame) for result in results] == [(i / 25, i) for i in range(25)]
    for result, (_, rgb) in zip(results, images, strict=True):
        (expected,) = predictor.predict(rgb).faces
        (found,) = result.faces
        assert found.probs == pytest.approx(expected.probs, abs=1e-6)
        assert replace(found, probs={}, score=0) == replace(expected, probs={}, score=0, track=1)


def test_faces_of_several_frames_share_a_batch(monkeypatch, predictor):
    sizes = []
    forward = predictor.model.network.forward
    monkeypatch.setattr(predictor.model.network, "forward", lambda batch: sizes.append(len(batch)) or forward(batch))
    assert len(list(stream(predictor, frames_of(range(20)), batch_size=8))) == 20
    assert sizes == [8, 8, 4]


def test_no_more_frames_than_a_batch_are_read_ahead_and_large_ones_not_at_all(monkeypatch, predictor):
    read = []
    images = ((read.append(time), (time, rgb))[1] for time, rgb in frames_of(range(100)))
    next(stream(predictor, images, batch_size=8))
    assert len(read) <= 8
    monkeypatch.setattr("facerwkv.inference.batcher.HELD", 1)
    read.clear()
    next(stream(predictor, ((read.append(t), (t, rgb))[1] for t, rgb in frames_of(range(100))), batch_size=8))
    assert len(read) == 1


def test_a_camera_waits_for_no_batch(monkeypatch, predictor):
    read = []

    def frames(*_):
        for frame in frames_of(range(100)):
            read.append(frame)
            yield frame

    monkeypatch.setattr("facerwkv.inference.stream.read_frames", frames)
    result = next(stream(predictor, 0))
    assert (result.source, len(result.faces), len(read)) == ("camera 0", 1, 1)


def test_a_face_that_comes_and_goes(predictor):
    shy = Predictor(predictor.checkpoint, "cpu", lit)
    results = list(stream(shy, frames_of([200] * 10 + [0] * 40 + [200] * 10)))
    assert [result.status for result in results] == ["ok"] * 10 + ["no_face"] * 40 + ["ok"] * 10
    assert [[each.track for each in result.faces] for result in results] == [[1]] * 10 + [[]] * 40 + [[2]] * 10


def test_a_part_of_a_file(predictor, tmp_path):
    path = clip(tmp_path / "a.mp4", [100] * 75)
    results = list(stream(predictor, path, start="0:01", end=2, stride=5))
    assert [result.frame for result in results] == [25, 30, 35, 40, 45]
    assert {result.source for result in results} == {str(path)}


def test_results_and_messages_call_a_video_by_the_name_that_is_given(predictor, tmp_path):
    path = clip(tmp_path / "upload", np.random.default_rng(0).integers(0, 256, 60).tolist(), "mp4")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    *results, last = stream(predictor, path, name="talk.mp4", errors="result")
    assert {result.source for result in [*results, last]} == {"talk.mp4"}
    assert last.message.startswith("talk.mp4 stops at ")
    with pytest.raises(UnreadableImage, match=r"^talk\.mp4 cannot be read: there is no such file\.$"):
        next(stream(predictor, tmp_path / "gone.mp4", name="talk.mp4"))


@pytest.mark.parametrize("convert", [lambda rgb: rgb / 255, lambda rgb: rgb.astype(np.uint16) * 257, torch.from_numpy])
def test_frames_are_converted_as_images_are_or_refused_in_words(predictor, convert):
    frames = frames_of([100, 200])
    expected = [result.faces for result in stream(predictor, frames)]
    assert [result.faces for result in stream(predictor, [(time, convert(rgb)) for time, rgb in frames])] == expected
    for wrong in (frames[0][1].astype(np.float32), frames[0][1][:, :, :2], None):
        with pytest.raises(UnreadableImage, match=r"^frames is .*wanted|^frames is of type NoneType"):
            next(predictor.predict_frames([(0.0, wrong)], errors="raise"))
        with pytest.raises(UnreadableImage, match=r"^frames is "):
            next(stream(predictor, [(0.0, wrong)]))


@pytest.mark.parametrize(
    ("given", "what"),
    [
        (np.zeros((4, 6, 3)), "ndarray"),
        (np.zeros((2, 6, 3), np.uint8), "ndarray"),
        ((np.zeros((4, 6, 3)), 0.0), "tuple of 2"),
        ((float("nan"), np.zeros((4, 6, 3))), "tuple of 2"),
        ([0.0], "list of 1"),
        ("a", "str"),
        (None, "NoneType"),
    ],
)
def test_a_frame_without_its_time_is_told_what_is_wanted(predictor, given, what):
    message = rf"^Frame 1 is {what}; give \(seconds, image\) or \(seconds, image, number\) for each frame\.$"
    frames = [*frames_of([100]), given]
    for results in (predictor.predict_frames(frames), stream(predictor, frames)):
        with pytest.raises(InputError, match=message):
            list(results)


def test_options_may_be_given_whole(predictor):
    frames, options = frames_of([100] * 9), Options(stride=3, min_face=31)
    assert [(result.frame, result.status) for result in stream(predictor, frames, options)] == [
        (0, "no_face"),
        (3, "no_face"),
        (6, "no_face"),
    ]
    assert [len(result.faces) for result in stream(predictor, frames, options, min_face=30)] == [1] * 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stride": 0}, "stride is 0"),
        ({"start": "soon"}, "'soon' is no time"),
        ({"smooth": "ema"}, "'ema' is no smoothing"),
        ({"mode": "faces"}, "mode is 'faces'"),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_a_wrong_option_is_refused_before_the_first_frame(predictor, options, message):
    with pytest.raises(InputError, match=message):
        stream(predictor, [], **options)


def test_without_pyav_the_extra_is_named(monkeypatch, predictor):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(InputError, match=r'pip install "facerwkv\[video\]"'):
        stream(predictor, "a.mp4")


def test_what_came_before_a_cut_is_kept_and_a_last_result_says_so(predictor, tmp_path):
    path = clip(tmp_path / "a.mp4", np.random.default_rng(0).integers(0, 256, 100).tolist())
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    *results, last = stream(predictor, path, errors="result")
    assert 20 < len(results) < 80
    assert {result.status for result in results} == {"ok"}
    assert (last.status, last.frame, last.failed) == ("unreadable", len(results), True)
    assert "What came before is kept." in last.message
    raising, seen = stream(predictor, path), []
    with pytest.raises(UnreadableImage, match=re.escape(last.message)):
        seen.extend(raising)
    assert len(seen) == len(results)


@pytest.mark.parametrize(("values", "last"), [([0] * 5, "no_face"), ([0] * 4 + [200], "ok")])
def test_a_video_without_any_face_fails_if_that_is_an_error(predictor, values, last):
    shy = Predictor(predictor.checkpoint, "cpu", lit)
    *_, result = stream(shy, frames_of(values), on_no_face="error", errors="result")
    assert (result.status, result.failed) == (last, last == "no_face")


def test_images_and_videos_come_in_the_order_of_their_names(predictor, tmp_path):
    path = clip(tmp_path / "a.mp4", [100] * 3)
    names = [str(tmp_path / "gone.jpg"), str(path), str(tmp_path / "gone.mp4"), str(tmp_path / "gone.png")]
    found = [(result.source, result.frame) for result in predict_sources(predictor, names)]
    assert found == [(names[0], None), *((names[1], i) for i in range(3)), (names[2], 0), (names[3], None)]


def test_the_drawn_video_has_every_frame_and_a_timeline_below(predictor, tmp_path):
    drawn = DrawnVideo(tmp_path / "drawn.mp4")
    for result in stream(predictor, frames_of([100] * 30)):
        drawn.add(result)
    drawn.close()
    found = list(read_frames(tmp_path / "drawn.mp4"))
    assert [frame.time for frame in found] == pytest.approx([i / 25 for i in range(30)], abs=1e-3)
    assert found[0].rgb.shape == (320 + 26, 480, 3)
    strip = found[-1].rgb[-26:].astype(int)
    assert np.ptp(strip[:, :440], axis=(0, 1)).max() < 40  # nothing yet
    assert np.ptp(strip[:, -28:], axis=0).max() > 60  # the colours of seven labels


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("video") / "checkpoint"
    save_checkpoint(folder, checkpoint())
    return folder


def command(*arguments) -> list[str]:
    return [sys.executable, "-m", "facerwkv.cli", "predict", *map(str, arguments), "--device", "cpu"]


def test_the_command_writes_a_table_and_a_drawn_video(saved, tmp_path):
    path, out = clip(tmp_path / "a.mp4", [100] * 50), tmp_path / "out.csv"
    options = ["--mode", "scene", "--fps", "5", "--smooth", "median:3", "--save-media", tmp_path / "drawn"]
    done = commands.facerwkv(
        "predict", path, tmp_path / "gone.mp4", "--model", saved, "--device", "cpu", "--out", out, *options
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "10 frames, 0 faces, 1 failed; " in done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["frame"] for line in lines] == [*range(0, 50, 5), 0]
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["time"]) for row in rows] == pytest.approx([*(i / 5 for i in range(10)), 0])
    assert [row["status"] for row in rows] == ["ok"] * 10 + ["unreadable"]
    assert len(list(read_frames(tmp_path / "drawn" / "a_drawn.mp4"))) == 10


@pytest.mark.parametrize(("words", "kinds"), [([], ["video", "audio"]), (["--no-audio"], ["video"])])
def test_the_command_draws_with_sound_what_is_cut_short_and_exits_with_1(saved, tmp_path, words, kinds):
    tracks = ["-f", "lavfi", "-i", "testsrc2=s=96x64:r=25:d=2", *tone(2)]
    path = ffmpeg(tmp_path / "a.mkv", *tracks, "-c:v", "libx264", "-c:a", "aac")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 56 // 100])
    options = ["--model", saved, "--device", "cpu", "--mode", "scene", "--save-media", tmp_path / "drawn", *words]
    done = commands.facerwkv("predict", path, *options)
    assert (done.returncode, "a.mkv stops at 1." in done.stdout) == (1, True)
    with av.open(tmp_path / "drawn" / "a_drawn.mp4") as file:
        assert [track.type for track in file.streams] == kinds
        assert all(0.9 < track.duration * track.time_base < 1.4 for track in file.streams)


def test_the_command_reads_an_animated_image_as_a_video_and_a_still_one_as_an_image(saved, tmp_path):
    first, *others = (Image.new("RGB", (96, 64), (60 * i, 0, 0)) for i in range(3))
    first.save(tmp_path / "moving.webp", save_all=True, append_images=others, duration=100)
    first.save(tmp_path / "still.webp")
    done = commands.facerwkv("predict", tmp_path, "--model", saved, "--device", "cpu", "--mode", "scene", "--json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(Path(line["source"]).name, line.get("frame")) for line in lines] == [
        ("moving.webp", 0),
        ("moving.webp", 1),
        ("moving.webp", 2),
        ("still.webp", None),
    ]


@pytest.mark.slow
def test_ctrl_c_leaves_whole_files(saved, tmp_path):
    path, out = clip(tmp_path / "a.mp4", [100] * 3000), tmp_path / "out.json"
    options = ["--model", saved, "--mode", "scene", "--out", out, "--save-media", tmp_path / "drawn"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a background shell lets its children ignore it
    process = subprocess.Popen(command(path, *options), preexec_fn=heard, **pipes)
    for _ in islice(process.stdout, 40):
        pass
    process.send_signal(signal.SIGINT)
    process.stdout.read()
    assert process.wait(60) == 1
    assert "Stopped. What came before is written." in process.stderr.read()
    written = json.loads(out.read_text())
    assert 39 <= len(written) < 3000  # the last one that was printed may not be written
    assert abs(len(list(read_frames(tmp_path / "drawn" / "a_drawn.mp4"))) - len(written)) <= 1


@pytest.mark.parametrize(("name", "tracks"), [("one_face.mp4", 1), ("face_then_none.mov", 1)])
@pytest.mark.slow
def test_real_clips(shared, tmp_path, name, tracks):
    path = shared / "media" / name
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    drawn = DrawnVideo(tmp_path / "drawn.mp4")
    seen, results = set(), 0
    for result in stream(Predictor(checkpoint(), "cpu"), path):
        drawn.add(result)
        results += 1
        seen |= {each.track for each in result.faces}
    drawn.close()
    assert (result.status, seen) == ("ok" if name == "one_face.mp4" else "no_face", set(range(1, tracks + 1)))
    assert results == sum(1 for _ in read_frames(path)) == sum(1 for _ in read_frames(tmp_path / "drawn.mp4"))


def resident() -> float:
    """This process's resident set in MiB."""
    return int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_memory_does_not_grow_with_the_length(predictor, tmp_path):
    path = clip(tmp_path / "long.mp4", (100 + i % 50 for i in range(20_000)))
    drawn, before = DrawnVideo(tmp_path / "drawn.mp4"), 0.0
    for result in stream(predictor, path, stride=5, smooth="median:5"):
        drawn.add(result)
        if result.frame == 2_000:
            before = resident()
    drawn.close()
    assert result.frame == 19_995
    assert before
    assert resident() - before < 50


def test_between_full_searches_faces_are_followed_and_nobody_new_is_found(shared):
    image = np.asarray(Image.open(shared / "media" / "fer_justin.jpg").convert("RGB"))
    images = [np.zeros_like(image)] * 2 + [np.roll(image, 2 * number, 1) for number in range(7)]
    frames = [(number / 25, image) for number, image in enumerate(images)]
    exact = [len(result.faces) for result in stream("facerwkv_fer_tiny", frames)]
    seldom = [result.faces for result in stream("facerwkv_fer_tiny", frames, search_every=4)]
    assert exact == [0, 0] + [1] * 7
    assert [len(faces) for faces in seldom] == [0] * 4 + [1] * 5
    assert len({faces[0].track for faces in seldom[4:]}) == 1
