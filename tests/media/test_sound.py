"""The sound of a file goes into the video that is made of it, cut as its frames are."""

from contextlib import closing

import av
import numpy as np
import pytest

from facerwkv.media.frames import Selection, VideoWriter, read_frames
from facerwkv.media.sound import COPIED, Sound
from tests.media.made import counted, ffmpeg, tone

CASES = {
    "aac.mp4": ["-c:a", "aac"],
    "aac.ts": ["-c:a", "aac"],
    "aac.mkv": ["-c:a", "aac", "-ac", "6"],
    "mp3.avi": ["-c:v", "mpeg4", "-c:a", "libmp3lame"],
    "mp3_11k.avi": ["-c:v", "mpeg4", "-c:a", "libmp3lame", "-ar", "11025"],
    "opus.webm": ["-c:v", "libvpx", "-c:a", "libopus"],
    "vorbis.webm": ["-c:v", "libvpx", "-c:a", "libvorbis"],
    "ac3.mkv": ["-c:a", "ac3"],
    "flac.mkv": ["-c:a", "flac"],
    "alac.mov": ["-c:a", "alac"],
    "pcm.mov": ["-c:a", "pcm_s16le", "-ac", "2"],
    "pcm_96k.mkv": ["-c:a", "pcm_s24le", "-ar", "96000"],
    "pcm_8bit.avi": ["-c:v", "mpeg4", "-c:a", "pcm_u8", "-ar", "8000"],
    "mp2.mpg": ["-c:v", "mpeg2video", "-c:a", "mp2"],
    "wma.wmv": ["-c:v", "wmv2", "-c:a", "wmav2"],
}


def rewritten(path, out, start: float = 0.0, end: float | None = None, stride: int = 1):
    """The frames and the sound of a part of a file."""
    frames = list(read_frames(path, Selection(stride, None, start, end)))
    with closing(VideoWriter(out, start=start, sound=Sound(path, start))) as writer:
        for frame in frames:
            writer.write(frame.time, frame.rgb)
        writer.close(end or frames[-1].time + frames[-1].duration)
    return out


def heard(path, number: int = 0) -> tuple[float, float, np.ndarray]:
    """When an audio track starts and ends in its file, in seconds, and its samples, -1 to 1."""
    with av.open(path) as file:
        track = file.streams.audio[number]
        resampler = av.AudioResampler("flt", "mono", track.codec_context.sample_rate)
        times, samples = [], []
        for frame in file.decode(track):
            times.extend([] if frame.pts is None else [frame.time - (file.start_time or 0) / 1e6])
            samples.extend(part.to_ndarray()[0] for part in resampler.resample(frame))
        values = np.concatenate(samples)
        return times[0], times[0] + len(values) / track.codec_context.sample_rate, values


def pitch(values: np.ndarray, rate: float) -> float:
    spectrum = np.abs(np.fft.rfft(values * np.hanning(len(values))))
    return float(spectrum.argmax() * rate / len(values))


@pytest.mark.parametrize("name", CASES)
def test_a_sound_is_copied_or_encoded_and_stays_in_its_place(tmp_path, name):
    path = ffmpeg(tmp_path / name, *counted(1), *tone(1), *CASES[name])
    out = rewritten(path, tmp_path / "out.mp4")
    with av.open(path) as before, av.open(out) as after:
        codec, made = (file.streams.audio[0].codec_context.codec.canonical_name for file in (before, after))
        rate, copied = after.streams.audio[0].codec_context.sample_rate, codec in COPIED and "11k" not in name
        assert made == (codec if copied else "aac")
        packets = [len([1 for packet in file.demux(audio=0) if packet.size]) for file in (before, after)]
        assert not copied or abs(packets[0] - packets[1]) <= 2
    (starts, ends, values), (found_starts, found_ends, found) = heard(path), heard(out)
    assert found_starts == pytest.approx(starts, abs=0.07)
    assert found_ends == pytest.approx(min(ends, 1.1), abs=0.11)
    assert pitch(found[len(found) // 4 : -len(found) // 4], rate) == pytest.approx(440, abs=6)
    assert np.abs(found[1000:-2000]).max() > 0.5 * np.abs(values[1000:-2000]).max()


@pytest.mark.parametrize(("name", "late"), [("a.mp4", 0.5), ("a.mkv", 0.5), ("a.webm", 0.5), ("a.ts", 0.5)])
def test_a_sound_or_a_video_that_starts_late_keeps_its_place(tmp_path, name, late):
    codecs = ["-c:v", "libvpx", "-c:a", "libopus"] if name == "a.webm" else ["-c:v", "libx264", "-c:a", "aac"]
    for i, (video, audio) in enumerate(((0, late), (late, 0))):
        tracks = [*counted(1, late=video), *tone(1.5 - audio, late=audio), "-map", "0", "-map", "1"]
        path = ffmpeg(tmp_path / f"{i}{name}", *tracks, "-fps_mode", "passthrough", *codecs)
        out = rewritten(path, tmp_path / f"out{i}.mp4")
        times, found = [frame.time for frame in read_frames(path)], [frame.time for frame in read_frames(out)]
        assert found == pytest.approx(times, abs=2e-3)
        assert found[0] == pytest.approx(video, abs=0.06)
        assert heard(out)[0] == pytest.approx(heard(path)[0], abs=0.05)


@pytest.mark.parametrize("name", ["aac.mp4", "opus.webm", "pcm.mov", "mp3.avi"])
@pytest.mark.parametrize(("start", "end", "stride"), [(0.6, 1.4, 1), (0.6, None, 5), (0, 1.2, 7)])
def test_a_part_sounds_as_that_part(tmp_path, name, start, end, stride):
    """The sound is 400 Hz in the first second and 1200 Hz after it."""
    two = ["-f", "lavfi", "-i", "aevalsrc='0.5*sin(2*PI*t*if(lt(t,1),400,1200))':d=2:s=48000"]
    path = ffmpeg(tmp_path / name, *counted(2), *two, *CASES[name])
    out = rewritten(path, tmp_path / "out.mp4", start, end or 2.0, stride)
    length = (end or 2.0) - start
    starts, ends, values = heard(out)
    rate = len(values) / (ends - starts)
    assert starts == pytest.approx(0, abs=0.03)
    assert ends == pytest.approx(length, abs=0.08)
    change = int((1.0 - start - starts) * rate)  # the sample at which the file's first second ends
    assert pitch(values[1000 : change - 1000], rate) == pytest.approx(400, abs=20)
    assert pitch(values[change + 1000 : -1000], rate) == pytest.approx(1200, abs=30)
    window = int(0.02 * rate)
    high = [pitch(values[i : i + window], rate) > 800 for i in range(window, len(values) - window, window)]
    assert starts + 0.02 * (1 + high.index(True)) == pytest.approx(1.0 - start, abs=0.04)
    with av.open(out) as file:
        assert float(file.streams.video[0].duration * file.streams.video[0].time_base) == pytest.approx(
            length, abs=0.05
        )


def test_all_audio_tracks_are_kept_with_their_languages_and_the_default(tmp_path):
    tracks = [*counted(1), *tone(1), *tone(1, hertz=880), "-map", "0", "-map", "1", "-map", "2"]
    marks = ["-metadata:s:a:0", "language=eng", "-metadata:s:a:1", "language=deu"]
    codecs = ["-c:a:0", "aac", "-c:a:1", "libvorbis", "-disposition:a:0", "0", "-disposition:a:1", "default"]
    path = ffmpeg(tmp_path / "two.mkv", *tracks, *marks, *codecs)
    out = rewritten(path, tmp_path / "out.mp4")
    with av.open(out) as file:
        assert [(track.codec_context.name, track.language) for track in file.streams.audio] == [
            ("aac", "eng"),
            ("aac", "deu"),
        ]
        assert [bool(track.disposition & av.stream.Disposition.default) for track in file.streams.audio] == [
            False,
            True,
        ]
    assert [round(pitch(heard(out, i)[2][4000:-4000], 48_000), -1) for i in (0, 1)] == [440, 880]


def test_a_sound_longer_than_the_video_ends_with_it_and_a_shorter_one_before(tmp_path):
    for seconds, ends in ((3, 1), (0.5, 0.5)):
        path = ffmpeg(tmp_path / f"{seconds}.mkv", *counted(1), *tone(seconds))
        assert heard(rewritten(path, tmp_path / f"{seconds}.mp4"))[1] == pytest.approx(ends, abs=0.05)


def test_a_video_without_sound_and_what_is_no_video_have_none(tmp_path):
    path = ffmpeg(tmp_path / "mute.mp4", *counted(0.2))
    with av.open(rewritten(path, tmp_path / "out.mp4")) as file:
        assert not file.streams.audio
    assert list(Sound(tmp_path / "gone.mp4").until(9)) == []


def test_damaged_sound_costs_no_frame(tmp_path):
    path = ffmpeg(tmp_path / "a.avi", *counted(1), *tone(1), "-c:v", "mpeg4", "-c:a", "mp2")
    data = bytearray(path.read_bytes())
    place = data.index(b"01wb", len(data) // 3)
    data[place + 8 : place + 300] = b"\xff" * 292
    path.write_bytes(data)
    out = rewritten(path, tmp_path / "out.mp4")
    assert len(list(read_frames(out))) == 25
    assert heard(out)[1] == pytest.approx(1, abs=0.1)
