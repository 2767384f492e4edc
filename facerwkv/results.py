"""What was found in a picture, and the forms it leaves the program in: JSON, CSV, a terminal, a drawing."""

import csv
import io
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import chain, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from PIL import Image

from facerwkv.data.images import Channels, open_image
from facerwkv.draw import draw_faces
from facerwkv.errors import InputError
from facerwkv.files import atomic

if TYPE_CHECKING:
    from rich.console import Group
    from rich.text import Text

Source = str | Path | bytes | Image.Image | np.ndarray
Status = Literal["ok", "no_face", "unreadable"]
SHOWN = 3
COLUMNS = ("source", "status", "x1", "y1", "x2", "y2", "label", "score")


@dataclass(frozen=True, slots=True, repr=False)
class Face:
    """One face, or the whole picture where `box` is None, and what it looks like.

    `probs` holds every label's probability by name, in the model's order; `label` is the likeliest and `score` its
    probability. `box` is x1, y1, x2, y2 in pixels of the upright picture, `detection` the detector's score, 0 to 1.
    """

    label: str
    score: float
    probs: dict[str, float]
    box: tuple[int, int, int, int] | None = None
    detection: float | None = None

    def to_dict(self) -> dict[str, Any]:
        place = {} if self.box is None else {"box": list(self.box)}
        return place | {"label": self.label, "score": self.score, "probs": dict(self.probs)}

    def __repr__(self) -> str:
        ranked = sorted(self.probs.items(), key=lambda item: -item[1])[:SHOWN]
        place = "whole picture" if self.box is None else str(list(self.box))
        return "  ".join([place, *(f"{name} {probability:.2f}" for name, probability in ranked)])


@dataclass(frozen=True, slots=True, repr=False)
class Result:
    """The faces of one picture.

    `status` is "ok", "no_face" or "unreadable"; `message` says why where the picture counts as failed, and is empty
    otherwise. `size` is (width, height) in pixels of the upright picture, (0, 0) if it is unreadable.
    """

    source: str
    status: Status
    faces: list[Face] = field(default_factory=list)
    size: tuple[int, int] = (0, 0)
    message: str = ""
    picture: Source | None = field(default=None, compare=False)
    channels: Channels = "rgb"

    @property
    def failed(self) -> bool:
        return bool(self.message)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `facerwkv predict --json` prints them on one line."""
        faces = [face.to_dict() for face in self.faces]
        reason = {"message": self.message} if self.message else {}
        return {"source": self.source, "status": self.status, "faces": faces} | reason

    def to_json(self) -> str:
        return json.dumps(self.to_dict())

    def plot(self) -> Image.Image:
        """The picture, read again, with its faces drawn. InputError if it cannot be read."""
        if self.status == "unreadable" or self.picture is None:
            raise InputError(self.message or f"The picture of {self.source} was not kept, so it cannot be drawn.")
        return draw_faces(
            open_image(self.picture, self.channels, self.source), [(face.box, face.probs) for face in self.faces]
        )

    def __repr__(self) -> str:
        return describe(self).plain


@dataclass
class Summary:
    """The count of what went by, for the last line and the exit code."""

    pictures: int = 0
    faces: int = 0
    without: int = 0
    failed: list[Result] = field(default_factory=list)
    started: float = field(default_factory=time.perf_counter)

    def add(self, result: Result) -> None:
        self.pictures += 1
        self.faces += sum(face.box is not None for face in result.faces)
        self.without += result.status == "no_face"
        if result.failed:
            self.failed.append(result)

    def __str__(self) -> str:
        seconds = time.perf_counter() - self.started
        parts = [_count(self.pictures, "picture"), _count(self.faces, "face")]
        parts += [f"{self.without} without a face"] * bool(self.without)
        parts += [f"{len(self.failed)} failed"] * bool(self.failed)
        return f"{', '.join(parts)}; {seconds:.2f} s ({self.pictures / max(seconds, 1e-9):.1f} pictures/s)"


class Format(NamedTuple):
    """How a results file is put together: what stands first, each result's text, between two of them, and last."""

    head: str
    text: Callable[[Result], str]
    between: str = ""
    tail: str = ""


def _csv_rows(result: Result, labels: Sequence[str]) -> str:
    start, blank = [result.source, result.status], [""] * 4
    rows = [
        [*start, *(face.box or blank), face.label, face.score, *map(face.probs.get, labels)] for face in result.faces
    ]
    return _csv_text(rows or [start + [""] * (len(COLUMNS) - 2 + len(labels))])


def _csv_text(rows: Iterable[Iterable[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _format(path: Path, labels: Sequence[str]) -> Format:
    formats = {
        ".csv": Format(_csv_text([[*COLUMNS, *labels]]), lambda result: _csv_rows(result, labels)),
        ".json": Format("[\n", Result.to_json, between=",\n", tail="\n]\n"),
        ".jsonl": Format("", lambda result: result.to_json() + "\n"),
    }
    if path.suffix.lower() not in formats:
        raise InputError(f"Cannot tell how to write {path}: end its name in one of {', '.join(formats)}.")
    return formats[path.suffix.lower()]


@contextmanager
def writer(path: str | Path, labels: Sequence[str]) -> Iterator[Callable[[Result], object]]:
    """Open a .csv, .json or .jsonl file, and yield the function that adds a result to it.

    CSV has a row per face (one, with empty cells, for a picture without) and a column per label. The file appears under
    its name, whole, when the block ends; after Ctrl-C, or when nobody reads the output any more, it holds what came
    before.
    """
    stopped: BaseException | None = None
    form = _format(Path(path), labels)
    separators = chain([""], repeat(form.between))
    with atomic(path) as partial, partial.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        file.write(form.head)
        try:
            yield lambda result: file.write(next(separators) + form.text(result))
        except (KeyboardInterrupt, BrokenPipeError) as error:
            stopped = error
        file.write(form.tail)
    if stopped:
        raise stopped


def write_results(results: Iterable[Result], path: str | Path, labels: Sequence[str]) -> None:
    """Write results as they come, in constant memory; see `writer`."""
    with writer(path, labels) as write:
        for result in results:
            write(result)


class Media:
    """A folder of drawn pictures: `media(result)` adds one and returns its path, or None where there is none to draw.

    A file is named after its source, `party_drawn.jpg`; a second of that name becomes `party_drawn-2.jpg`.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self._names: Counter[str] = Counter()

    def __call__(self, result: Result) -> Path | None:
        if result.status == "unreadable":
            return None
        path = self.folder / self._name(result.source)
        drawn = result.plot()
        with atomic(path) as partial:
            drawn.save(partial, "JPEG", quality=92)
        return path

    def _name(self, source: str) -> str:
        stem = re.sub(r"[^\w-]+", "_", Path(source).stem).strip("_")[:80] or "picture"
        self._names[stem.lower()] += 1
        again = self._names[stem.lower()]
        return f"{stem}_drawn-{again}.jpg" if again > 1 else f"{stem}_drawn.jpg"


def save_media(results: Iterable[Result], folder: str | Path) -> list[Path]:
    """Draw every picture that could be read; the files' paths."""
    return [path for path in map(Media(folder), results) if path]


def describe(result: Result) -> "Text":
    """The lines that a person reads: the picture, then every face with its likeliest labels."""
    from rich.text import Text

    text = Text().append(result.source.encode("utf-8", "replace").decode(), "bold")  # a file's name may be no Unicode
    if result.status != "unreadable":
        width, height = result.size
        found = sum(face.box is not None for face in result.faces)
        text.append(f"  {width}x{height}", style="dim")
        text.append("  no face" if result.status == "no_face" else f"  {_count(found, 'face')}" if found else "")
    for number, face in enumerate(result.faces, 1):
        line = Text(f"\n  {number}  {face!r}")
        line.highlight_words([face.label], "bold green")
        text.append_text(line)
    return text.append(f"\n  {result.message}", style="red") if result.message else text


def deliver(
    results: Iterable[Result], predictor: Any, out: Path | None, save_media: Path | None, as_json: bool
) -> list[Result]:
    """Print results as they come, as lines of JSON or for a person, and write them to the file and the folder, if any.

    `predictor` gives its `labels` and what it is called. Returns the results that failed.
    """
    from rich.console import Console

    console, summary, takers = Console(soft_wrap=True, stderr=as_json), Summary(), []
    with ExitStack() as open_files:
        if out:
            takers.append(open_files.enter_context(writer(out, predictor.labels)))
        if save_media:
            takers.append(Media(save_media))
        if not as_json:
            console.print(repr(predictor), style="dim", highlight=False)
        for result in results:
            print(result.to_json(), flush=True) if as_json else console.print(describe(result))
            summary.add(result)
            for take in takers:
                take(result)
    wrote = "".join(f"; wrote {place}" for place in (out, save_media) if place)
    console.print(f"{summary}{wrote}", markup=False, highlight=False)
    return summary.failed


def table(results: Iterable[Result]) -> "Group":
    """`describe` of every result, to print with rich."""
    from rich.console import Group

    return Group(*map(describe, results))


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"
