"""Results → a terminal, a table, drawn images and videos."""

import csv
import importlib.util
import io
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import chain, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from facerwkv.core.errors import InputError
from facerwkv.core.files import atomic
from facerwkv.inference.results import SHOWN, Face, Result, below, count_of, describe
from facerwkv.inference.stream import DrawnVideo
from facerwkv.media.frames import is_video

if TYPE_CHECKING:
    from rich.text import Text

COLUMNS = ("source", "status", "x1", "y1", "x2", "y2", "label", "score")
VIDEO_COLUMNS = (*COLUMNS[:2], "time", "frame", "track", *COLUMNS[2:6], "detection", *COLUMNS[6:])
UNSURE = "unsure"
TYPES = {
    "string": ("source", "status", "label"),
    "int64": ("frame", "track", "x1", "y1", "x2", "y2"),
    "bool_": (UNSURE,),
}
ROWS = 4096
"""Rows of a Parquet file that are written at once."""
REMEMBERED, LISTED = 1000, 20
"""Faces of a video that are counted, and those that are shown, the longest seen first."""

Write = Callable[[Result], object]


@dataclass
class Summary:
    """The count of what went by, for the last line and the exit code."""

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
        if result.failed:
            self.failed.append(result)

    def __str__(self) -> str:
        seconds = time.perf_counter() - self.started
        parts = [count_of(self.images, "image")] * bool(self.images or not self.frames)
        parts += [count_of(self.frames, "frame")] * bool(self.frames)
        parts += [count_of(self.faces, "face")]
        parts += [f"{self.without} without a face"] * bool(self.without)
        parts += [f"{len(self.failed)} failed"] * bool(self.failed)
        speed = (self.images + self.frames) / max(seconds, 1e-9)
        return f"{', '.join(parts)}; {seconds:.2f} s ({speed:.1f} {'frames' if self.frames else 'images'}/s)"


class Format(NamedTuple):
    """How a text file is put together: what stands first, each result's text, between two of them, and last."""

    head: str
    text: Callable[[Result], str]
    between: str = ""
    tail: str = ""

    @contextmanager
    def write(self, path: Path) -> Iterator[Write]:
        separators = chain([""], repeat(self.between))
        with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            file.write(self.head)
            yield lambda result: file.write(next(separators) + self.text(result))
            file.write(self.tail)


@contextmanager
def _parquet(path: Path, columns: Sequence[str], labels: Sequence[str]) -> Iterator[Write]:
    """Rows as in CSV, with nulls for empty cells, ROWS at a time."""
    arrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    kinds = {column: kind for kind, members in TYPES.items() for column in members}
    schema = arrow.schema([(name, getattr(arrow, kinds.get(name, "float64"))()) for name in (*columns, *labels)])
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


def _rows(result: Result, columns: Sequence[str], labels: Sequence[str]) -> list[list[Any]]:
    """A row of cells for every face, and one where there is none."""
    shared = {"source": result.source, "status": result.status, "time": result.time, "frame": result.frame}
    cells = [shared | _cells(face) for face in result.faces] or [shared]
    probs: list[dict[str, float]] = [face.probs for face in result.faces] or [{}]
    return [[*map(row.get, columns), *map(prob.get, labels)] for row, prob in zip(cells, probs, strict=True)]


def _cells(face: Face) -> dict[str, Any]:
    box = dict(zip(("x1", "y1", "x2", "y2"), face.box or (), strict=False))
    judged = {"label": face.label, "score": face.score, UNSURE: face.unsure}
    return box | {"track": face.track, "detection": face.detection} | judged


def _csv_text(rows: Iterable[Iterable[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _format(
    path: Path, columns: Sequence[str], labels: Sequence[str]
) -> Callable[[Path], AbstractContextManager[Write]]:
    """What opens a file of the kind that a name's ending says."""
    text = {
        ".csv": Format(_csv_text([[*columns, *labels]]), lambda result: _csv_text(_rows(result, columns, labels))),
        ".json": Format("[\n", Result.to_json, between=",\n", tail="\n]\n"),
        ".jsonl": Format("", lambda result: result.to_json() + "\n"),
    }
    ending = path.suffix.lower()
    if ending in text:
        return text[ending].write
    if ending != ".parquet":
        raise InputError(f"Cannot tell how to write {path}: end its name in one of {', '.join(text)}, .parquet.")
    if importlib.util.find_spec("pyarrow") is None:
        raise InputError(f'Writing {path} needs pyarrow: pip install "facerwkv[parquet]"')
    return lambda partial: _parquet(partial, columns, labels)


@contextmanager
def writer(path: str | Path, labels: Sequence[str], columns: Sequence[str] = COLUMNS) -> Iterator[Write]:
    """Open a .csv, .json, .jsonl or .parquet file, and yield the function that adds a result to it.

    CSV and Parquet have a row per face (one, with empty cells, for an image without), `columns` and one per label. The
    file appears under its name, whole, when the block ends; after Ctrl-C, or when nobody reads the output any more, it
    holds what came before.
    """
    stopped: BaseException | None = None
    opened = _format(Path(path), columns, labels)
    with atomic(path) as partial, opened(partial) as write:
        try:
            yield write
        except (KeyboardInterrupt, BrokenPipeError) as error:
            stopped = error
    if stopped:
        raise stopped


def write_results(
    results: Iterable[Result], path: str | Path, labels: Sequence[str], columns: Sequence[str] = COLUMNS
) -> None:
    """Write results as they come, in constant memory; see `writer`."""
    with writer(path, labels, columns) as write:
        for result in results:
            write(result)


class Media:
    """A folder of drawn images and videos: `media(result)` adds one and returns its path, or None for an unread one.

    A file is named after its source, `party_drawn.jpg` or `talk_drawn.mp4`; a second of that name becomes
    `party_drawn-2.jpg`. Frames of one source, in their order, are one video. Close it.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self._names: Counter[str] = Counter()
        self._video: tuple[str, DrawnVideo] | None = None

    def __call__(self, result: Result) -> Path | None:
        if result.status == "unreadable":
            return None
        if result.frame is not None:
            return self._add(result)
        path = self.folder / self._name(result.source, ".jpg")
        drawn = result.plot()
        with atomic(path) as partial:
            drawn.save(partial, "JPEG", quality=92)
        return path

    def _add(self, result: Result) -> Path:
        if self._video is None or self._video[0] != result.source or (result.time or 0) <= self._video[1].last:
            self.close()
            self._video = result.source, DrawnVideo(self.folder / self._name(result.source, ".mp4"))
        self._video[1].add(result)
        return self._video[1].path

    def close(self) -> None:
        """End the video that is being written."""
        video, self._video = self._video, None
        if video:
            video[1].close()

    def _name(self, source: str, ending: str) -> str:
        stem = re.sub(r"[^\w-]+", "_", Path(source).stem).strip("_")[:80] or "image"
        name = f"{stem}_drawn"
        self._names[(name + ending).lower()] += 1
        again = self._names[(name + ending).lower()]
        return f"{name}-{again}{ending}" if again > 1 else name + ending


def save_media(results: Iterable[Result], folder: str | Path) -> list[Path]:
    """Draw every image that could be read, and every video; the files' paths."""
    media = Media(folder)
    try:
        return list(dict.fromkeys(path for path in map(media, results) if path))
    finally:
        media.close()


@dataclass
class Seen:
    """A face through a video: first and last time in seconds, frames, the sum of its probabilities, and below what mean
    it is unsure."""

    first: float
    last: float
    frames: int
    probs: Counter[str]
    threshold: float | None


class Teller:
    """What a person reads of results: `teller(result)` gives the texts that are due, `end()` the last.

    An image is told at once, a video when it has ended: its faces, longest seen first, with their mean probabilities.
    """

    def __init__(self) -> None:
        self._source, self._frames, self._size = "", 0, (0, 0)
        self._seen: dict[int | None, Seen] = {}

    def __call__(self, result: Result) -> Iterator["Text"]:
        """The texts (rich) that are due now that this result is here."""
        if result.frame is None or result.status == "unreadable" or result.source != self._source:
            yield from self.end()
        if result.frame is None or result.status == "unreadable":
            yield describe(result)
        else:
            self._add(result)

    def _add(self, result: Result) -> None:
        self._source, self._size, self._frames = result.source, result.size, self._frames + 1
        now = result.time or 0.0
        for face in result.faces:
            seen = self._seen.setdefault(face.track, Seen(now, now, 0, Counter(), face.threshold))
            seen.last, seen.frames = now, seen.frames + 1
            seen.probs.update(face.probs)
        if len(self._seen) > REMEMBERED:
            del self._seen[min(self._seen, key=lambda track: self._seen[track].frames)]

    def end(self) -> Iterator["Text"]:
        """The text of the video that has ended, if there is one."""
        if not self._frames:
            return
        from rich.text import Text

        tracks = count_of(sum(track is not None for track in self._seen), "face")
        text = Text().append(self._source.encode("utf-8", "replace").decode(), "bold")
        text.append(f"  {self._size[0]}x{self._size[1]}  {count_of(self._frames, 'frame')}  {tracks}")
        longest = sorted(self._seen.items(), key=lambda item: -item[1].frames)
        text.append("".join(_line(track, seen) for track, seen in longest[:LISTED]))
        text.append(f"\n  and {len(longest) - LISTED} more" if len(longest) > LISTED else "")
        self._frames, self._seen = 0, {}
        yield text


def _line(track: int | None, seen: Seen) -> str:
    ranked = sorted(seen.probs.items(), key=lambda item: -item[1])[:SHOWN]
    means = "".join(f"  {name} {total / seen.frames:.2f}" for name, total in ranked)
    unsure = seen.threshold is not None and ranked[0][1] / seen.frames < seen.threshold
    doubt = f"  {below(seen.threshold)}" if unsure else ""
    return f"\n  {track or 'whole image'}  {seen.first:.1f}-{seen.last:.1f} s{means}{doubt}"


def columns_for(sources: Iterable[str], threshold: float | None = None) -> tuple[str, ...]:
    """`table_columns` of images, or of these sources if a video is among them."""
    return table_columns(any(map(is_video, sources)), threshold)


def table_columns(video: bool, threshold: float | None = None) -> tuple[str, ...]:
    """A table's columns before those of the labels: a video's have time, frame, track and detection too, and where
    there is a threshold, unsure is the last."""
    columns = VIDEO_COLUMNS if video else COLUMNS
    return columns if threshold is None else (*columns, UNSURE)


def deliver(
    results: Iterable[Result],
    predictor: Any,
    out: Path | None,
    save_media: Path | None,
    as_json: bool,
    columns: Sequence[str] = COLUMNS,
) -> list[Result]:
    """Print results as they come, as lines of JSON or for a person, and write them to the file and the folder, if any.

    `predictor` gives its `labels` and what it is called, `columns` are the table's. Returns the results that failed.
    """
    from rich.console import Console

    console, summary, teller = Console(soft_wrap=True, stderr=as_json), Summary(), Teller()
    takers: list[Callable[[Result], object]] = [summary.add]
    with ExitStack() as open_files:
        if out:
            takers.append(open_files.enter_context(writer(out, predictor.labels, columns)))
        if save_media:
            takers.append(media := Media(save_media))
            open_files.callback(media.close)
        if not as_json:
            console.print(repr(predictor), style="dim", highlight=False)
        for result in results:
            if as_json:
                print(result.to_json(), flush=True)
            for text in () if as_json else teller(result):
                console.print(text)
            for take in takers:
                take(result)
        for text in teller.end():
            console.print(text)
    wrote = "".join(f"; wrote {place}" for place in (out, save_media) if place)
    console.print(f"{summary}{wrote}", markup=False, highlight=False)
    return summary.failed
