"""Rows → values, on the screen, in speed.json and on the page that is made of it: for `facerwkv bench`."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facerwkv.bench import EVERYTHING, kernels, memory
from facerwkv.bench.answers import Disagreement, Skipped
from facerwkv.bench.page import JSON, LENGTHS, cells, write_page
from facerwkv.bench.rows import ROWS, BenchRow
from facerwkv.bench.timing import BenchSetting
from facerwkv.core.errors import InputError
from facerwkv.core.files import read_json
from facerwkv.training.run import environment, write_json

if TYPE_CHECKING:
    from rich.table import Table

CURVES = {"kernels": ("seconds", kernels.curve), "memory": ("bytes", memory.curve)}
"""What is drawn over the number of tokens: group → name in speed.json, function."""


@dataclass(frozen=True)
class BenchResult:
    """The chosen rows' results: name → the fields of `Measured`, or {"value": None, "problem": why}; with
    "skipped" if what it is compared with is not installed."""

    rows: dict[str, dict[str, Any]]

    @property
    def ok(self) -> bool:
        return all(result["value"] is not None or result.get("skipped") for result in self.rows.values())

    @property
    def problems(self) -> list[str]:
        return [f"{name}: {result['problem']}" for name, result in self.rows.items() if result["value"] is None]

    def to_dict(self) -> dict[str, float | None]:
        """Name → value; None where there is none."""
        return {name: result["value"] for name, result in self.rows.items()}

    def __rich__(self) -> "Table":
        from rich.table import Column, Table
        from rich.text import Text

        table = Table(Column("row", ratio=1), box=None, pad_edge=False)
        for header in ("measured", "quartiles", "bar", "met"):
            table.add_column(header, justify="right")
        for name, result in self.rows.items():
            what, *values = cells(ROWS[name], result)
            table.add_row(Text.assemble((name, "bold"), "\n", (what, "dim")), *map(Text, values))
        return table

    def print(self) -> None:
        from rich.console import Console

        Console(markup=False).print(self)


def bench(
    group: str, only: Sequence[str] | None = None, setting: BenchSetting | None = None, out: Path | None = None
) -> BenchResult:
    """Measure a group of rows ("all" is every group's), or those of its rows that are named.

    A row that fails gets no value, and the rest is measured. With `out`, speed.json there takes the new values (older
    rows stay if they come from the same processor and torch), and the page and the plot are made of it. InputError for
    a name that is not among the group's.
    """
    setting = setting or BenchSetting()
    known = [name for name, row in ROWS.items() if group in (row.group, EVERYTHING)]
    for name in only or ():
        if name not in known:
            raise InputError(f"bench {group} has no row {name!r}. It has {', '.join(known)}.")
    names = list(only or known)
    rows = {name: measure(ROWS[name], setting) for name in _shown(names)}
    if out:
        curves = {} if only else {name: draw for key, (name, draw) in CURVES.items() if group in (key, EVERYTHING)}
        drawn = {name: curves[name](setting, [setting.tokens(n) for n in LENGTHS]) for name in _shown(list(curves))}
        keep(out, rows, drawn, setting)
    return BenchResult(rows)


def measure(row: BenchRow, setting: BenchSetting) -> dict[str, Any]:
    """One row; whatever goes wrong is its problem alone."""
    try:
        return asdict(row.measure(setting))
    except Disagreement as error:
        return {"value": None, "problem": f"The answers disagree, so there is no number: {error}."}
    except Skipped as error:
        return {"value": None, "problem": f"Skipped: {error}.", "skipped": True}
    except Exception as error:
        reason = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        return {"value": None, "problem": reason.splitlines()[0]}


def keep(folder: Path, rows: dict[str, Any], curves: dict[str, Any], setting: BenchSetting) -> None:
    """Put results into FOLDER/speed.json, beside those of the same machine, and write the page."""
    where = environment()
    mark = {"commit": where.pop("commit"), "date": date.today().isoformat(), "threads": setting.threads}
    for varying in ("command", "threads"):
        del where[varying]
    path = folder / JSON
    before = read_json(path) if path.is_file() else {}
    if _machine(before.get("environment", {})) != _machine(where):
        before = {"rows": {}, "curves": {}}
    kept = before["rows"] | {name: result | mark for name, result in rows.items()}
    ordered = {name: kept[name] for name in ROWS if name in kept}
    write_json(path, {"environment": where, "rows": ordered, "curves": before["curves"] | curves})
    write_page(folder)


def _machine(where: dict[str, Any]) -> dict[str, Any]:
    """What an environment says, but for the build of the system, which a restart may change."""
    return {name: value for name, value in where.items() if name != "platform"}


def _shown(names: list[str]) -> Iterable[str]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    parts = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*parts, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=len(names))
        for name in names:
            progress.update(task, description=name)
            yield name
            progress.advance(task)
