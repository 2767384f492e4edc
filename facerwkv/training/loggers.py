"""Where a run's curves go: RUN/metrics.csv and RUN/tensorboard."""

import csv
import importlib.util
import logging
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from facerwkv.core.errors import InputError, first_line
from facerwkv.core.files import atomic, named
from facerwkv.core.metrics import of_confusion
from facerwkv.training.recipe import Recipe
from facerwkv.training.run import CURVES, TENSORBOARD

_note = logging.getLogger(__name__).warning
FREE = "Free some space, then resume the run."


def columns() -> list[str]:
    """The columns of metrics.csv."""
    return ["epoch", "step", "lr", "train_loss", "val_loss", *(f"val_{name}" for name in of_confusion())]


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
        with named(self.path, FREE), self.path.open("a", newline="", encoding="utf-8") as file:
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
        with atomic(self.path) as new, new.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns(), extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)


SERVICES = {"wandb": "wandb", "mlflow": "mlflow"}
"""train.logger → the package, which is an extra."""


def require_service(name: str) -> None:
    """InputError where the package of this logger is not installed."""
    if name in SERVICES and importlib.util.find_spec(SERVICES[name]) is None:
        raise InputError(f'train.logger={name} needs {SERVICES[name]}: pip install "facerwkv[{name}]"')


def service(name: str, folder: Path, recipe: Recipe) -> list[Logger]:
    """Lightning's logger of a service, in the project facerwkv, with the recipe; none for "none"."""
    if name == "none":
        return []
    logger: Logger
    if name == "wandb":
        logger = WandbLogger(folder.name, folder, project="facerwkv")
    else:
        place = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder.absolute() / 'mlflow.db'}"
        logger = MLFlowLogger("facerwkv", folder.name, tracking_uri=place)
    logger.log_hyperparams(recipe.model_dump(mode="json"))
    return [logger]


class TensorBoard(TensorBoardLogger):
    """Lightning's, in RUN/tensorboard. Where it cannot write, the run goes on without it: the curves are in a file."""

    def __init__(self, folder: Path):
        super().__init__(folder, TENSORBOARD, "")
        self._failed = False

    def _try(self, write: Callable[[], Any]) -> None:
        try:
            if not self._failed:
                write()
        except (OSError, RuntimeError, ValueError) as error:  # its writer's thread raises what it met some calls later
            self._failed = True
            _note(
                f"TensorBoard's files cannot be written: {first_line(error.__cause__ or error)}. The run goes "
                f"on; its curves: {CURVES}."
            )

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self._try(partial(super().log_metrics, metrics, step))

    @rank_zero_only
    def save(self) -> None:
        self._try(super().save)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self._try(partial(super().finalize, status))
