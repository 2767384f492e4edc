"""Several models, one recipe, one table: each is trained or loaded, scored on the same images and timed alike.

OUT/NAME/                    a run for every model; a checkpoint that was loaded has its scores alone there
OUT/NAME/SPLIT/row.json      its line of the table; a model trained here that has one is not scored again
OUT/comparison.json .csv .md .png
"""

import json
import re
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from facerwkv.core.devices import choose_device
from facerwkv.core.errors import InputError
from facerwkv.data.datasets import load_dataset
from facerwkv.evaluation.checkpoints import Split, evaluate_folder, finish
from facerwkv.evaluation.comparison import Comparison, flat
from facerwkv.evaluation.evaluate import SUMMARY, Evaluation
from facerwkv.models.checkpoint import Checkpoint, load_checkpoint
from facerwkv.models.zoo import MODELS, TIMM, model_line
from facerwkv.training.module import check_inputs, train
from facerwkv.training.recipe import Recipe, shipped
from facerwkv.training.run import RECIPE, TIME, environment, read_run, write_json

OWN = "own"  # instead of a recipe's name: each model's own, where it has one
ROW = "row.json"
BATCH = 32  # images at once where speed is measured
SAMPLES, SECONDS = 5, 2.0  # measured at least so often, and so long


@dataclass(frozen=True)
class Entry:
    """A model to compare: its name in the table, and the recipe to train it under, or the checkpoint to load."""

    name: str
    recipe: Recipe | None = None
    checkpoint: Path | None = None

    @property
    def folder(self) -> str:
        return re.sub(r"[^\w.-]+", "_", self.name)


def compare(
    names: Sequence[str],
    recipe: str = "modern",
    changes: Sequence[str] = (),
    out: str | Path = "runs/compare",
    split: Split = "test",
    progress: bool = True,
    values: Mapping[str, Any] | None = None,
) -> Comparison:
    """Train (or load) each model, score it on `split`, time it; write the table after each, the best model first.

    names: of MODELS, "timm:NAME", or folders of runs and checkpoints. recipe: a shipped recipe's name, a YAML file, or
    "own" for each model's own. changes: "KEY=VALUE" for all, "PATTERN:KEY=VALUE" for the models whose names fit a shell
    pattern. values: KEY → the value as it is, for all, applied before `changes`. Models that look at a face and a scene
    get transform.crop=both. A comparison that stopped goes on when it is called again; a model that fails is listed in
    `problems` and stops no other. Raises InputError, before anything is trained, for names, keys and values that are
    not known, for data that are not there, and for runs in `out` under another recipe.
    """
    out, split_changes = Path(out), [_parse(change) for change in changes]
    entries = [_entry(name, recipe, split_changes, values or {}) for name in names]
    _require_distinct(entries)
    _require_fitting(split_changes, names)
    for entry in entries:
        if entry.recipe is not None:
            require_same(entry.recipe, out / entry.folder)
    for config in {entry.recipe.data for entry in entries if entry.recipe}:
        load_dataset(config.source, labels=config.labels)
    source = next((entry.recipe.data.source for entry in entries if entry.recipe), None)
    source = source or _source(split_changes) or (values or {}).get("data.source")
    setting = {"recipe": recipe, "changes": list(changes), "source": source, "split": split}
    rows: dict[str, dict[str, Any]] = {}
    problems: dict[str, str] = {}
    for number, entry in enumerate(entries, 1):
        Console(stderr=True).print(f"[bold]{number}/{len(entries)}[/] {entry.name}", highlight=False)
        try:
            rows[entry.name] = _row(entry, out / entry.folder, source, split, progress)
        except InputError as error:
            problems[entry.name] = f"{entry.name}: {error}"
        _table(rows, setting, problems).save(out)
    return _table(rows, setting, problems)


def _table(rows: dict[str, dict[str, Any]], setting: dict[str, Any], problems: dict[str, str]) -> Comparison:
    ordered = sorted(rows.values(), key=lambda row: -row["accuracy"]["value"])
    return Comparison(ordered, setting, list(problems.values()))


def _parse(change: str) -> tuple[str, str]:
    """A change as (pattern of names, KEY=VALUE)."""
    key, sign, value = change.partition("=")
    pattern, _, key = key.rpartition(":")
    return pattern or "*", f"{key}{sign}{value}"


def _entry(name: str, recipe: str, changes: Sequence[tuple[str, str]], values: Mapping[str, Any]) -> Entry:
    if name not in MODELS and not name.startswith(TIMM) and Path(name).is_dir():
        load_checkpoint(name)
        return Entry(Path(name).name, checkpoint=Path(name))
    line = model_line(name)
    chosen = recipe if recipe != OWN else name if name in shipped() else "modern"
    fitting = [change for pattern, change in changes if fnmatch(name, pattern)]
    plan = Recipe.read(chosen, fitting, {**values, "model.name": name})
    if line.config.two_inputs and plan.transform.crop == "scene":
        plan = Recipe.read(chosen, [*fitting, "transform.crop=both"], {**values, "model.name": name})
    check_inputs(plan)
    return Entry(name, plan)


def _source(changes: Sequence[tuple[str, str]]) -> str | None:
    return next((change.partition("=")[2] for _, change in changes if change.startswith("data.source=")), None)


def _require_distinct(entries: Sequence[Entry]) -> None:
    folders = [entry.folder for entry in entries]
    if not entries:
        raise InputError("Name the models to compare; `facerwkv models list` shows them.")
    if twice := sorted({entry.name for entry in entries if folders.count(entry.folder) > 1}):
        raise InputError(f"{', '.join(twice)} is named twice, or two models would share a folder. Name each once.")


def _require_fitting(changes: Sequence[tuple[str, str]], names: Sequence[str]) -> None:
    for pattern, change in changes:
        if not any(fnmatch(name, pattern) for name in names):
            raise InputError(f"{pattern}:{change} changes nothing: {pattern!r} fits none of {', '.join(names)}.")


def require_same(recipe: Recipe, folder: Path) -> None:
    """InputError where an earlier run in `folder` had another recipe: its numbers would not be comparable."""
    if not (folder / RECIPE).is_file():
        return
    before, now = (flat(each.model_dump(mode="json")) for each in (read_run(folder), recipe))
    differing = [key for key in now if before.get(key) != now[key]]
    if differing:
        key = differing[0]
        raise InputError(
            f"{folder} was trained under another recipe ({key} was {before.get(key)!r}, now {now[key]!r}). "
            "Choose another --out, or remove that folder."
        )


def _row(entry: Entry, folder: Path, source: str | None, split: Split, progress: bool) -> dict[str, Any]:
    """The model's line of the table; that of a model trained here is kept."""
    kept = folder / split / ROW
    if entry.recipe is not None and kept.is_file():
        return json.loads(kept.read_text(encoding="utf-8"))
    model = entry.checkpoint or folder
    if entry.recipe is not None and not (folder / TIME).is_file():
        train(entry.recipe, folder, resume=(folder / RECIPE).is_file(), progress=progress)
    if entry.recipe is not None and not (folder / "val" / SUMMARY).is_file():
        finish(folder, progress)
    scored = evaluate_folder(model, source, split, folder / split, _device(entry)).evaluation
    row = _measured(entry, model, scored)
    write_json(kept, row)
    return row


def _measured(entry: Entry, model: Path, scored: Evaluation) -> dict[str, Any]:
    checkpoint = load_checkpoint(model)
    summary = scored.summary()
    spent = json.loads((model / TIME).read_text(encoding="utf-8")) if (model / TIME).is_file() else {}
    where = environment()
    return {
        "name": entry.name,
        "model": checkpoint.name,
        "loaded": entry.checkpoint is not None,
        "source": summary["source"],
        "split": summary["split"],
        "n": summary["n"],
        **{score: summary[score] for score in ("accuracy", "uar", "macro_f1")},
        "parameters": sum(parameter.numel() for parameter in checkpoint.model.parameters()),
        "image_size": list(checkpoint.transform.image_size),
        "epochs": spent.get("epochs"),
        "train_seconds": spent.get("seconds"),
        "images_per_second": throughput(checkpoint, _device(entry)),
        "hardware": where["gpu"] or where["processor"],
        "threads": where["threads"],
        "commit": where["commit"],
    }


def _device(entry: Entry) -> str:
    return entry.recipe.train.device if entry.recipe else "auto"


@torch.inference_mode()
def throughput(checkpoint: Checkpoint, device: str = "auto") -> float:
    """Images a second through the model alone, in evaluation mode: the median over batches of 32 of random pixels."""
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
