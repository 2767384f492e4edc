"""Results → a terminal, a table, drawn images and videos."""

import csv
import importlib.util
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

import numpy as np

from facerwkv.core.errors import InputError
from facerwkv.core.files import atomic
from facerwkv.inference.options import Options
from facerwkv.inference.results import Result, count_of, describe, ranked_text
from facerwkv.media.container import Watch
from facerwkv.media.draw import COLOURS
from facerwkv.media.frames import VideoWriter, duration
from facerwkv.media.geometry import area
from facerwkv.media.sound import Sound

if TYPE_CHECKING:
    from rich.text import Text

UNSURE = "unsure"


class Column(NamedTuple):
    """A column of a table: its type as Arrow calls it, what it contains, and whether only tables of videos have it."""

    type: str
    about: str
    videos: bool = False


COLUMNS = {
    "source": Column("string", "the image, or the video, as it was named"),
    "status": Column("string", "`ok`, `no_face` or `unreadable`"),
    "time": Column("float64", "seconds from the start of the video", videos=True),
    "frame": Column("int64", "the number of the frame, from 0", videos=True),
    "track": Column("int64", "the number that a face keeps through the video, from 1", videos=True),
    "x1": Column("int64", "left edge of the face in pixels of the upright image; empty for a whole image"),
    "y1": Column("int64", "top edge"),
    "x2": Column("int64", "right edge"),
    "y2": Column("int64", "bottom edge"),
    "detection": Column("float64", "the score of the face detector, 0 to 1", videos=True),
    "label": Column("string", "the most likely label"),
    "score": Column("float64", "its probability, 0 to 1"),
    UNSURE: Column("bool", "with `--threshold`: whether the score is below it"),
}
"""In their order; behind them one column per label, float64, with its probability."""
ROWS = 4096
"""Rows of a Parquet file that are written at once."""
REMEMBERED, LISTED = 1000, 20
"""Faces of a video that are counted, and those that are listed, the longest present first."""
STRIP = 12
"""The timeline's height is the image's divided by this."""
PAPER = (18, 20, 24)

Write = Callable[[Result], object]


def table_columns(video: bool = False, threshold: float | None = None) -> tuple[str, ...]:
    """A table's columns before those of the labels; "unsure" is among them where there is a threshold."""
    return tuple(
        name
        for name, column in COLUMNS.items()
        if (video or not column.videos) and (threshold is not None or name != UNSURE)
    )


@contextmanager
def csv_sink(path: Path, columns: Sequence[str], labels: Sequence[str]) -> Iterator[Write]:
    with _text_file(path) as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow([*columns, *labels])
        yield lambda result: table.writerows(_rows(result, columns, labels))


@contextmanager
def json_sink(path: Path, columns: Sequence[str], labels: Sequence[str]) -> Iterator[Write]:
    """One array."""
    with _text_file(path) as file:
        separators = iter(("[\n",))
        yield lambda result: file.write(next(separators, ",\n") + result.to_json())
        file.write(next(separators, "") + "\n]\n")


@contextmanager
def jsonl_sink(path: Path, columns: Sequence[str], labels: Sequence[str]) -> Iterator[Write]:
    """One object per line."""
    with _text_file(path) as file:
        yield lambda result: file.write(result.to_json() + "\n")


@contextmanager
def parquet_sink(path: Path, columns: Sequence[str], labels: Sequence[str]) -> Iterator[Write]:
    """Rows as in CSV, with nulls for empty cells, ROWS at a time."""
    arrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    kinds = {name: column.type for name, column in COLUMNS.items()}
    schema = arrow.schema([(name, kinds.get(name, "float64")) for name in (*columns, *labels)])
    waiting: list[list[Any]] = []

    def flush() -> None:
        cells = zip(*waiting, strict=True)
        file.write_batch(arrow.record_batch([*map(arrow.array, cells, schema.types)], schema=schema))
        waiting.clear()

    def write(result: Result) -> None:
        rows = _rows(result, columns, labels)
        waiting.extend([row[0].encode("utf-8", "replace").decode(), *row[1:]] for row in rows)
        if len(waiting) >= ROWS:
            flush()

    with parquet.ParquetWriter(path, schema) as file:
        yield write
        if waiting:
            flush()


class Sink(NamedTuple):
    """A format: `open(path, columns, labels)` writes a file of it; `package`, of the extra `extra`, must be there."""

    open: Callable[[Path, Sequence[str], Sequence[str]], AbstractContextManager[Write]]
    package: str | None = None
    extra: str | None = None


SINKS = {
    ".csv": Sink(csv_sink),
    ".json": Sink(json_sink),
    ".jsonl": Sink(jsonl_sink),
    ".parquet": Sink(parquet_sink, "pyarrow", "parquet"),
}
"""By the ending of the file's name."""


def _text_file(path: Path) -> TextIO:
    return path.open("w", encoding="utf-8", errors="surrogateescape", newline="")


def _rows(result: Result, columns: Sequence[str], labels: Sequence[str]) -> list[list[Any]]:
    """A row of cells for each face, and one where there is none."""
    shared = {"source": result.source, "status": result.status, "time": result.time, "frame": result.frame}
    rows = [] if result.faces else [[*map(shared.get, columns), *[None] * len(labels)]]
    for face in result.faces:
        cells = shared | dict(zip(("x1", "y1", "x2", "y2"), face.box or (), strict=False))
        cells |= {"track": face.track, "detection": face.detection}
        cells |= {"label": face.label, "score": face.score, UNSURE: face.unsure}
        rows.append([*map(cells.get, columns), *map(face.probs.get, labels)])
    return rows


@contextmanager
def writer(path: str | Path, labels: Sequence[str], columns: Sequence[str] = table_columns()) -> Iterator[Write]:
    """Open a file whose ending is one of SINKS, and yield the function that adds a result to it.

    CSV and Parquet have a row per face (one, with empty cells, for an image without), `columns` and one per label. The
    file appears under its name, whole, when the block ends; after Ctrl-C, or when nobody reads the output any more, it
    contains what came before.
    """
    sink = SINKS.get(Path(path).suffix.lower())
    if sink is None:
        raise InputError(f"Cannot tell how to write {path}: end its name in one of {', '.join(SINKS)}.")
    if sink.package and importlib.util.find_spec(sink.package) is None:
        raise InputError(f'Writing {path} needs {sink.package}: pip install "facerwkv[{sink.extra}]"')
    stopped: BaseException | None = None
    with atomic(path) as partial, sink.open(partial, columns, labels) as write:
        try:
            yield write
        except (KeyboardInterrupt, BrokenPipeError) as error:
            stopped = error
    if stopped:
        raise stopped


class DrawnVideo:
    """Results of one video → an H.264 file: the frames with their faces drawn, and below them a timeline. Close it.

    The timeline moves one pixel to the left with every frame; its right column shows the probabilities of the largest
    face, stacked, in the colours of the labels. Where the video is a file, `video`, the drawn one sounds as it does,
    from the options' start on, unless they say no audio; otherwise it begins with the first frame. The sound's reader
    calls `watch`.
    """

    def __init__(
        self, path: Path, video: str | Path | None = None, options: Options | None = None, watch: Watch | None = None
    ):
        self.path, self.video, self.options = path, video, options or Options()
        self.last, self._end = -1.0, 0.0
        sound = Sound(video, self.options.start, watch) if video and self.options.audio else None
        self._writer = VideoWriter(path, start=self.options.start if video else None, sound=sound)
        self._strip: np.ndarray | None = None

    def add(self, result: Result) -> None:
        """InputError if it cannot be written; what was written before plays."""
        image = np.asarray(result.plot())
        if self._strip is None or self._strip.shape[1] != image.shape[1]:
            self._strip = np.full((max(16, image.shape[0] // STRIP), image.shape[1], 3), PAPER, np.uint8)
        self._strip[:, :-1] = self._strip[:, 1:]
        self._strip[:, -1] = PAPER
        if result.faces:
            probs = max(result.faces, key=lambda face: area(face.box or (0, 0, 0, 0))).probs
            ends = (np.cumsum([*probs.values()]) * len(self._strip)).round().astype(int)
            colours = np.array([tuple(bytes.fromhex(colour[1:])) for colour in COLOURS], np.uint8)
            number = np.searchsorted(ends, np.arange(len(self._strip)), side="right").clip(max=len(probs) - 1)
            self._strip[:, -1] = colours[number % len(colours)]
        now = result.time or 0.0
        since, thinned = max(0.0, now - self.last), self.options.stride > 1 or self.options.fps is not None
        if result.duration and not thinned:
            self._end = now + result.duration
        else:  # as long as the frame before it, or where none was
            self._end = now + (since if self.last >= 0 else result.duration or 1 / self._writer.rate)
        self.last = now
        self._writer.write(now, np.vstack([image, self._strip]))

    def close(self) -> None:
        """The last frame is shown as long as it is in the video; where frames are left out, up to the next of them."""
        ends = [self._end, self.options.end, duration(self.video) if self.video else None]
        self._writer.close(min(end for end in ends if end is not None))


class Media:
    """A folder of drawn images and videos: `media(result)` adds one and returns its path, or None for an unread one.

    A file is named after its source, `party_drawn.jpg` or `talk_drawn.mp4`; a second of that name becomes
    `party_drawn-2.jpg`. Frames of one source, in their order, are one video, with the source's sound if it is a file
    and `options`, those of the prediction, say audio. Close it.
    """

    def __init__(self, folder: str | Path, options: Options | None = None):
        self.folder, self.options = Path(folder), options
        self._names: Counter[str] = Counter()
        self._video: tuple[str, DrawnVideo] | None = None

    def __call__(self, result: Result) -> Path | None:
        if result.status == "unreadable":
            return None
        if result.frame is None:
            path, drawn = self._path(result.source, ".jpg"), result.plot()
            with atomic(path) as partial:
                drawn.save(partial, "JPEG", quality=92)
            return path
        if self._video is None or self._video[0] != result.source or (result.time or 0) <= self._video[1].last:
            self.close()
            video = result.source if Path(result.source).is_file() else None
            self._video = result.source, DrawnVideo(self._path(result.source, ".mp4"), video, self.options)
        self._video[1].add(result)
        return self._video[1].path

    def close(self) -> None:
        """End the video that is being written."""
        video, self._video = self._video, None
        if video:
            video[1].close()

    def _path(self, source: str, ending: str) -> Path:
        stem = re.sub(r"[^\w-]+", "_", Path(source).stem).strip("_")[:80] or "image"
        name = f"{stem}_drawn"
        self._names[(name + ending).lower()] += 1
        again = self._names[(name + ending).lower()]
        return self.folder / (f"{name}-{again}{ending}" if again > 1 else name + ending)


@dataclass
class Summary:
    """The counts of the last line, and the results that failed."""

    images: int = 0
    frames: int = 0
    faces: int = 0
    without: int = 0
    failed: list[Result] = field(default_factory=list)
    started: float = field(default_factory=time.perf_counter)

    def add(self, result: Result) -> None:
        self.images += result.frame is None
        self.frames += result.frame is not None and result.status != "unreadable"
        self.faces += sum(face.box is not None for face in result.faces)
        self.without += result.status == "no_face"
        if result.message:
            self.failed.append(result)

    def __str__(self) -> str:
        seconds = time.perf_counter() - self.started
        nouns = {"image": self.images, "frame": self.frames, "face": self.faces}
        wanted = {"image": self.images or not self.frames, "frame": self.frames, "face": True}
        counts = [f"{nouns[noun]} {noun}{'' if nouns[noun] == 1 else 's'}" for noun in nouns if wanted[noun]]
        counts += [f"{self.without} without a face"] * bool(self.without)
        counts += [f"{len(self.failed)} failed"] * bool(self.failed)
        speed = (self.images + self.frames) / max(seconds, 1e-9)
        return f"{', '.join(counts)}; {seconds:.2f} s ({speed:.1f} {'frames' if self.frames else 'images'}/s)"


@dataclass
class TrackSummary:
    """A face through a video: first and last time in seconds, frames, and the sums of its probabilities."""

    first: float
    last: float
    frames: int
    probs: Counter[str]
    threshold: float | None


@dataclass
class TextReport:
    """What a person reads of results: `report(result)` gives the texts that are due, `end()` the last.

    An image is described at once, a video when it has ended: its faces, longest present first, with their mean
    probabilities.
    """

    _source: str = field(default="", init=False)
    _size: tuple[int, int] = field(default=(0, 0), init=False)
    _frames: int = field(default=0, init=False)
    _tracks: dict[int | None, TrackSummary] = field(default_factory=dict, init=False)

    def __call__(self, result: Result) -> Iterator["Text"]:
        """The texts (rich) that are due now."""
        single = result.frame is None or result.status == "unreadable"
        if single or result.source != self._source:
            yield from self.end()
        if single:
            yield describe(result)
            return
        self._source, self._size, self._frames = result.source, result.size, self._frames + 1
        now = result.time or 0.0
        for face in result.faces:
            track = self._tracks.setdefault(face.track, TrackSummary(now, now, 0, Counter(), face.threshold))
            track.last, track.frames = now, track.frames + 1
            track.probs.update(face.probs)
        if len(self._tracks) > REMEMBERED:
            del self._tracks[min(self._tracks, key=lambda number: self._tracks[number].frames)]

    def end(self) -> Iterator["Text"]:
        """The text of the video that has ended, if there is one."""
        if not self._frames:
            return
        from rich.text import Text

        faces = count_of(sum(number is not None for number in self._tracks), "face")
        text = Text().append(self._source.encode("utf-8", "replace").decode(), "bold")
        text.append(f"  {self._size[0]}x{self._size[1]}  {count_of(self._frames, 'frame')}  {faces}")
        longest = sorted(self._tracks.items(), key=lambda item: -item[1].frames)
        for number, track in longest[:LISTED]:
            means = {name: total / track.frames for name, total in track.probs.items()}
            text.append(f"\n  {number or 'whole image'}  {track.first:.1f}-{track.last:.1f} s")
            text.append(ranked_text(means, track.threshold))
        text.append(f"\n  and {len(longest) - LISTED} more" if len(longest) > LISTED else "")
        self._frames, self._tracks = 0, {}
        yield text


def deliver(
    results: Iterable[Result],
    predictor: Any,
    out: Path | None,
    save_media: Path | None,
    as_json: bool,
    columns: Sequence[str] = table_columns(),
    options: Options | None = None,
) -> list[Result]:
    """Print results as they come, as lines of JSON or for a person, and write them to the file and the folder, if any.

    `predictor` gives its `labels` and its name (repr), `columns` are the table's, `options` the prediction's. Returns
    the results that failed.
    """
    from rich.console import Console

    console, summary, report = Console(soft_wrap=True, stderr=as_json, markup=False), Summary(), TextReport()
    with ExitStack() as open_files:
        sinks: list[Write] = [open_files.enter_context(writer(out, predictor.labels, columns))] if out else []
        if save_media:
            sinks.append(media := Media(save_media, options))
            open_files.callback(media.close)
        if not as_json:
            console.print(repr(predictor), style="dim", highlight=False)
        for result in results:
            if as_json:
                print(result.to_json(), flush=True)
            else:
                for text in report(result):
                    console.print(text)
            for sink in (summary.add, *sinks):
                sink(result)
        for text in report.end():
            console.print(text)
    wrote = "".join(f"; wrote {path}" for path in (out, save_media) if path)
    console.print(f"{summary}{wrote}", highlight=False)
    return summary.failed
