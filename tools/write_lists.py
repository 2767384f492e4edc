"""The lists in docs/how-to, written from the tables that the program reads."""

from collections.abc import Callable, Iterable
from pathlib import Path

from facerwkv.core.metrics import SCORES
from facerwkv.experiments import EXPERIMENTS
from facerwkv.inference.options import Options, facts
from facerwkv.inference.sinks import COLUMNS, SINKS
from facerwkv.training.recipe import Recipe, shipped

HOW_TO = Path(__file__).resolve().parents[1] / "docs" / "how-to"


def experiments() -> str:
    """Every experiment, by the name that `reproduce` takes."""
    return table("name", "what it reproduces", EXPERIMENTS.items())


def recipes() -> str:
    """Every shipped recipe, with what it says of itself."""
    return "".join(f"- `{name}`: {' '.join(Recipe.read(name).about.split())}\n" for name in shipped())


def scores() -> str:
    """Every score, by the name that files and programs use."""
    rows = "".join(f"| `{name}` | {metric.title} | {metric.about} |\n" for name, metric in SCORES.items())
    return f"| name | title | meaning |\n|---|---|---|\n{rows}"


def options() -> str:
    """Every option of prediction, as Python calls it."""
    text = "| option | default | meaning |\n|---|---|---|\n"
    for name, field in Options.model_fields.items():
        fact, default = facts()[name], "–" if field.default is None else f"`{field.default}`"
        limits = ("" if fact.command else "Python only: ") + ("" if "image" in fact.kinds else "Videos: ")
        text += f"| `{name}` | {default} | {limits}{field.description} |\n"
    return text


def formats() -> str:
    """The endings of the files that `--out` writes, and the columns of tables."""
    extras = (f"`{ending}`" + (f" (extra `{sink.extra}`)" if sink.extra else "") for ending, sink in SINKS.items())
    text = f"`--out` writes {', '.join(extras)}. The columns of a table:\n\n"
    text += "| column | type | in | meaning |\n|---|---|---|---|\n"
    for name, column in COLUMNS.items():
        text += f"| `{name}` | {column.type} | {'videos' if column.videos else 'all'} | {column.about} |\n"
    return f"{text}| each label, by name | float64 | all | its probability, 0 to 1 |\n"


def table(first: str, second: str, rows: Iterable[tuple[str, str]]) -> str:
    return f"| {first} | {second} |\n|---|---|\n" + "".join(f"| `{name}` | {about} |\n" for name, about in rows)


LISTS: dict[str, dict[str, Callable[[], str]]] = {
    "evaluate": {"scores": scores},
    "predict": {"formats": formats, "options": options},
    "reproduce": {"experiments": experiments},
    "train": {"recipes": recipes},
}
"""Page → the regions in it, and what writes each."""


def page(name: str) -> str:
    """A page of docs/how-to with its lists as they should be."""
    text = (HOW_TO / f"{name}.md").read_text(encoding="utf-8")
    for region, write in LISTS[name].items():
        opening, closing = f"<!-- {region}: written by `make docs` -->", f"<!-- /{region} -->"
        before, rest = text.split(opening)
        text = f"{before}{opening}\n\n{write()}\n{closing}{rest.split(closing)[1]}"
    return text


if __name__ == "__main__":
    for name in LISTS:
        (HOW_TO / f"{name}.md").write_text(page(name), encoding="utf-8")
