"""What experiments cost before they run, counted and measured on this machine, and how far they have come."""

import math
import os
import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback
from rich.console import Console
from rich.table import Table
from rich.text import Text

from facerwkv.core.devices import choose_device
from facerwkv.core.errors import InputError
from facerwkv.core.files import cache_folder
from facerwkv.data.cache import bytes_there
from facerwkv.data.load import load_dataset
from facerwkv.data.splits import TEST_BLOCK, TRAIN_BLOCK
from facerwkv.experiments import chosen, runs_of
from facerwkv.experiments.study import Run, Setting, validation_curve
from facerwkv.training.memory import Cost, measure
from facerwkv.training.recipe import Recipe

COPIES = 6  # of the weights, that a run keeps: best, last, and what it resumes from
SOON = 60.0  # seconds between two lines on how far a plan has come


@dataclass(frozen=True)
class Step:
    """A run of a plan: the experiment that asks for it first, the epochs and the seconds that it still takes."""

    experiment: str
    run: Run
    epochs: int
    seconds: float


@dataclass(frozen=True)
class Plan:
    """The runs of experiments, each once, in their order; those that are done take no time.

    cache: bytes of decoded images still to be written; kept: bytes of the runs; memory: of the largest step of
    training, and whose that is.
    """

    setting: Setting
    steps: Sequence[Step]
    cache: int
    kept: int
    memory: tuple[int, str]
    machine: str

    @property
    def seconds(self) -> float:
        return sum(step.seconds for step in self.steps)

    def print(self) -> None:
        table = Table(box=None, pad_edge=False)
        for number, column in enumerate(("experiment", "runs", "done", "epochs left", "hours left")):
            table.add_column(column, justify="right" if number else "left")
        for name in dict.fromkeys(step.experiment for step in self.steps):
            own = [step for step in self.steps if step.experiment == name]
            done, epochs = sum(step.run.done for step in own), sum(step.epochs for step in own)
            table.add_row(name, *map(str, (len(own), done, epochs)), hours(sum(step.seconds for step in own)))
        console = Console(markup=False, highlight=False)
        console.print(table, "")
        for line in self.lines():
            console.print(Text(line), soft_wrap=True)

    def lines(self) -> list[str]:
        done, epochs = sum(step.run.done for step in self.steps), sum(step.epochs for step in self.steps)
        largest, whose = self.memory
        return [
            f"{len(self.steps)} runs, of which {done} are done; {epochs:,} epochs and {hours(self.seconds)} hours are "
            f"left on {self.machine}.",
            f"Disk: {self.cache / 1e9:,.1f} GB of decoded images in {self._store}, "
            f"{self.kept / 1e9:,.1f} GB of runs in {self.setting.out}.",
            f"Memory: {largest / 1e9:,.1f} GB for a step of {whose}.",
        ]

    @property
    def _store(self) -> Path:
        named = (step.run.recipe.data.cache for step in self.steps)
        return next((Path(os.path.expanduser(each)) for each in named if isinstance(each, str)), cache_folder())

    def require_disk(self) -> None:
        """InputError where the plan does not fit the disk."""
        needed: Counter[int] = Counter()
        places: dict[int, Path] = {}
        for path, size in ((self._store, self.cache), (self.setting.out, self.kept)):
            there = next(each for each in (path, *path.absolute().parents) if each.exists())
            places.setdefault(there.stat().st_dev, there)
            needed[there.stat().st_dev] += size
        for device, place in places.items():
            if needed[device] > (free := shutil.disk_usage(place).free):
                raise InputError(
                    f"The plan needs {needed[device] / 1e9:,.1f} GB where {place} is; {free / 1e9:,.1f} GB are free. "
                    "Name another folder for the images (data.cache=FOLDER) or the runs (--out), decode in every epoch "
                    "(data.cache=false), remove caches (facerwkv data cache list), or run less (--only, --seeds 0)."
                )

    def seeds_within(self, budget: float) -> dict[str, list[int]]:
        """Experiment → the seeds whose runs fit into `budget` hours: the first seed of each, in the order of the paper,
        then the second of each; a run that an earlier one pays for costs nothing."""
        left, fitting = 3600 * budget, dict[str, list[int]]()
        for seed in self.setting.seeds:
            for name in dict.fromkeys(step.experiment for step in self.steps):
                own = [step.seconds for step in self.steps if step.experiment == name and step.run.seed == seed]
                if own and sum(own) <= left:
                    left -= sum(own)
                    fitting.setdefault(name, []).append(seed)
        return fitting


def hours(seconds: float) -> str:
    """Seconds as hours for people."""
    return f"{seconds / 3600:,.2f}" if seconds < 36_000 else f"{seconds / 3600:,.0f}"


def plan(name: str, setting: Setting) -> Plan:
    """What an experiment, or all, would train in this setting, and what that costs here.

    Each kind of model that is still to be trained is built and measured on a few images, the largest for some seconds.
    InputError as the experiments themselves raise it for data, names and keys.
    """
    asked: dict[Path, tuple[str, Run]] = {}
    for each in chosen(name):
        for run in runs_of(each, setting):
            asked.setdefault(run.folder, (each, run))
    sources = {run.recipe.data.source for _, run in asked.values() if not run.images}
    counts = {source: _counts(source) for source in sources}
    costs: dict[str, Cost] = {}
    steps, largest, kept = list[Step](), (0, "nothing"), 0
    say = Console(stderr=True, markup=False, highlight=False)
    for experiment, run in asked.values():
        recipe = run.recipe
        epochs = 0 if run.done else max(recipe.train.epochs - _epochs_of(run.folder), 0)
        seconds = 0.0
        if not run.done:
            kind = (
                f"{recipe.model} {recipe.transform.geometry} {recipe.train.precision} {recipe.train.grad_checkpointing}"
            )
            if kind not in costs:
                say.print(f"Measuring {recipe.model.name}, {len(steps)} of {len(asked)} runs are planned.")
                costs[kind] = measure(recipe)
            cost = costs[kind]
            train, val, test = run.images or images_of(recipe, counts[recipe.data.source])
            passes = 2 if recipe.optim.name == "sam" else 1
            seconds = epochs * (train * cost.train_seconds * passes + val * cost.seconds)
            seconds += (train + 2 * val + test) * cost.seconds  # scored once more, and on test
            largest = max(largest, (cost.step(recipe.data.batch_size), recipe.model.name))
            kept += COPIES * cost.weights
        steps.append(Step(experiment, run, epochs, seconds))
    recipes = [run.recipe for _, run in asked.values() if not (run.done or run.images)]
    device = choose_device(recipes[0].train.device) if recipes else "this machine"
    threads = f", {torch.get_num_threads()} threads" if str(device) == "cpu" else ""
    return Plan(setting, steps, _cache_bytes(recipes, counts), kept, largest, f"{device}{threads}, as measured now")


def _counts(source: str) -> dict[str, int]:
    return {split: len(samples) for split, samples in load_dataset(source).splits.items()}


def images_of(recipe: Recipe, counts: Mapping[str, int]) -> tuple[int, int, int]:
    """How many images a recipe trains on, validates on and tests on, to a few, from how many a data set has."""
    data, train, test = recipe.data, counts.get("train", 0), counts.get("test", 0)
    if data.split == "blocks":
        train, test = round(TRAIN_BLOCK * train), round(TEST_BLOCK * test)
    val = counts.get("val", round(data.val_fraction * train))
    if data.validation == "test":
        val = test
    elif "val" not in counts and data.validation != "copied":
        train -= val
    return tuple(min(number, data.limit or number) for number in (train, val, test))  # type: ignore[return-value]


def _epochs_of(folder: Path) -> int:
    """The epochs that a run has behind it."""
    with suppress(OSError, KeyError):
        return len(validation_curve(folder))
    return 0


def _cache_bytes(recipes: Sequence[Recipe], counts: Mapping[str, Mapping[str, int]]) -> int:
    """What the recipes' images take that no store has yet: each data set and geometry once."""
    stores = {}
    for recipe in recipes:
        if recipe.data.cache is not False:
            folder = cache_folder() if recipe.data.cache is True else Path(os.path.expanduser(recipe.data.cache))
            size = math.prod(recipe.transform.image_size) * recipe.transform.channels
            whole = size * sum(counts[recipe.data.source].values())
            known = bytes_there(recipe.transform, folder, recipe.data.source)
            stores[recipe.data.source, recipe.transform.geometry] = max(whole - known, 0)
    return sum(stores.values())


@dataclass
class Pace(Callback):
    """Says every minute how far a plan has come, and how long the rest takes at the pace so far."""

    plan: Plan
    console: Console = field(default_factory=lambda: Console(stderr=True, markup=False, highlight=False))
    began: float = field(default_factory=time.monotonic)
    said: float = field(default_factory=time.monotonic)

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, index: int) -> None:
        if time.monotonic() - self.said < SOON:
            return
        batches = max(trainer.num_training_batches, 1)
        share = (trainer.current_epoch + (index + 1) / batches) / max(trainer.max_epochs, 1)
        self.say(share, str(module.recipe.model.name))

    def say(self, share: float, name: str, spent: float | None = None) -> None:
        """share: of the run that goes on now, the first one of the plan that is not done."""
        self.said = time.monotonic()
        done, left, current = 0.0, 0.0, True
        for step in self.plan.steps:
            if step.seconds and not step.run.done:
                part = share if current else 0.0
                done, left, current = done + part * step.seconds, left + (1 - part) * step.seconds, False
            else:
                done += step.seconds
        spent = self.said - self.began if spent is None else spent
        rest = left * spent / done if done else left
        ended = sum(step.run.done for step in self.plan.steps)
        self.console.print(
            f"{ended}/{len(self.plan.steps)} runs are done; {name} goes on; about {hours(rest)} hours are left."
        )
