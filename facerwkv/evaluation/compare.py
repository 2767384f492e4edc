"""Several models, one recipe, one table: each is trained or loaded, scored on the same images and timed alike.

OUT/NAME/                    the run of each model; for a loaded checkpoint its scores alone
OUT/NAME/SPLIT/row.json      its row of the table; a model trained here that has one is not scored again
OUT/comparison.json .csv .md .png
"""

import csv
import hashlib
import logging
import re
import statistics
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from facerwkv.core import metrics
from facerwkv.core.devices import choose_device
from facerwkv.core.errors import InputError, first_line
from facerwkv.core.files import atomic, read_json, write_text
from facerwkv.data.config import DataConfig
from facerwkv.data.load import load_dataset
from facerwkv.data.record import same_source
from facerwkv.evaluation.evaluate import Split, evaluate_folder, finish
from facerwkv.evaluation.figures import comparison_figure, to_png
from facerwkv.evaluation.result import SUMMARY
from facerwkv.models.checkpoint import load_checkpoint
from facerwkv.models.folder import HUB, Checkpoint
from facerwkv.models.zoo import MODELS, TIMM, model_line
from facerwkv.models.zoo import shipped as weights
from facerwkv.training.module import check_inputs, train
from facerwkv.training.recipe import Recipe
from facerwkv.training.run import RECIPE, TIME, environment, read_run, run_of, write_json

OWN = "own"  # instead of a recipe's name: each model's own, as its line of MODELS has it
ROW, RESULT = "row.json", "comparison"
BATCH = 32  # images per forward pass where speed is measured
SAMPLES, SECONDS = 5, 2.0  # speed is measured at least that often, and for at least that long
FOR_LOADED = ("data.", "data=", "train.device=")
UNLIKE = "Not all models were scored on the same images and classes, so their scores do not compare: see those columns."
WIDE = 140  # columns of the printed table, lest numbers are cut off


@dataclass(frozen=True)
class Entry:
    """A model to compare: its name in the table, and the recipe to train it under, or the checkpoint to load.

    changes: "data.KEY=VALUE", under which a loaded one is scored; device: on which.
    """

    name: str
    recipe: Recipe | None = None
    checkpoint: str | None = None
    changes: tuple[str, ...] = ()
    device: str = "auto"

    @property
    def folder(self) -> str:
        return re.sub(r"[^\w.-]+", "_", self.name)


@dataclass(frozen=True)
class Comparison:
    """The rows of the table, the best first; the setting they came from; and, as sentences, which models have none."""

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
        if not alike(self.rows):
            console.print(UNLIKE, highlight=False, soft_wrap=True)
        for problem in self.problems:
            console.print(Text.assemble(("no row: ", "red"), problem), soft_wrap=True)

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
        f"{row['parameters']:,}",
        "–" if row["epochs"] is None else str(row["epochs"]),
        "–" if row["train_seconds"] is None else f"{row['train_seconds'] / 60:.1f} min",
        f"{row['images_per_second']:,.0f}",
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


def is_change(word: str) -> bool:
    """Whether an argument is a [PATTERN:]KEY=VALUE, and not the name or folder of a model."""
    return bool(re.match(r"([^=]*:)?[a-z_]\w*(\.\w+)*=", word)) and not Path(word).is_dir()


def compare(
    names: Sequence[str],
    recipe: str = "modern",
    changes: Sequence[str] = (),
    out: str | Path = "runs/compare",
    split: Split = "test",
    progress: bool = True,
    values: Mapping[str, Any] | None = None,
    seeds: Sequence[int] = (),
) -> Comparison:
    """Train (or load) each model, score it on `split`, time it; write the table after each, the best model first.

    names: of MODELS and "timm:NAME", to be trained; shipped models, "hf-hub:ORG/NAME" and folders of runs and
    checkpoints, to be loaded. recipe: a shipped recipe's name, a YAML file, or "own" for each model's own. changes:
    "KEY=VALUE" for all, "PATTERN:KEY=VALUE" for the models whose names fit a shell pattern; those of data.KEY also hold
    for what is loaded. values: KEY → the value as it is, for all, applied before `changes`. Models that look at a face
    and a scene get transform.crop=both. seeds: each model is trained once for each; the table ends with their means.
    An interrupted comparison resumes when it is called again; a model that fails is listed in `problems` and stops no
    other. Raises InputError, before anything is trained, for names, keys and values that are not known, for changes
    that change nothing, for data or a split that are not there, and for runs in `out` under another recipe.
    """
    out, split_changes = Path(out), [_parse(change) for change in changes]
    entries = [
        _entry(name, title, recipe, split_changes, values or {})
        for name, title in zip(names, _titles(names), strict=True)
    ]
    if seeds:
        several = [_seeded(entry, seeds) for entry in entries]
        names = [name for name, those in zip(names, several, strict=True) for _ in those]
        entries = [each for those in several for each in those]
    _check(entries, names, split_changes, out, split)
    given = (change.partition("=")[2] for _, change in split_changes if change.startswith("data.source="))
    source = next((entry.recipe.data.source for entry in entries if entry.recipe), None)
    source = source or next(given, None) or (values or {}).get("data.source")
    setting = {"recipe": recipe, "changes": list(changes), "source": source, "split": split}
    rows: list[dict[str, Any]] = []
    problems: list[str] = []
    for number, entry in enumerate(entries, 1):
        Console(stderr=True, markup=False).print(f"{number}/{len(entries)} {entry.name}", highlight=False)
        try:
            rows.append(_row(entry, out / entry.folder, source, split, progress))
        except Exception as error:  # one model that fails must not cost the others their hours
            if not isinstance(error, InputError):
                logging.getLogger(__name__).exception(entry.name)
            problems.append(f"{entry.name}: {error if isinstance(error, InputError) else first_line(error)}")
        result = Comparison(sorted(rows, key=_rank, reverse=True), setting, problems)
        result.save(out)
    return result


def _check(
    entries: Sequence[Entry], names: Sequence[str], changes: Sequence[tuple[str, str]], out: Path, split: Split
) -> None:
    """InputError for what can be known before anything is trained."""
    folders = [entry.folder for entry in entries]
    if not entries:
        raise InputError("Name the models to compare; `facerwkv models list` shows them.")
    if twice := sorted({entry.name for entry in entries if folders.count(entry.folder) > 1}):
        raise InputError(f"{', '.join(twice)} is named twice, or two models would share a folder. Name each once.")
    for pattern, change in changes:
        fitting = [entry for name, entry in zip(names, entries, strict=True) if fnmatch(name, pattern)]
        if not fitting:
            raise InputError(f"{pattern}:{change} changes nothing: {pattern!r} fits none of {', '.join(names)}.")
        if not (any(entry.recipe for entry in fitting) or change.startswith(FOR_LOADED)):
            raise InputError(
                f"{change} changes nothing: {', '.join(entry.name for entry in fitting)} is loaded, not trained. Only "
                "data.KEY=VALUE changes how it is scored."
            )
    for entry in entries:
        choose_device(entry.device)
        if entry.recipe is not None:
            require_same(entry.recipe, out / entry.folder)
    _require_splits({entry.recipe.data for entry in entries if entry.recipe}, split)


def _seeded(entry: Entry, seeds: Sequence[int]) -> list[Entry]:
    """A model that is trained, once for each seed; one that is loaded, as it is."""
    if entry.recipe is None:
        return [entry]
    part = entry.recipe.train
    plans = {seed: entry.recipe.model_copy(update={"train": part.model_copy(update={"seed": seed})}) for seed in seeds}
    return [replace(entry, name=f"{entry.name} seed {seed}", recipe=plan) for seed, plan in plans.items()]


def over_seeds(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Model → score → mean, sample's deviation and number over its seeds, for models that have several."""
    models: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        name, seed, _ = row["name"].rpartition(" seed ")
        if seed:
            models.setdefault(name, []).append(dict(row))
    return {name: metrics.mean_scores(those) for name, those in models.items()}


def _rank(row: Mapping[str, Any]) -> float:
    """The value of the first score of SCORES; a row in which it is not defined comes last."""
    leading = row.get(next(iter(metrics.SCORES)))
    return leading["value"] if leading else -1.0


def _parse(change: str) -> tuple[str, str]:
    """A change as (pattern of names, KEY=VALUE)."""
    key, sign, value = change.partition("=")
    pattern, _, key = key.rpartition(":")
    return pattern or "*", f"{key}{sign}{value}"


def _is_loaded(name: str) -> bool:
    known = name in MODELS or name.startswith(TIMM)
    return name in weights() or name.startswith(HUB) or (not known and ("/" in name or Path(name).is_dir()))


def _titles(names: Sequence[str]) -> list[str]:
    """What the models are called: folders by as much of the end of their paths as tells them apart."""
    folders = [Path(name).resolve().parts if _is_loaded(name) and Path(name).exists() else (name,) for name in names]
    titles = []
    for parts in folders:
        ends = (parts[-depth:] for depth in range(1, len(parts) + 1))
        unlike = (end for end in ends if sum(other[-len(end) :] == end for other in folders) == 1)
        titles.append("/".join(next(unlike, parts)))
    return titles


def _require_splits(configs: Collection[DataConfig], split: Split) -> None:
    """InputError where the data lack what the models are trained or scored on; no image is opened."""
    if configs and split == "all":
        raise InputError("All images include those of training. Choose a split: facerwkv compare --split test.")
    for config in configs:
        splits = load_dataset(config.source, labels=config.labels, rename=config.rename).splits
        if missing := [each for each in ("train", split) if each not in splits and each != "val"]:
            advice = (
                "Score validation: facerwkv compare --split val."
                if missing == ["test"]
                else "Give data to train on: --data NAME:ROOT."
            )
            there = ", ".join(splits)
            raise InputError(f"{config.source} has no {' and no '.join(missing)} split; it has {there}. {advice}")


def _entry(name: str, title: str, recipe: str, changes: Sequence[tuple[str, str]], values: Mapping[str, Any]) -> Entry:
    fitting = [change for pattern, change in changes if fnmatch(name, pattern)]
    listed = name in MODELS or name.startswith(TIMM)
    chosen = recipe if recipe != OWN else model_line(name).recipe if listed else "modern"
    if _is_loaded(name):
        load_checkpoint(name)
        device = Recipe.read(chosen, fitting, values).train.device  # which refuses unknown keys, too
        data = tuple(change for change in fitting if change.startswith("data"))
        return Entry(title, checkpoint=name, changes=data, device=device)
    line = model_line(name)
    plan = Recipe.read(chosen, fitting, {**values, "model.name": name})
    if line.config.two_inputs and plan.transform.crop == "scene":
        plan = Recipe.read(chosen, [*fitting, "transform.crop=both"], {**values, "model.name": name})
    check_inputs(plan)
    return Entry(title, plan, device=plan.train.device)


def require_same(recipe: Recipe, folder: Path) -> None:
    """InputError where an earlier run in `folder` had another recipe: its numbers would not be comparable."""
    if not (folder / RECIPE).is_file():
        return
    earlier = read_run(folder)
    if same_source(earlier.data.source, recipe.data.source):  # under another spelling
        recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"source": earlier.data.source})})
    before, now = (flat(each.model_dump(mode="json")) for each in (earlier, recipe))
    differing = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if differing:
        key = differing[0]
        raise InputError(
            f"{folder} was trained under another recipe ({key} was {before.get(key)!r}, now {now[key]!r}). "
            "Choose another --out, or remove that folder."
        )


def _row(entry: Entry, folder: Path, source: str | None, split: Split, progress: bool) -> dict[str, Any]:
    """The model's row of the table; that of a model trained here is kept."""
    kept, model = folder / split / ROW, entry.checkpoint or str(folder)
    if entry.recipe is not None:
        if kept.is_file():
            return read_json(kept, "Remove it, and the model is scored again.")
        if not (folder / TIME).is_file():
            train(entry.recipe, folder, resume=(folder / RECIPE).is_file(), progress=progress)
        if not (folder / "val" / SUMMARY).is_file():
            finish(folder, progress)
    scored = evaluate_folder(model, source, split, folder / split, entry.device, changes=entry.changes).evaluation
    checkpoint, run = load_checkpoint(model), run_of(model)
    spent = read_json(run / TIME) if run and (run / TIME).is_file() else {}
    truth = sorted(zip(scored.names, (scored.labels[target] for target in scored.targets), strict=True))
    where = environment()
    row = {
        "name": entry.name,
        "model": checkpoint.name,
        "loaded": entry.checkpoint is not None,
        "source": scored.source,
        "split": scored.split,
        "n": len(scored.names),
        "classes": list(scored.labels),
        "images": hashlib.sha256(repr(truth).encode()).hexdigest()[:12],
        **metrics.to_json(scored.scores, metrics.of_confusion()),
        "parameters": sum(parameter.numel() for parameter in checkpoint.model.parameters()),
        "image_size": list(checkpoint.transform.image_size),
        "epochs": spent.get("epochs"),
        "train_seconds": spent.get("seconds"),
        "images_per_second": throughput(checkpoint, entry.device),
        "hardware": where["gpu"] or where["processor"],
        "threads": where["threads"],
        "commit": where["commit"],
    }
    write_json(kept, row)
    return row


@torch.inference_mode()
def throughput(checkpoint: Checkpoint, device: str = "auto") -> float:
    """Images per second through the model alone, in evaluation mode: the median over batches of 32 of random pixels."""
    chosen = choose_device(device)
    model, transform = checkpoint.model.to(chosen).eval(), checkpoint.transform
    batch = torch.rand(BATCH, transform.channels, *transform.image_size, device=chosen)
    model(batch)
    times: list[float] = []
    while len(times) < SAMPLES or sum(times) < SECONDS:
        start = time.perf_counter()
        model(batch).sum().item()  # which waits for a GPU
        times.append(time.perf_counter() - start)
    return BATCH / statistics.median(times)


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values under dotted keys."""
    pairs: dict[str, Any] = {}
    for key, value in values.items():
        pairs |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
    return pairs
