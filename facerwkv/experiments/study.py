"""What a table of the paper is made of: rows to train, the paper's number for each, and ours put beside it on a page.

OUT/runs/PROTOCOL/ROW/seedN/   a run for every row, protocol and seed; tables that share a row share its runs
OUT/runs/.../score.json        its accuracies; a run that has one is not trained again
"""

import csv
import json
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from facerwkv.files import atomic
from facerwkv.training import figures
from facerwkv.training.compare import require_same
from facerwkv.training.finish import evaluate_folder, finish
from facerwkv.training.module import train
from facerwkv.training.pages import Block, Paragraph, Picture, Section, Table
from facerwkv.training.recipe import Recipe
from facerwkv.training.run import CURVES, RECIPE, write_json

SCORE = "score.json"
Protocols = dict[str, tuple[str, list[str]]]
PROTOCOLS: Protocols = {
    "official": ("official split, random validation", ["data.validation=random"]),
    "blocks": ("validation in blocks of neighbouring frames", ["data.validation=contiguous"]),
}
AS_CODED: Protocols = {"as_coded": ("as the authors' code ran", [])}
SMOKE_DATA = "toy:train=42,val=0,test=14"
SMOKE = ["train.epochs=1", "data.batch_size=14", "model.stem_weights=null"]
SMOKE_SIZE = {False: [40, 60], True: [60, 40]}  # a tenth of the paper's text, and of its authors' code


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
        own = [*self.protocols[protocol][1], f"data.source={data}", f"train.seed={seed}"]
        return Recipe.read(name, [*changes, *own, *small, *self.changes])


@dataclass(frozen=True)
class Row:
    """A line of a table.

    changes: of the recipe. paper: accuracy in per cent. ran: what its authors really ran, as far as code and logs tell.
    curve: their log's validation accuracies, one an epoch, 0..1.
    """

    name: str
    changes: tuple[str, ...]
    paper: float | None = None
    ran: str = ""
    curve: tuple[float, ...] = ()


@dataclass(frozen=True)
class Study:
    """A table of the paper. claim: what it is said to show. hours: for one seed and protocol, on what."""

    title: str
    claim: str
    hours: str
    rows: tuple[Row, ...]
    figure: str = ""

    def run(self, setting: Setting) -> list[Section]:
        """Train and score what is missing; the table's part of the page."""
        scores = {row.name: _scores(row, setting) for row in self.rows}
        blocks: list[Block] = [Paragraph(f"The paper: {self.claim}"), Paragraph(f"Time: {self.hours}")]
        blocks.append(_table(self.rows, scores, setting))
        if ran := [(row.name, row.ran) for row in self.rows if row.ran]:
            blocks.append(Table(("row", "what the authors' code really ran"), ran, numbers=False))
        if self.figure:
            blocks.append(_picture(self, scores, setting))
        return [(self.title, blocks)]


@dataclass
class Scores:
    """The accuracies of a row, protocol → one a seed, 0..1; and validation's after each epoch, of the first seed."""

    test: dict[str, list[float]] = field(default_factory=dict)
    train: dict[str, list[float]] = field(default_factory=dict)
    curves: dict[str, list[float]] = field(default_factory=dict)


def _scores(row: Row, setting: Setting) -> Scores:
    found = Scores()
    for protocol in setting.protocols:
        runs = [_run(row, setting, protocol, seed) for seed in setting.seeds]
        found.test[protocol] = [run["test"] for run in runs]
        found.train[protocol] = [run["train"] for run in runs]
        found.curves[protocol] = runs[0]["curve"]
    return found


def _run(row: Row, setting: Setting, protocol: str, seed: int) -> dict[str, Any]:
    """Train, score and remember one run; or go on with it, or read what it gave."""
    plan = setting.recipe(protocol, row.changes, seed)
    folder = setting.out / "runs" / protocol / _slug(row) / f"seed{seed}"
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


def _slug(row: Row) -> str:
    """A folder's name that rows with the same changes share."""
    return re.sub(r"[^\w.=-]+", "_", "_".join(row.changes)).strip("_")


def _table(rows: Sequence[Row], scores: Mapping[str, Scores], setting: Setting) -> Table:
    first = next(iter(setting.protocols))
    heads = [text for title, _ in setting.protocols.values() for text in (title, "training - test")]
    body = []
    for row in rows:
        own = scores[row.name]
        cells = []
        for protocol in setting.protocols:
            gap = statistics.mean(own.train[protocol]) - statistics.mean(own.test[protocol])
            cells += [mean_and_deviation(own.test[protocol]), f"{100 * gap:+.1f}"]
        ours = 100 * statistics.mean(own.test[first])
        paper = ("-", "-") if row.paper is None else (f"{row.paper:.2f}", f"{ours - row.paper:+.2f}")
        body.append((row.name, paper[0], cells[0], paper[1], *cells[1:]))
    return Table(("row", "the paper, %", heads[0], "difference", *heads[1:]), body)


def mean_and_deviation(values: Sequence[float]) -> str:
    """Accuracies 0..1 as per cent: the mean, and the deviation between seeds where there are several."""
    percent = [100 * value for value in values]
    spread = f" ± {statistics.stdev(percent):.2f}" if len(percent) > 1 else ""
    return f"{statistics.mean(percent):.2f}{spread}"


def _picture(study: Study, scores: Mapping[str, Scores], setting: Setting) -> Picture:
    first = next(iter(setting.protocols))
    ours = {row.name: scores[row.name].curves[first] for row in study.rows}
    theirs = {row.name: row.curve for row in study.rows if row.curve}
    figure = figures.epochs_figure(ours, theirs)
    name = re.sub(r"[^a-z0-9]+", "_", study.figure.lower()).strip("_")
    with atomic(setting.out / f"{name}.png") as partial:
        partial.write_bytes(figures.to_png(figure))
    alt = f"{study.figure}: validation accuracy after each epoch, ours (lines) and the authors' logs (dashed)"
    return Picture(f"{name}.png", figures.to_svg(figure, name), alt)
