"""A run's folder: recipe, environment, curves, checkpoints, and the file from which it resumes.

RUN/recipe.yaml  environment.json  data.json
RUN/splits.csv                       which image was in which split, by content (data/record.py)
RUN/metrics.csv                      one row per logged step or epoch
RUN/best/  RUN/last/                 checkpoints
RUN/resume.ckpt                      all that Lightning needs to resume, read without unpickling code
RUN/time.json                        how long the training took; written when it has ended
RUN/val/  RUN/test/                  predictions per image, scores, report
"""

import csv
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from facerwkv.core.errors import InputError
from facerwkv.core.files import atomic, write_text
from facerwkv.core.metrics import of_confusion
from facerwkv.models.checkpoint import shipped
from facerwkv.training.recipe import Recipe

RECIPE, ENVIRONMENT, DATA, CURVES, RESUME = "recipe.yaml", "environment.json", "data.json", "metrics.csv", "resume.ckpt"
TIME, SPLITS = "time.json", "splits.csv"


def columns() -> list[str]:
    """The columns of metrics.csv."""
    return ["epoch", "step", "lr", "train_loss", "val_loss", *(f"val_{name}" for name in of_confusion())]


def open_run(folder: Path, recipe: Recipe, resume: bool) -> Path | None:
    """Make the folder, or with `resume` find the file to resume from (None: start from the beginning)."""
    if resume:
        return folder / RESUME if os.path.lexists(folder / RESUME) else None
    if not leads():
        return None
    if (folder / RECIPE).exists():
        raise InputError(
            f"{folder} already contains a run. Resume it: facerwkv train --resume {folder}; or choose another --out."
        )
    write_text(folder / RECIPE, recipe.to_yaml())
    return None


def leads() -> bool:
    """Whether this process writes the files: the only one of a training, or the first of several."""
    return getattr(rank_zero_only, "rank", 0) == 0


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Lock a run's folder. InputError where another process of this machine trains in it.

    The processes of one training share it. The lock is among the temporary files, so that the run stays as it was.
    """
    if not leads():
        yield
        return
    name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    lock = FileLock(Path(tempfile.gettempdir(), f"facerwkv-{name}.lock"), timeout=0)
    try:
        with lock:
            try:
                yield
            finally:
                with suppress(OSError):  # Windows removes no file that is open
                    os.remove(lock.lock_file)
    except Timeout as error:
        raise InputError(
            f"Another process is training in {folder}. Wait until it ends, stop it, or choose another --out."
        ) from error


def read_run(folder: Path) -> Recipe:
    """The recipe of an existing run."""
    if not (folder / RECIPE).is_file():
        raise InputError(f"{folder} is not a run: it has no {RECIPE}. Start one with: facerwkv train --out {folder}")
    try:
        recipe = Recipe.read(folder / RECIPE)
    except InputError as error:
        raise InputError(f"{folder / RECIPE} cannot be used: {error}") from error
    if missing := Recipe.model_fields.keys() - recipe.model_fields_set:
        raise InputError(
            f"{folder / RECIPE} was cut off: it lacks {', '.join(sorted(missing))}. Restore it from a copy."
        )
    return recipe


def run_of(source: str | Path) -> Path | None:
    """The run to which a checkpoint's folder (the run's, its best or last) belongs; None for one of its own."""
    folder = Path(os.path.expanduser(source))
    if str(source) in shipped() or not folder.exists():
        return None
    folder = folder.resolve() if folder.is_dir() else folder.resolve().parent
    folder = folder.parent if folder.name in ("best", "last") else folder
    return folder if (folder / RECIPE).is_file() else None


def environment() -> dict[str, Any]:
    """What the run ran on: versions, hardware, and the clone's commit, with "+" when files of the package differ."""
    packages = ("facerwkv", "torch", "torchvision", "lightning", "timm", "numpy")
    folder, processor, commit = str(Path(__file__).parents[1]), platform.processor() or "unknown", None
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        processor = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    with suppress(OSError, subprocess.SubprocessError):
        asked = (["rev-parse", "--short=12", "HEAD"], ["status", "--porcelain", folder])
        head, changed = (
            subprocess.run(["git", "-C", folder, *words], capture_output=True, text=True, timeout=10, check=True).stdout
            for words in asked
        )
        commit = head.strip() + ("+" if changed.strip() else "")
    return {
        "python": platform.python_version(),
        "packages": {name: version(name) for name in packages},
        "platform": platform.platform(),
        "processor": processor,
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "commit": commit,
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


@rank_zero_only
def write_json(path: Path, values: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(values, indent=2) + "\n")


class Curves(Logger):
    """RUN/metrics.csv. Lightning's own CSV logger deletes the curve when a run resumes; this one continues it."""

    name, version = "curves", ""

    def __init__(self, folder: Path):
        super().__init__()
        self.path = folder / CURVES

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The run's folder contains the recipe already."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        row = {name: metrics[name] for name in columns() if name in metrics} | {"step": step}
        if len(row) == 2:
            return
        fresh = not self.path.exists()
        with self.path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns())
            if fresh:
                writer.writeheader()
            writer.writerow(row)

    @rank_zero_only
    def rewind(self, step: int) -> None:
        """Forget what was logged from `step` on, which the resumed run logs again; the columns are those of today."""
        if not os.path.lexists(self.path):
            return
        try:
            text = self.path.read_text(encoding="utf-8")
            rows = [*csv.DictReader(text[: text.rfind("\n") + 1].splitlines())]  # a row that was cut off is left out
        except (OSError, ValueError, csv.Error) as error:
            raise InputError(
                f"{self.path} is damaged ({error}). Remove it, and the run goes on with a new curve."
            ) from error
        rows = [row for row in rows if (row.get("step") or "").isdigit() and int(row["step"]) < step]
        with atomic(self.path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns(), extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
