"""A comparison's table: its rows, how they differ from the best on the same images, and the forms it is shown in."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from facerwkv.core import metrics
from facerwkv.core.files import atomic, write_text
from facerwkv.evaluation.figures import comparison_figure, to_png
from facerwkv.evaluation.result import LOGITS, Evaluation
from facerwkv.training.run import write_json

RESULT = "comparison"
UNLIKE = "Not all models were scored on the same images and classes, so their scores do not compare: see those columns."
WIDE = 140  # columns of the printed table, lest numbers are cut off


@dataclass(frozen=True)
class Comparison:
    """The rows of the table, the best first; the setting they came from; and, as sentences, which models have none."""

    rows: list[dict[str, Any]]
    setting: dict[str, Any]
    problems: list[str]
    pairs: list[dict[str, Any]] = field(default_factory=list)
    """Of the rows scored on the best one's images: `paired`."""

    @property
    def ok(self) -> bool:
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def print(self) -> None:
        table = Table(box=None, pad_edge=False)
        for number, column in enumerate(columns(self.rows)):
            table.add_column(column, justify="right" if number else "left", no_wrap=True)
        for row in self.rows:
            table.add_row(*cells(row, self.rows))
        console = Console(markup=False)
        console.width = max(console.width, WIDE)
        if self.rows:
            console.print(table)
        if means := seeds_table(self.rows):
            console.print(means, highlight=False)
        if self.pairs:
            console.print(pairs_table(self.pairs), highlight=False)
        if not alike(self.rows):
            console.print(UNLIKE, highlight=False, soft_wrap=True)
        for problem in self.problems:
            console.print(Text.assemble(("no row: ", "red"), problem), soft_wrap=True)

    def save(self, out: Path) -> None:
        """Write comparison.json, .csv, .md and .png into `out`."""
        write_json(out / f"{RESULT}.json", self.to_dict())
        write_text(out / f"{RESULT}.md", markdown(self.rows) + pairs_table(self.pairs))
        with atomic(out / f"{RESULT}.csv") as partial, partial.open("w", encoding="utf-8", newline="") as file:
            lines = [flat(row) for row in self.rows]
            writer = csv.DictWriter(file, list(dict.fromkeys(key for row in lines for key in row)))
            writer.writeheader()
            writer.writerows(lines)
        if self.rows:
            with atomic(out / f"{RESULT}.png") as partial:
                partial.write_bytes(to_png(comparison_figure(self.rows)))


def alike(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether all rows are scores on the same images and classes."""
    return len({(row["n"], *row.get("classes", ()), row.get("images")) for row in rows}) < 2


def columns(rows: Sequence[Mapping[str, Any]] = ()) -> tuple[str, ...]:
    """The heads of the table's columns; where the rows are not alike, also what each was scored on."""
    titles = (metric.title for metric in metrics.of_confusion().values())
    scored_on = () if alike(rows) else ("images", "classes")
    return ("model", *titles, *scored_on, "parameters", "epochs", "training", "images/s")


def cells(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]] = ()) -> tuple[str, ...]:
    """The texts of one of the rows under `columns(rows)`: scores with 95 % intervals, minutes."""
    scores = metrics.stored(row)
    return (
        row["name"],
        *(metric.text(scores.get(name)) for name, metric in metrics.of_confusion().items()),
        *(() if alike(rows) else (f"{row['n']:,}", f"{len(row.get('classes', ())) or '–'}")),
        metrics.UNDEFINED if row["parameters"] is None else f"{row['parameters']:,}",
        "–" if row["epochs"] is None else str(row["epochs"]),
        "–" if row["train_seconds"] is None else f"{row['train_seconds'] / 60:.1f} min",
        metrics.UNDEFINED if row["images_per_second"] is None else f"{row['images_per_second']:,.0f}",
    )


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The table as Markdown."""
    heads = columns(rows)
    head = f"| {' | '.join(heads)} |\n|---|{'---:|' * (len(heads) - 1)}\n"
    body = "".join(f"| {' | '.join(cells(row, rows))} |\n" for row in rows)
    return head + body + ("" if alike(rows) else f"\n{UNLIKE}\n") + seeds_table(rows)


def seeds_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table of means over seeds, "" where no model has several."""
    means, shown = over_seeds(rows), metrics.of_confusion()
    if not means:
        return ""
    titles = " | ".join(metric.title for metric in shown.values())
    head, lines = f"\n| model | seeds | {titles} |\n|---|{'---:|' * (len(shown) + 1)}\n", []
    for name, scores in means.items():
        texts = " | ".join(metrics.plus_minus(scores.get(score), score) for score in shown)
        lines.append(f"| {name} | {max(each['n'] for each in scores.values())} | {texts} |\n")
    return head + "".join(lines)


def over_seeds(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Model → score → mean, sample's deviation and number over its seeds, for models that have several."""
    models: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        name, seed, _ = row["name"].rpartition(" seed ")
        if seed:
            models.setdefault(name, []).append(dict(row))
    return {name: metrics.mean_scores(those) for name, those in models.items()}


def paired(rows: Sequence[Mapping[str, Any]], folders: Mapping[str, Path]) -> list[dict[str, Any]]:
    """How each row's accuracy differs from the first one's, image by image, where both answered the same images.

    folders: a row's name → where its evaluation is. One object per row: name, against, n, difference (value, low, high:
    the 95 % bootstrap interval) and p, McNemar's exact one.
    """
    if len(rows) < 2:
        return []
    answered = [row for row in rows if (folders[row["name"]] / LOGITS).is_file() and alike([rows[0], row])]
    if not answered or answered[0] is not rows[0]:
        return []
    best, found = _right(folders[rows[0]["name"]]), []
    for row in answered[1:]:
        difference, p = metrics.paired(best, _right(folders[row["name"]]))
        pair = {"name": row["name"], "against": rows[0]["name"], "n": len(best)}
        found.append(pair | {"difference": difference.to_dict(), "p": p})
    return found


def _right(folder: Path) -> np.ndarray:
    """Whether each image was answered rightly, in the order of their names."""
    kept = Evaluation.load(folder)
    return (kept.predictions == kept.targets)[np.argsort(kept.names, kind="stable")]


def pairs_table(pairs: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table of pairs, "" for none."""
    if not pairs:
        return ""
    head = f"\n| accuracy against {pairs[0]['against']}, same images | points | 95 % interval | McNemar's p |\n"
    lines = [head, "|---|---:|---:|---:|\n"]
    for pair in pairs:
        value, low, high = (f"{100 * pair['difference'][key]:+.2f}" for key in ("value", "low", "high"))
        lines.append(f"| {pair['name']} | {value} | {low} to {high} | {pair['p']:.2g} |\n")
    return "".join(lines)


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values under dotted keys."""
    pairs: dict[str, Any] = {}
    for key, value in values.items():
        pairs |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
    return pairs
