"""A run's folder: recipe, environment, curves, checkpoints, and the file from which it resumes.

RUN/recipe.yaml  environment.json  data.json
RUN/metrics.csv                      one row a logged step or epoch
RUN/best/  RUN/last/                 checkpoints
RUN/resume.ckpt                      everything Lightning needs to go on, read without unpickling code
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
from facerwkv.training.recipe import Recipe

RECIPE, ENVIRONMENT, DATA, CURVES, RESUME = "recipe.yaml", "environment.json", "data.json", "metrics.csv", "resume.ckpt"
TIME = "time.json"


def columns() -> list[str]:
    """The columns of metrics.csv."""
    return ["epoch", "step", "lr", "train_loss", "val_loss", *(f"val_{name}" for name in of_confusion())]


def open_run(folder: Path, recipe: Recipe, resume: bool) -> Path | None:
    """Make the folder, or with `resume` find the file to go on from (None: from the beginning)."""
    if resume:
        return folder / RESUME if (folder / RESUME).is_file() else None
    if not leads():
        return None
    if (folder / RECIPE).exists():
        raise InputError(
            f"{folder} holds a run already. Continue it: facerwkv train --resume {folder}; or choose another --out."
        )
    write_text(folder / RECIPE, recipe.to_yaml())
    return None


def leads() -> bool:
    """Whether this process is the one of a training that writes: the only one, or the first of several."""
    return getattr(rank_zero_only, "rank", 0) == 0


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a run's folder. InputError where another process of this machine trains in it.

    The processes of one training share it. The lock stands among the temporary files, so that the run is what it was.
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
            f"Another process is training in {folder}. Wait for its end or stop it; or choose another --out."
        ) from error


def read_run(folder: Path) -> Recipe:
    """The recipe of an existing run."""
    if not (folder / RECIPE).is_file():
        raise InputError(f"{folder} is not a run: it has no {RECIPE}. Start one with: facerwkv train --out {folder}")
    return Recipe.read(folder / RECIPE)


def environment() -> dict[str, Any]:
    """What the run ran on: versions, hardware, commit."""
    packages = ("facerwkv", "torch", "torchvision", "lightning", "timm", "numpy")
    return {
        "python": platform.python_version(),
        "packages": {name: version(name) for name in packages},
        "platform": platform.platform(),
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "commit": _commit(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


@rank_zero_only
def write_json(path: Path, values: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(values, indent=2) + "\n")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"


def _commit() -> str | None:
    """The commit of the clone that this package runs from, with "+" when files of the package have changed since."""
    package = str(Path(__file__).parents[1])
    git = ["git", "-C", package]
    try:
        head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, timeout=10)
        changed = subprocess.run([*git, "status", "--porcelain", package], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "") if head.returncode == 0 else None


class Curves(Logger):
    """RUN/metrics.csv. Lightning's own CSV logger deletes the curve when a run resumes; this one goes on with it."""

    def __init__(self, folder: Path):
        super().__init__()
        self.path = folder / CURVES

    @property
    def name(self) -> str:
        return "curves"

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The recipe stands in the run's folder already."""

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
        if not self.path.exists():
            return
        with self.path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if int(row["step"]) < step]
        with atomic(self.path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns(), extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
