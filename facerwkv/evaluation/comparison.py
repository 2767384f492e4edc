"""The table of a comparison: printed, and written as comparison.json, .csv, .md and .png."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from facerwkv.core.files import atomic, write_text
from facerwkv.evaluation.figures import comparison_figure, to_png
from facerwkv.training.run import write_json

RESULT = "comparison"
WIDE = 140  # columns of the printed table, lest numbers are cut off
COLUMNS = ("model", "accuracy", "UAR", "macro-F1", "parameters", "epochs", "training", "images/s")


@dataclass(frozen=True)
class Comparison:
    """The rows of the table, how they came about, and which models have none and why."""

    rows: list[dict[str, Any]]
    setting: dict[str, Any]
    problems: list[str]

    @property
    def ok(self) -> bool:
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def print(self) -> None:
        table = Table(box=None, pad_edge=False)
        for column in COLUMNS:
            table.add_column(column, justify="left" if column == "model" else "right", no_wrap=True)
        for row in self.rows:
            table.add_row(*cells(row))
        console = Console()
        console.width = max(console.width, WIDE)
        if self.rows:
            console.print(table)
        for problem in self.problems:
            console.print(f"[red]no row:[/] {escape(problem)}", highlight=False, soft_wrap=True)

    def save(self, out: Path) -> None:
        """Write comparison.json, .csv, .md and .png into `out`."""
        write_json(out / f"{RESULT}.json", self.to_dict())
        write_text(out / f"{RESULT}.md", markdown(self.rows))
        with atomic(out / f"{RESULT}.csv") as partial, partial.open("w", encoding="utf-8", newline="") as file:
            lines = [flat(row) for row in self.rows]
            writer = csv.DictWriter(file, list(dict.fromkeys(key for row in lines for key in row)))
            writer.writeheader()
            writer.writerows(lines)
        if self.rows:
            with atomic(out / f"{RESULT}.png") as partial:
                partial.write_bytes(to_png(comparison_figure(self.rows)))


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """A row of COLUMNS as people read it: shares with 95 % intervals, minutes."""
    minutes = "–" if row["train_seconds"] is None else f"{row['train_seconds'] / 60:.1f} min"
    return (
        row["name"],
        *(_share(row[score]) for score in ("accuracy", "uar", "macro_f1")),
        f"{row['parameters']:,}",
        "–" if row["epochs"] is None else str(row["epochs"]),
        minutes,
        f"{row['images_per_second']:,.0f}",
    )


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The table for a page."""
    head = f"| {' | '.join(COLUMNS)} |\n|---|{'---:|' * (len(COLUMNS) - 1)}\n"
    return head + "".join(f"| {' | '.join(cells(row))} |\n" for row in rows)


def _share(score: dict[str, float] | None) -> str:
    return "–" if score is None else f"{score['value']:.1%} ({score['low']:.1%}–{score['high']:.1%})"


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values under dotted keys."""
    pairs: dict[str, Any] = {}
    for key, value in values.items():
        pairs |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
    return pairs
