"""Several models, one recipe, one table: each is trained or loaded, scored on the same images and timed alike.

OUT/NAME/                    the run of each model; for a loaded checkpoint its scores alone
OUT/NAME/SPLIT/row.json      its row of the table; a model trained here that has one is not scored again
OUT/comparison.json .csv .md .png
"""

import hashlib
import logging
import os
import re
import statistics
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback
from rich.console import Console

from facerwkv.core import metrics
from facerwkv.core.devices import choose_device
from facerwkv.core.errors import InputError, first_line
from facerwkv.core.files import read_json
from facerwkv.data.config import DataConfig
from facerwkv.data.load import load_dataset
from facerwkv.data.record import same_source
from facerwkv.evaluation.comparison import Comparison, flat, paired
from facerwkv.evaluation.evaluate import Split, evaluate_folder, finish
from facerwkv.evaluation.result import LOGITS, SUMMARY, Evaluation
from facerwkv.models.checkpoint import load_checkpoint
from facerwkv.models.folder import HUB, WEIGHTS, Checkpoint, find
from facerwkv.models.zoo import MODELS, TIMM, model_line
from facerwkv.models.zoo import shipped as weights
from facerwkv.training.module import check_inputs, train
from facerwkv.training.recipe import Recipe
from facerwkv.training.run import RECIPE, TIME, environment, read_run, run_of, write_json

OWN = "own"  # instead of a recipe's name: each model's own, as its line of MODELS has it
ROW = "row.json"
BATCH = 32  # images per forward pass where speed is measured
SAMPLES, SECONDS = 5, 2.0  # speed is measured at least that often, and for at least that long
FOR_LOADED = ("data.", "data=", "train.device=")


@dataclass(frozen=True)
class Entry:
    """A model to compare: its name in the table, and the recipe to train it under, or the checkpoint to load.

    answers: the folder of what it answered, where that is kept, and then the checkpoint may be gone.
    changes: "data.KEY=VALUE", under which a loaded one is scored; device: on which.
    """

    name: str
    recipe: Recipe | None = None
    checkpoint: str | None = None
    answers: Path | None = None
    changes: tuple[str, ...] = ()
    device: str = "auto"

    @property
    def folder(self) -> str:
        return re.sub(r"[^\w.-]+", "_", self.name)


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
    callbacks: Sequence[Callback] = (),
) -> Comparison:
    """Train (or load) each model, score it on `split`, time it; write the table after each, the best model first.

    names: of MODELS and "timm:NAME", to be trained; shipped models, "hf-hub:ORG/NAME" and folders of runs and
    checkpoints, to be loaded. A run whose answers on the split are kept, and no older than its weights, is not run
    again unless data are named; a folder of answers needs no weights. recipe: a shipped recipe's name, a YAML file, or
    "own" for each model's own. changes: "KEY=VALUE" for all, "PATTERN:KEY=VALUE" for the models whose names fit a shell
    pattern; those of data.KEY also hold for what is loaded. values: KEY → the value as it is, for all, applied before
    `changes`. Models that look at a face and a scene get transform.crop=both. seeds: each model is trained once for
    each; the table ends with their means, and with how each row differs from the best on the same images (`paired`).
    callbacks: Lightning's, which watch.
    An interrupted comparison resumes when it is called again; a model that fails is listed in `problems` and stops no
    other. Raises InputError, before anything is trained, for names, keys and values that are not known, for changes
    that change nothing, for data or a split that are not there, and for runs in `out` under another recipe.
    """
    out, split_changes = Path(out), [_parse(change) for change in changes]
    entries = entries_of(names, recipe, changes, values, split)
    if seeds:
        several = [_seeded(entry, seeds) for entry in entries]
        names = [name for name, those in zip(names, several, strict=True) for _ in those]
        entries = [each for those in several for each in those]
    _check(entries, names, split_changes, out, split)
    given = (change.partition("=")[2] for _, change in split_changes if change.startswith("data.source="))
    source = next((entry.recipe.data.source for entry in entries if entry.recipe), None)
    source = source or next(given, None) or (values or {}).get("data.source")
    setting = {"recipe": recipe, "changes": list(changes), "source": source, "split": split}
    folders = {entry.name: entry.answers or out / entry.folder / split for entry in entries}
    rows: list[dict[str, Any]] = []
    problems: list[str] = []
    for number, entry in enumerate(entries, 1):
        Console(stderr=True, markup=False).print(f"{number}/{len(entries)} {entry.name}", highlight=False)
        try:
            rows.append(_row(entry, out / entry.folder, source, split, progress, callbacks))
        except Exception as error:  # one model that fails must not cost the others their hours
            if not isinstance(error, InputError):
                logging.getLogger(__name__).exception(entry.name)
            problems.append(f"{entry.name}: {error if isinstance(error, InputError) else first_line(error)}")
        best_first = sorted(rows, key=_rank, reverse=True)
        result = Comparison(best_first, setting, problems, paired(best_first, folders))
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


def entries_of(
    names: Sequence[str],
    recipe: str,
    changes: Sequence[str],
    values: Mapping[str, Any] | None = None,
    split: Split = "test",
) -> list[Entry]:
    """What `compare` trains or loads for these names. InputError for what it refuses in names, keys and values."""
    split_changes = [_parse(change) for change in changes]
    return [
        _entry(name, title, recipe, split_changes, values or {}, split)
        for name, title in zip(names, _titles(names), strict=True)
    ]


def _entry(
    name: str, title: str, recipe: str, changes: Sequence[tuple[str, str]], values: Mapping[str, Any], split: Split
) -> Entry:
    fitting = [change for pattern, change in changes if fnmatch(name, pattern)]
    listed = name in MODELS or name.startswith(TIMM)
    chosen = recipe if recipe != OWN else model_line(name).recipe if listed else "modern"
    if _is_loaded(name):
        device = Recipe.read(chosen, fitting, values).train.device  # which refuses unknown keys, too
        data = tuple(change for change in fitting if change.startswith("data"))
        answers = None if data or "data.source" in values else _answers(name, split)
        checkpoint = None if answers and not _has_weights(name) else name
        if checkpoint:
            load_checkpoint(name)
        return Entry(title, None, checkpoint, answers, data, device)
    line = model_line(name)
    plan = Recipe.read(chosen, fitting, {**values, "model.name": name})
    if line.config.two_inputs and plan.transform.crop == "scene":
        plan = Recipe.read(chosen, [*fitting, "transform.crop=both"], {**values, "model.name": name})
    check_inputs(plan)
    return Entry(title, plan, device=plan.train.device)


def _answers(name: str, split: Split) -> Path | None:
    """The folder with what a run answered on the split, NAME/SPLIT or NAME, where it is no older than the weights."""
    home = Path(os.path.expanduser(name))
    for folder in (home / split, home):
        if (folder / LOGITS).is_file() and read_json(folder / SUMMARY).get("split") == split:
            age = (folder / SUMMARY).stat().st_mtime
            return None if _has_weights(name) and age < (find(name) / WEIGHTS).stat().st_mtime else folder
    return None


def _has_weights(name: str) -> bool:
    home = Path(os.path.expanduser(name))
    return not home.is_dir() or any((home / part / WEIGHTS).is_file() for part in ("", "best", "last"))


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


def _row(
    entry: Entry, folder: Path, source: str | None, split: Split, progress: bool, callbacks: Sequence[Callback]
) -> dict[str, Any]:
    """The model's row of the table; that of a model trained here is kept."""
    kept, model = folder / split / ROW, entry.checkpoint or str(folder)
    if entry.recipe is not None:
        if kept.is_file():
            return read_json(kept, "Remove it, and the model is scored again.")
        if not (folder / TIME).is_file():
            resume = (folder / RECIPE).is_file()
            train(entry.recipe, folder, resume=resume, progress=progress, callbacks=callbacks)
        if not (folder / "val" / SUMMARY).is_file():
            finish(folder, progress)
    if entry.answers:
        scored = Evaluation.load(entry.answers)
    else:
        scored = evaluate_folder(model, source, split, folder / split, entry.device, changes=entry.changes).evaluation
    checkpoint = load_checkpoint(model) if entry.recipe or entry.checkpoint else None
    run = run_of(model) if checkpoint else None
    spent = read_json(run / TIME) if run and (run / TIME).is_file() else {}
    truth = sorted(zip(scored.names, (scored.labels[target] for target in scored.targets), strict=True))
    where = environment()
    row = {
        "name": entry.name,
        "model": checkpoint.name if checkpoint else scored.model,
        "loaded": entry.recipe is None,
        "source": scored.source,
        "split": scored.split,
        "n": len(scored.names),
        "classes": list(scored.labels),
        "images": hashlib.sha256(repr(truth).encode()).hexdigest()[:12],
        **metrics.to_json(scored.scores, metrics.of_confusion()),
        "parameters": sum(each.numel() for each in checkpoint.model.parameters()) if checkpoint else None,
        "image_size": list(checkpoint.transform.image_size) if checkpoint else None,
        "epochs": spent.get("epochs"),
        "train_seconds": spent.get("seconds"),
        "images_per_second": throughput(checkpoint, entry.device) if checkpoint else None,
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
