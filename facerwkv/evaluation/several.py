"""One recipe under several seeds, or on each fold of the data: a run each, and the mean and deviation of their scores.

OUT/seed0 OUT/seed1 ...  OUT/fold0 OUT/fold1 ...   the runs; with both OUT/fold0_seed0 ...
OUT/several.json .csv .md                          a row per run, and what all of them give
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from facerwkv.core import metrics
from facerwkv.core.errors import InputError
from facerwkv.core.files import atomic, read_json, write_text
from facerwkv.data.load import load_dataset
from facerwkv.data.splits import split_folds
from facerwkv.evaluation.compare import require_same
from facerwkv.evaluation.evaluate import evaluate_folder, finish
from facerwkv.evaluation.result import SUMMARY
from facerwkv.training.module import train
from facerwkv.training.recipe import Recipe
from facerwkv.training.run import RECIPE, TIME, write_json

RESULT = "several"


@dataclass(frozen=True)
class Several:
    """The scores of each run, and of all: name of a score → mean, deviation (of the sample; None for one run), n."""

    rows: list[dict[str, Any]]
    means: dict[str, dict[str, float | int | None]]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def print(self) -> None:
        print(self.markdown(), end="")

    def markdown(self) -> str:
        shown = metrics.of_confusion()
        lines = [("run", "images", *(metric.title for metric in shown.values()))]
        for row in self.rows:
            scores = metrics.stored(row)
            texts = (metric.text(scores.get(name)) for name, metric in shown.items())
            lines.append((row["name"], f"{row['n']:,}", *texts))
        lines.append(("mean ± deviation", "", *(metrics.plus_minus(self.means.get(name), name) for name in shown)))
        head, *body = (f"| {' | '.join(line)} |\n" for line in lines)
        return head + f"|---|{'---:|' * (len(shown) + 1)}\n" + "".join(body)

    def save(self, out: Path) -> None:
        write_json(out / f"{RESULT}.json", self.to_dict())
        write_text(out / f"{RESULT}.md", self.markdown())
        with atomic(out / f"{RESULT}.csv") as partial, partial.open("w", encoding="utf-8", newline="") as file:
            names = list(metrics.of_confusion())
            writer = csv.writer(file)
            writer.writerow(("run", "split", "n", *names))
            for row in self.rows:
                values = ((row.get(name) or {}).get("value", "") for name in names)
                writer.writerow((row["name"], row["split"], row["n"], *values))


def _plans(recipe: Recipe, seeds: Sequence[int], folds: int | Literal["all"] | None) -> Iterator[tuple[str, Recipe]]:
    """A name and a recipe for each seed on each fold."""
    data = recipe.data.model_copy(update={"folds": folds}) if folds else recipe.data
    places: list[int | None] = [None]
    if data.folds:
        dataset = load_dataset(data.source, labels=data.labels, rename=data.rename)
        parts = split_folds([each for those in dataset.splits.values() for each in those], data.folds, data.by)
        places = list(range(len(parts)))
    for fold, seed in product(places, seeds or [recipe.train.seed]):
        names = ([] if fold is None else [f"fold{fold}"]) + ([f"seed{seed}"] if seeds else [])
        plan = {
            "data": data if fold is None else data.model_copy(update={"fold": fold}),
            "train": recipe.train.model_copy(update={"seed": seed}),
        }
        yield "_".join(names), recipe.model_copy(update=plan)


def train_several(
    recipe: Recipe,
    out: str | Path,
    seeds: Sequence[int] = (),
    folds: int | Literal["all"] | None = None,
    progress: bool = True,
) -> Several:
    """Train and score a recipe once for each seed, on each fold, or both; write OUT/several.* after each run.

    Scored is the test split, which is the fold where there are folds; else validation. What is there already is not
    trained again. InputError for runs in `out` under another recipe, and as `train` raises it.
    """
    out, rows = Path(out), list[dict[str, Any]]()
    if twice := sorted({seed for seed in seeds if list(seeds).count(seed) > 1}):
        raise InputError(f"The seed {twice[0]} is named twice. Name each once.")
    plans = list(_plans(recipe, seeds, folds))
    for name, plan in plans:
        require_same(plan, out / name)
    for number, (name, plan) in enumerate(plans, 1):
        folder = out / name
        Console(stderr=True, markup=False).print(f"{number}/{len(plans)} {name}", highlight=False)
        if not (folder / TIME).is_file():
            train(plan, folder, resume=(folder / RECIPE).is_file(), progress=progress)
        if not (folder / "val" / SUMMARY).is_file():
            finish(folder, progress)
        test = "test" in read_json(folder / "data.json")["images"]
        if test and not (folder / "test" / SUMMARY).is_file():
            evaluate_folder(folder, split="test", device=plan.train.device)
        rows.append({"name": name} | read_json(folder / ("test" if test else "val") / SUMMARY))
        several = Several(rows, metrics.mean_scores(rows))
        several.save(out)
    return several
