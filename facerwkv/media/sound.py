"""The sound of a video file, for a video that is made of it."""

import math
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from facerwkv.media.container import Clock, UnreadableVideo, Watch, opened, pyav, start_of

COPIED = frozenset({"aac", "mp3", "ac3", "eac3", "alac", "flac", "opus"})
"""Codecs that players of MP4 know; every other sound becomes AAC."""
_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
_SAMPLES = 1024
"""Sound that is decoded is cut into pieces of at most this many samples."""
_BEFORE = 10.0
"""Seconds before the start from which on a file is read: a seek is not exact."""


@dataclass
class _Track:
    """An audio track of the file, its clock, and its track in the MP4."""

    source: Any
    clock: Clock
    target: Any
    copied: bool


class Sound:
    """All audio tracks of a file from `start` seconds on its clock on; none where there are none. Close it.

    `add_to` an MP4 before anything is written to it, then write the packets that `until` gives, and those of `rest`:
    copied, or as AAC where MP4 cannot hold them. Damaged pieces are left out. The reader calls `watch`.
    """

    def __init__(self, path: str | Path, start: float = 0.0, watch: Watch | None = None):
        self.start, self.watch, self._open, self._tracks = start, watch, ExitStack(), dict[int, _Track]()
        self._waiting: tuple[float, _Track, Any] | None = None
        self._pieces: Iterator[tuple[float, _Track, Any]] = iter(())
        with suppress(UnreadableVideo):
            self._container = self._open.enter_context(opened(path, 0.0, str(path)))

    def add_to(self, target: Any) -> None:
        for track in self._container.streams.audio if hasattr(self, "_container") else ():
            if (codec := track.codec_context) is None:  # FFmpeg does not know it
                continue
            name = codec.codec.canonical_name
            copied = name in COPIED and not (name == "mp3" and codec.sample_rate < 16_000)
            if copied:
                made = target.add_stream_from_template(track)
            else:
                rate = max((rate for rate in _RATES if rate <= codec.sample_rate), default=_RATES[0])
                made = target.add_stream("aac", rate=rate, layout="mono" if codec.channels == 1 else "stereo")
            made.metadata.update({key: track.metadata[key] for key in ("language", "title") if key in track.metadata})
            made.disposition = track.disposition
            self._tracks[track.index] = _Track(track, Clock(self._container, 0.0, -math.inf), made, copied)
        if self._tracks:
            self._pieces = self._read()

    def until(self, time: float) -> Iterator[Any]:
        """The packets, for the MP4, of what begins to sound before `time`, in seconds, and was not given yet."""
        while piece := self._waiting or next(self._pieces, None):
            at, track, data = piece
            self._waiting = piece if at >= time else None
            if self._waiting:
                return
            data.pts = round((at - self.start) / data.time_base)
            if track.copied:
                data.dts, data.stream = data.pts, track.target
                yield data
            else:
                yield from track.target.encode(data)

    def rest(self, time: float) -> Iterator[Any]:
        """As `until`, and what is still in the encoders."""
        yield from self.until(time)
        for track in self._tracks.values():
            if not track.copied:
                yield from track.target.encode(None)

    def close(self) -> None:
        self._open.close()

    def _read(self) -> Iterator[tuple[float, _Track, Any]]:
        """Packets of the tracks that are copied, short frames of the others, each with its time on the file's clock."""
        av = pyav()
        if self.start > _BEFORE:
            with suppress(av.error.FFmpegError):
                self._container.seek(round(1e6 * (self.start - _BEFORE + start_of(self._container))))
        with suppress(av.error.FFmpegError, OSError):  # what cannot be read on has no more sound
            for packet in self._container.demux(*(track.source for track in self._tracks.values())):
                if self.watch:
                    self.watch()
                track = self._tracks[packet.stream.index]
                if not track.copied:
                    with suppress(av.error.InvalidDataError):
                        yield from self._decoded(track, packet)
                elif packet.pts is not None:
                    at = track.clock(float(packet.pts * packet.time_base))
                    if at + 2 * float((packet.duration or 0) * packet.time_base) > self.start:  # a decoder warms up
                        yield at, track, packet

    def _decoded(self, track: _Track, packet: Any) -> Iterator[tuple[float, _Track, Any]]:
        for frame in packet.decode():
            at = track.clock(None if frame.pts is None else float(frame.pts * frame.time_base))
            values, channels = frame.to_ndarray(), 1 if frame.format.is_planar else len(frame.layout.channels)
            for i in range(0, frame.samples, _SAMPLES):
                piece = np.ascontiguousarray(values[:, i * channels : (i + _SAMPLES) * channels])
                if at + (i + _SAMPLES) / frame.sample_rate > self.start:
                    short = pyav().AudioFrame.from_ndarray(piece, frame.format.name, frame.layout.name)
                    short.sample_rate, short.time_base = frame.sample_rate, Fraction(1, frame.sample_rate)
                    yield at + i / frame.sample_rate, track, short
