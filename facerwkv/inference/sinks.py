"""Results → a terminal, a table, drawn images and videos."""

import csv
import importlib.util
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

from facerwkv.core.errors import InputError
from facerwkv.core.files import atomic
from facerwkv.inference.drawn import Media
from facerwkv.inference.options import Options
from facerwkv.inference.results import Result, count_of, describe, ranked_text

if TYPE_CHECKING:
    from rich.text import Text

UNSURE, DRAWN = "unsure", "drawn"


class Column(NamedTuple):
    """A column of a table: its type as Arrow calls it, what it contains, and whether only tables of videos have it."""

    type: str
    about: str
    videos: bool = False


COLUMNS = {
    "source": Column("string", "the image, or the video, as it was named"),
    "status": Column("string", "`ok`, `no_face` or `unreadable`"),
    "width": Column("int64", "of the upright image, in pixels; empty where it could not be read"),
    "height": Column("int64", "of the upright image, in pixels"),
    "time": Column("float64", "seconds from the start of the video", videos=True),
    "frame": Column("int64", "the number of the frame, from 0", videos=True),
    "track": Column("int64", "the number that a face keeps through the video, from 1", videos=True),
    "x1": Column("int64", "left edge of the face in pixels of the upright image; empty for a whole image"),
    "y1": Column("int64", "top edge"),
    "x2": Column("int64", "right edge"),
    "y2": Column("int64", "bottom edge"),
    "detection": Column("float64", "the score of the face detector, 0 to 1"),
    "label": Column("string", "the most likely label"),
    "score": Column("float64", "its probability, 0 to 1"),
    UNSURE: Column("bool", "with `--threshold`: whether the score is below it"),
    DRAWN: Column("string", "with `--save-media`: the file of its drawing"),
}
"""In their order; behind them one column per label, float64, with its probability."""
ROWS = 4096
"""Rows of a Parquet file that are written at once."""
REMEMBERED, LISTED = 1000, 20
"""Faces of a video that are counted, and those that are listed, the longest present first."""

Write = Callable[[Result], object]


def table_columns(video: bool = False, threshold: float | None = None, drawn: bool = False) -> tuple[str, ...]:
    """A table's columns before those of the labels: "unsure" where there is a threshold, "drawn" where drawings are."""
    wanted = {UNSURE: threshold is not None, DRAWN: drawn}
    return tuple(name for name, column in COLUMNS.items() if (video or not column.videos) and wanted.get(name, True))


@contextmanager
def csv_sink(path: Path, columns: Sequence[str], labels: Sequence[str]) -> Iterator[Write]:
    """UTF-8 without a mark; text that a spreadsheet would compute (=, +, -, @ in front) begins with an apostrophe."""
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(map(_harmless, [*columns, *labels]))
        yield lambda result: table.writerows(map(_harmless, row) for row in rows_of(result, columns, labels))


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
        waiting.extend(rows_of(result, columns, labels))
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


def _harmless(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(tuple("=+-@\t\r")) else cell


def rows_of(result: Result, columns: Sequence[str], labels: Sequence[str]) -> list[list[Any]]:
    """A row of cells for each face, and one where there is none. A name's bytes that are no UTF-8 are written \\xNN."""
    shared = {name: getattr(result, name) for name in ("source", "status", "time", "frame", DRAWN)}
    for name in ("source", DRAWN):
        shared[name] = shared[name] and os.fsencode(shared[name]).decode("utf-8", "backslashreplace")
    if any(result.size):
        shared |= {"width": result.size[0], "height": result.size[1]}
    rows = [] if result.faces else [[*map(shared.get, columns), *[None] * len(labels)]]
    for face in result.faces:
        cells = shared | dict(zip(("x1", "y1", "x2", "y2"), face.box or (), strict=False))
        values = face.to_dict()
        cells |= {name: values.get(name) for name in ("track", "detection", "label", "score", UNSURE)}
        rows.append([*map(cells.get, columns), *map(values["probs"].get, labels)])
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
    quiet: bool = False,
    roots: Sequence[str] = (),
) -> list[Result]:
    """Print results as they come, as lines of JSON or for a person, and write them to the file and the folder, if any.

    `predictor` gives its `labels` and its name (repr), `columns` are the table's, `options` the prediction's.
    `quiet`: no summary, and nothing of the model. `roots`: the folders that were named, for `Media`. Returns the
    results that failed.
    """
    from rich.console import Console

    console, summary, report = Console(soft_wrap=True, stderr=as_json, markup=False), Summary(), TextReport()
    with ExitStack() as open_files:
        sinks: list[Write] = [open_files.enter_context(writer(out, predictor.labels, columns))] if out else []
        media = open_files.enter_context(closing(Media(save_media, options, roots))) if save_media else None
        if not (as_json or quiet):
            console.print(repr(predictor), style="dim", highlight=False)
        for result in results:
            if media and (path := media(result)):
                result = replace(result, drawn=str(path))
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
    if not quiet:
        console.print(f"{summary}{wrote}", highlight=False)
    return summary.failed
