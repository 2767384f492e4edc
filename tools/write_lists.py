"""The lists in docs/how-to, written from the tables that the program reads."""

from collections.abc import Callable, Iterable
from pathlib import Path

from facerwkv.experiments import EXPERIMENTS
from facerwkv.training.recipe import Recipe, shipped

HOW_TO = Path(__file__).resolve().parents[1] / "docs" / "how-to"


def experiments() -> str:
    """Every experiment, by the name that `reproduce` takes."""
    return table("name", "what it reproduces", EXPERIMENTS.items())


def recipes() -> str:
    """Every shipped recipe, with what it says of itself."""
    return "".join(f"- `{name}`: {' '.join(Recipe.read(name).about.split())}\n" for name in shipped())


def table(first: str, second: str, rows: Iterable[tuple[str, str]]) -> str:
    return f"| {first} | {second} |\n|---|---|\n" + "".join(f"| `{name}` | {about} |\n" for name, about in rows)


LISTS: dict[str, dict[str, Callable[[], str]]] = {
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
