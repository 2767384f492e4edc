"""What a table or a figure is made of: rows to train, the paper's number or log of each, and ours beside it on a page.

OUT/runs/PROTOCOL/ROW/seedN/   a run for every row, protocol and seed; what shares a row shares its runs
OUT/runs/.../score.json        its accuracies; a run that has one is not trained again
"""

import csv
import json
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console

from facerwkv.core.errors import InputError
from facerwkv.core.files import atomic
from facerwkv.evaluation import figures
from facerwkv.evaluation.compare import require_same
from facerwkv.evaluation.evaluate import evaluate_folder, finish
from facerwkv.evaluation.templates import Block, Drawing, Paragraph, Section, Table
from facerwkv.training.module import train
from facerwkv.training.recipe import Recipe
from facerwkv.training.run import CURVES, RECIPE, write_json

Found = TypeVar("Found")
SCORE = "score.json"
Protocols = dict[str, tuple[str, list[str]]]
PROTOCOLS: Protocols = {
    "official": ("official split, random validation", ["data.validation=random"]),
    "blocks": ("blocks of neighbouring frames", ["data.split=blocks", "data.validation=contiguous"]),
}
AS_CODED: Protocols = {"as_coded": ("as the authors' code ran", [])}
SMOKE_DATA = "toy:train=42,val=0,test=14"
SMOKE = ["train.epochs=1", "data.batch_size=14", "model.stem_weights=null"]
SMOKE_SIZE = {False: [40, 60], True: [60, 40]}  # a tenth of the paper's text, and of its authors' code
SHOWN = (1, 2, 3, 5, 10, 15, 25)
"""The epochs that a figure gives in numbers, too."""


class Incomplete(InputError):
    """Parts of an experiment could not run: a sentence for each, and the sections of what could."""

    def __init__(self, problems: Sequence[str], sections: Sequence[Section]):
        super().__init__(" ".join(problems))
        self.problems, self.sections = list(problems), list(sections)


@dataclass(frozen=True)
class Setting:
    """How experiments are run. as_coded: under what the authors' code did. smoke: everything small, on drawn faces."""

    data: str
    out: Path
    seeds: Sequence[int] = (0, 1, 2)
    as_coded: bool = False
    smoke: bool = False
    changes: Sequence[str] = ()

    @property
    def protocols(self) -> Protocols:
        return AS_CODED if self.as_coded else PROTOCOLS

    def recipe(self, protocol: str, changes: Sequence[str], seed: int) -> Recipe:
        """The recipe of one run; what the user changed comes last."""
        name = "paper_as_coded" if self.as_coded else "paper"
        data = SMOKE_DATA if self.smoke else self.data
        small = [*SMOKE, f"transform.image_size={SMOKE_SIZE[self.as_coded]}"] if self.smoke else []
        own = [*self.protocols[protocol][1], f"train.seed={seed}"]
        return Recipe.read(name, [*changes, *own, *small, *self.changes], {"data.source": data})


@dataclass(frozen=True)
class Row:
    """A line of a table.

    changes: of the recipe. paper: accuracy in per cent. ran: what its authors really ran, as far as code and logs tell.
    curve: their log's validation accuracies, one an epoch, 0..1. as_coded, smoke: more changes, under such a setting.
    """

    name: str
    changes: tuple[str, ...]
    paper: float | None = None
    ran: str = ""
    curve: tuple[float, ...] = ()
    as_coded: tuple[str, ...] = ()
    smoke: tuple[str, ...] = ()

    def under(self, setting: Setting) -> tuple[str, ...]:
        """The changes that hold under a setting."""
        return (*self.changes, *(self.as_coded if setting.as_coded else ()), *(self.smoke if setting.smoke else ()))


@dataclass(frozen=True)
class Study:
    """A table. claim: what it is said to show, or what it asks. hours: for one seed and protocol, on what."""

    title: str
    claim: str
    hours: str
    rows: tuple[Row, ...]

    def run(self, setting: Setting) -> list[Section]:
        """Train and score what is missing; the table's part of the page. Incomplete if some rows cannot run.

        InputError if none can.
        """
        scores, problems = _every(self.rows, lambda row: _scores(row, setting))
        blocks: list[Block] = [Paragraph(self.claim), Paragraph(f"Time: {self.hours}")]
        blocks.append(_table([row for row in self.rows if row.name in scores], scores, setting))
        if ran := [(row.name, row.ran) for row in self.rows if row.ran]:
            blocks.append(Table(("row", "what the authors' code really ran"), ran, numbers=False))
        if reduced := [f"{row.name} ({', '.join(row.smoke)})" for row in self.rows if row.smoke and setting.smoke]:
            blocks.append(Paragraph(f"Reduced for this trial: {'; '.join(reduced)}."))
        return _complete(self.title, blocks, problems)


@dataclass(frozen=True)
class Figure:
    """A figure: validation accuracy after each epoch of rows that stand in a table too, and the authors' logs."""

    title: str
    claim: str
    rows: tuple[Row, ...]

    def run(self, setting: Setting) -> list[Section]:
        """Train what is missing, under the first protocol and seed; the figure's part of the page. Errors as above."""
        protocol, seed = next(iter(setting.protocols)), setting.seeds[0]
        ours, problems = _every(self.rows, lambda row: _run(row, setting, protocol, seed)["curve"])
        theirs = {row.name: row.curve for row in self.rows if row.curve}
        how = f"Ours: {setting.protocols[protocol][0]}, seed {seed}."
        image = _image(self.title.partition(":")[0], ours, theirs, setting.out)
        blocks: list[Block] = [Paragraph(f"{self.claim} {how}"), _epochs_table(ours, theirs), image]
        return _complete(self.title, blocks, problems)


def run_all(parts: Sequence[Study | Figure], setting: Setting) -> list[Section]:
    """The sections of several tables and figures. Incomplete if parts of them cannot run."""
    sections: list[Section] = []
    problems: list[str] = []
    for part in parts:
        try:
            sections += part.run(setting)
        except Incomplete as error:
            sections += error.sections
            problems += error.problems
    if problems:
        raise Incomplete(problems, sections)
    return sections


def _every(rows: Sequence[Row], find: Callable[[Row], Found]) -> tuple[dict[str, Found], list[str]]:
    """What was found for the rows that can run, and a sentence for each of the others. InputError if none can."""
    found: dict[str, Found] = {}
    problems: list[str] = []
    for row in rows:
        try:
            found[row.name] = find(row)
        except InputError as error:
            problems.append(f"{row.name}: {error}")
            first = error
    if not found:
        raise first
    return found, problems


def _complete(title: str, blocks: list[Block], problems: Sequence[str]) -> list[Section]:
    """A section of these blocks. Incomplete, with the problems below them, if there are any."""
    if problems:
        raise Incomplete(problems, [(title, [*blocks, Paragraph("Missing. " + " ".join(problems))])])
    return [(title, blocks)]


@dataclass
class Scores:
    """The accuracies of a row, protocol → one a seed, 0..1."""

    test: dict[str, list[float]] = field(default_factory=dict)
    train: dict[str, list[float]] = field(default_factory=dict)


def _scores(row: Row, setting: Setting) -> Scores:
    found = Scores()
    for protocol in setting.protocols:
        runs = [_run(row, setting, protocol, seed) for seed in setting.seeds]
        found.test[protocol] = [run["test"] for run in runs]
        found.train[protocol] = [run["train"] for run in runs]
    return found


def _run(row: Row, setting: Setting, protocol: str, seed: int) -> dict[str, Any]:
    """Train, score and remember one run; or go on with it, or read what it gave."""
    changes = row.under(setting)
    plan = setting.recipe(protocol, changes, seed)
    folder = setting.out / "runs" / protocol / _slug(changes) / f"seed{seed}"
    require_same(plan, folder)
    if not (folder / SCORE).is_file():
        Console(stderr=True).print(f"[bold]{row.name}[/], {protocol}, seed {seed}", highlight=False)
        train(plan, folder, resume=(folder / RECIPE).is_file())
        finish(folder)
        accuracy = {
            split: evaluate_folder(folder, split=split).evaluation.scores["accuracy"].value
            for split in ("train", "test")
        }
        write_json(folder / SCORE, accuracy | {"curve": validation_curve(folder)})
    return json.loads((folder / SCORE).read_text(encoding="utf-8"))


def validation_curve(folder: Path) -> list[float]:
    """Validation accuracy, 0..1, after each epoch of a run."""
    with (folder / CURVES).open(newline="", encoding="utf-8") as file:
        return [float(row["val_accuracy"]) for row in csv.DictReader(file) if row["val_accuracy"]]


def _slug(changes: Sequence[str]) -> str:
    """A folder's name that rows with the same changes share."""
    return re.sub(r"[^\w.=-]+", "_", "_".join(changes)).strip("_")


def _table(rows: Sequence[Row], scores: Mapping[str, Scores], setting: Setting) -> Table:
    heads = [text for title, _ in setting.protocols.values() for text in (title, "training - test")]
    body = [_cells(scores[row.name]) for row in rows]
    if any(row.paper is not None for row in rows):
        heads[:1] = ["the paper, %", heads[0], "difference"]
        for row, cells in zip(rows, body, strict=True):
            cells[:1] = _beside(row.paper, scores[row.name], cells[0])
    return Table(("row", *heads), [(row.name, *cells) for row, cells in zip(rows, body, strict=True)])


def _cells(own: Scores) -> list[str]:
    cells = []
    for protocol, test in own.test.items():
        gap = statistics.mean(own.train[protocol]) - statistics.mean(test)
        cells += [mean_and_deviation(test), f"{100 * gap:+.1f}"]
    return cells


def _beside(paper: float | None, own: Scores, ours: str) -> list[str]:
    """The paper's number, ours of the first protocol, and how far they differ."""
    if paper is None:
        return ["-", ours, "-"]
    first = next(iter(own.test.values()))
    return [f"{paper:.2f}", ours, f"{100 * statistics.mean(first) - paper:+.2f}"]


def mean_and_deviation(values: Sequence[float]) -> str:
    """Accuracies 0..1 as per cent: the mean, and the deviation between seeds where there are several."""
    percent = [100 * value for value in values]
    spread = f" ± {statistics.stdev(percent):.2f}" if len(percent) > 1 else ""
    return f"{statistics.mean(percent):.2f}{spread}"


def _epochs_table(ours: Mapping[str, Sequence[float]], theirs: Mapping[str, Sequence[float]]) -> Table:
    curves = [pair for name in ours for pair in ((name, ours[name]), (f"{name}, the authors' log", theirs.get(name)))]
    known = [(name, curve) for name, curve in curves if curve]
    epochs = [epoch for epoch in SHOWN if epoch <= max(len(curve) for _, curve in known)]
    body = [(name, *(_at(curve, epoch) for epoch in epochs)) for name, curve in known]
    return Table(("validation accuracy, %", *(f"epoch {epoch}" for epoch in epochs)), body)


def _at(curve: Sequence[float], epoch: int) -> str:
    return f"{100 * curve[epoch - 1]:.2f}" if epoch <= len(curve) else "-"


def _image(
    title: str, ours: Mapping[str, Sequence[float]], theirs: Mapping[str, Sequence[float]], out: Path
) -> Drawing:
    figure = figures.epochs_figure(ours, theirs)
    name = re.sub(r"[^a-z0-9]+", "_", title.lower()).strip("_")
    with atomic(out / f"{name}.png") as partial:
        partial.write_bytes(figures.to_png(figure))
    logs = " and the authors' logs (dashed)" if theirs else ""
    return Drawing(f"{name}.png", figures.to_svg(figure, name), f"{title}: validation accuracy, ours (lines){logs}")
