"""What a table or a figure is made of: rows to train, the paper's number or log of each, and ours beside it on a page.

OUT/runs/PROTOCOL/ROW/seedN/   a run per row, protocol and seed; tables and figures with the same row share its runs
OUT/runs/.../score.json        its accuracies; a run that has one is not trained again
"""

import csv
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, TypeVar

from lightning.pytorch import Callback
from rich.console import Console

from facerwkv.core.errors import InputError
from facerwkv.core.files import read_json
from facerwkv.evaluation import figures
from facerwkv.evaluation.compare import require_same
from facerwkv.evaluation.evaluate import evaluate_folder, finish
from facerwkv.evaluation.report import drawing
from facerwkv.evaluation.templates import Block, Paragraph, Section, Table
from facerwkv.training.module import train
from facerwkv.training.recipe import Recipe
from facerwkv.training.run import CURVES, RECIPE, write_json

Result = TypeVar("Result")
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
    """Some rows of an experiment could not run: a sentence for each, and the sections of those that could."""

    def __init__(self, problems: Sequence[str], sections: Sequence[Section]):
        super().__init__(" ".join(problems))
        self.problems, self.sections = list(problems), list(sections)


@dataclass(frozen=True)
class Run:
    """A training that an experiment needs: its row, how, and where it is. result: the file that it ends with. images:
    of training, validation and test, where they are not the data set's."""

    row: str
    protocol: str
    seed: int
    recipe: Recipe
    folder: Path
    result: str = SCORE
    images: tuple[int, int, int] | None = None

    @property
    def done(self) -> bool:
        return (self.folder / self.result).is_file()


@dataclass(frozen=True)
class Setting:
    """How experiments are run. as_coded: under what the authors' code did. smoke: everything small, on drawn faces.
    only: patterns of the rows that are wanted; all, where there are none. callbacks: Lightning's, which watch.
    """

    data: str
    out: Path
    seeds: Sequence[int] = (0, 1, 2)
    as_coded: bool = False
    smoke: bool = False
    changes: Sequence[str] = ()
    only: Sequence[str] = ()
    callbacks: Sequence[Callback] = ()

    def wants(self, row: str) -> bool:
        """Whether a row is to be run."""
        return not self.only or any(fnmatch(row, pattern) for pattern in self.only)

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
    curve: their log's validation accuracies, one per epoch, 0..1. as_coded, smoke: more changes, under such a setting.
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
        """Train and score what is missing; the table's section of the page. Incomplete if some rows cannot run.

        InputError if none can.
        """
        seeds, rows = setting.seeds, [row for row in self.rows if setting.wants(row.name)]
        runs, problems = _every(
            rows,
            lambda row: {each: [_run(row, setting, each, seed) for seed in seeds] for each in setting.protocols},
        )
        table = _table([row for row in rows if row.name in runs], runs, setting)
        blocks: list[Block] = [Paragraph(self.claim), Paragraph(f"Time: {self.hours}"), table]
        if ran := [(row.name, row.ran) for row in self.rows if row.ran]:
            blocks.append(Table(("row", "what the authors' code really ran"), ran, numbers=False))
        if reduced := [f"{row.name} ({', '.join(row.smoke)})" for row in self.rows if row.smoke and setting.smoke]:
            blocks.append(Paragraph(f"Reduced for this trial: {'; '.join(reduced)}."))
        return _complete(self.title, blocks, problems)

    def runs(self, setting: Setting) -> list[Run]:
        """What `run` trains, in its order."""
        rows = [row for row in self.rows if setting.wants(row.name)]
        return [
            _planned(row, setting, each, seed) for row in rows for each in setting.protocols for seed in setting.seeds
        ]


@dataclass(frozen=True)
class Figure:
    """A figure: validation accuracy after each epoch of rows that are in a table too, and the authors' logs."""

    title: str
    claim: str
    rows: tuple[Row, ...]

    def run(self, setting: Setting) -> list[Section]:
        """Train what is missing, under the first protocol and seed; the figure's section. Errors as in Study."""
        protocol, seed = next(iter(setting.protocols)), setting.seeds[0]
        rows = [row for row in self.rows if setting.wants(row.name)]
        ours, problems = _every(rows, lambda row: _run(row, setting, protocol, seed)["curve"])
        theirs = {row.name: row.curve for row in rows if row.curve}
        curves: dict[str, Sequence[float]] = {}
        for name in ours:
            curves |= {name: ours[name]} | ({f"{name}, the authors' log": theirs[name]} if name in theirs else {})
        epochs = [epoch for epoch in SHOWN if epoch <= max(map(len, curves.values()))]
        lines = [
            (name, *(f"{100 * curve[epoch - 1]:.2f}" if epoch <= len(curve) else "-" for epoch in epochs))
            for name, curve in curves.items()
        ]
        table = Table(("validation accuracy, %", *(f"epoch {epoch}" for epoch in epochs)), lines)
        short = self.title.partition(":")[0]
        logs = " and the authors' logs (dashed)" if theirs else ""
        image = drawing(
            figures.epochs_figure(ours, theirs),
            setting.out,
            re.sub(r"[^a-z0-9]+", "_", short.lower()).strip("_"),
            f"{short}: validation accuracy, ours (lines){logs}",
        )
        how = f"Ours: {setting.protocols[protocol][0]}, seed {seed}."
        return _complete(self.title, [Paragraph(f"{self.claim} {how}"), table, image], problems)

    def runs(self, setting: Setting) -> list[Run]:
        """What `run` trains, in its order."""
        protocol, seed = next(iter(setting.protocols)), setting.seeds[0]
        return [_planned(row, setting, protocol, seed) for row in self.rows if setting.wants(row.name)]


def run_all(parts: Sequence[Study | Figure], setting: Setting) -> list[Section]:
    """The sections of several tables and figures. Incomplete if some of their rows cannot run."""
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


def _every(rows: Sequence[Row], result: Callable[[Row], Result]) -> tuple[dict[str, Result], list[str]]:
    """The results of the rows that can run, by name, and a sentence for each of the others. InputError if none can."""
    results: dict[str, Result] = {}
    problems: list[str] = []
    for row in rows:
        try:
            results[row.name] = result(row)
        except InputError as error:
            problems.append(f"{row.name}: {error}")
            first = error
    if not results:
        raise first
    return results, problems


def _complete(title: str, blocks: list[Block], problems: Sequence[str]) -> list[Section]:
    """A section of these blocks. Incomplete, with the problems below them, if there are any."""
    if problems:
        raise Incomplete(problems, [(title, [*blocks, Paragraph("Missing. " + " ".join(problems))])])
    return [(title, blocks)]


def _planned(row: Row, setting: Setting, protocol: str, seed: int) -> Run:
    changes = row.under(setting)
    name = re.sub(r"[^\w.=-]+", "_", "_".join(changes)).strip("_")
    folder = setting.out / "runs" / protocol / name / f"seed{seed}"
    return Run(row.name, protocol, seed, setting.recipe(protocol, changes, seed), folder)


def _run(row: Row, setting: Setting, protocol: str, seed: int) -> dict[str, Any]:
    """The accuracies of one run, 0..1: "test", "train" and "curve"; trained and scored, resumed, or read."""
    run = _planned(row, setting, protocol, seed)
    folder = run.folder
    require_same(run.recipe, folder)
    if not run.done:
        Console(stderr=True, markup=False).print(f"{row.name}, {protocol}, seed {seed}", highlight=False)
        train(run.recipe, folder, resume=(folder / RECIPE).is_file(), callbacks=setting.callbacks)
        finish(folder)
        evaluations = {split: evaluate_folder(folder, split=split).evaluation for split in ("train", "test")}
        accuracies = {split: evaluation.scores["accuracy"].value for split, evaluation in evaluations.items()}
        write_json(folder / SCORE, accuracies | {"curve": validation_curve(folder)})
    return read_json(folder / SCORE, "Remove it, and the run is scored again.")


def validation_curve(folder: Path) -> list[float]:
    """Validation accuracy, 0..1, after each epoch of a run."""
    with (folder / CURVES).open(newline="", encoding="utf-8") as file:
        return [float(row["val_accuracy"]) for row in csv.DictReader(file) if row["val_accuracy"]]


def _table(rows: Sequence[Row], runs: Mapping[str, Mapping[str, list[dict[str, Any]]]], setting: Setting) -> Table:
    """Each row's accuracy and its distance from training under each protocol, beside the paper's number."""
    heads = [text for title, _ in setting.protocols.values() for text in (title, "training - test")]
    compared = any(row.paper is not None for row in rows)
    if compared:
        heads[:1] = ["the paper, %", heads[0], "difference"]
    body = []
    for row in rows:
        cells: list[str] = []
        for of_seeds in runs[row.name].values():
            test = [run["test"] for run in of_seeds]
            gap = statistics.mean(run["train"] for run in of_seeds) - statistics.mean(test)
            ours = [mean_and_deviation(test)]
            if compared and not cells:
                if row.paper is None:
                    ours = ["-", *ours, "-"]
                else:
                    ours = [f"{row.paper:.2f}", *ours, f"{100 * statistics.mean(test) - row.paper:+.2f}"]
            cells += [*ours, f"{100 * gap:+.1f}"]
        body.append((row.name, *cells))
    return Table(("row", *heads), body)


def mean_and_deviation(values: Sequence[float]) -> str:
    """Accuracies 0..1 as per cent: the mean, and the deviation between seeds where there are several."""
    percent = [100 * value for value in values]
    spread = f" ± {statistics.stdev(percent):.2f}" if len(percent) > 1 else ""
    return f"{statistics.mean(percent):.2f}{spread}"
