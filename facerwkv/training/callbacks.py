"""What happens around the loop: checkpoints, resume points, one line per epoch."""

import math
import time
import zipfile
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, callbacks
from rich.console import Console

from facerwkv.core.errors import InputError, first_line
from facerwkv.core.files import atomic
from facerwkv.core.metrics import of_confusion
from facerwkv.data.loader import DataModule
from facerwkv.models.arrays import DAMAGED
from facerwkv.models.card import licence_of_training
from facerwkv.models.checkpoint import require_weights, save_checkpoint
from facerwkv.models.folder import Checkpoint
from facerwkv.training.run import RECIPE, RESUME, leads


class Saver(callbacks.Checkpoint):  # Lightning runs these after all other callbacks, whose state is saved too
    """Writes best/ (where the recipe selects the best epoch), last/ and resume.ckpt, each whole or not at all.

    Checkpoints have the module's `evaluated` weights. The resume file is written every `save_every` steps inside an
    epoch and after each epoch.
    """

    def __init__(self, folder: Path, module: Any, data: DataModule, starts: Mapping[str, str] | None = None):
        """`starts`: the weights that training started from, name → licence."""
        self.folder, self.module, self.data, self.part = folder, module, data, module.recipe.train
        self.starts = dict(starts or {})
        self.best = -math.inf
        module.written = (folder / "last").exists()

    def save(self, folder: Path, scores: dict[str, float | None]) -> None:
        recipe = self.module.recipe
        card = {"data": self.data.describe(), "validation": scores, "recipe": recipe.model_dump(mode="json")}
        card["licence"] = licence_of_training(recipe.data.source, self.starts)
        model = Checkpoint(self.module.evaluated, recipe.model.name, self.data.labels, recipe.transform, card=card)
        save_checkpoint(folder, model)
        self.module.written = True

    def state_dict(self) -> dict[str, float]:
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        self.best = state_dict["best"]

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        last = index + 1 == trainer.num_training_batches
        batches = (self.part.save_every or 0) * self.part.accumulate
        if batches and not last and (index + 1) % batches == 0:
            self._write_resume(trainer)

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        values = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val_")}
        scores = {name: value if math.isfinite(value) else None for name, value in values.items()}
        score = values[f"val_{self.part.monitor}"]  # NaN, where it is not defined, is better than nothing only
        if trainer.is_global_zero:
            self.save(self.folder / "last", scores | {"epoch": trainer.current_epoch})
            first = not (self.folder / "best").exists()
            if self.part.select == "best" and (score > self.best or first):
                self.save(self.folder / "best", scores | {"epoch": trainer.current_epoch})
        self.best = max(self.best, score)
        self._write_resume(trainer)

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        if isinstance(exception, KeyboardInterrupt) and trainer.is_global_zero:
            self.save(self.folder / "last", {"epoch": trainer.current_epoch})

    def _write_resume(self, trainer: Trainer) -> None:
        """Every process of a training takes part; the first writes."""
        with atomic(self.folder / RESUME) if trainer.is_global_zero else nullcontext(self.folder / RESUME) as file:
            trainer.save_checkpoint(file)


def read_step(path: Path, module: LightningModule) -> int:
    """The step after which a resume file was written. InputError where it is damaged, or of another model."""
    try:
        with zipfile.ZipFile(path) as file:
            if broken := file.testzip():
                raise ValueError(f"{broken} in it is")
        point = torch.load(path, map_location="cpu", weights_only=True)
        weights, step = point["state_dict"], int(point["global_step"])
    except (*DAMAGED, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is damaged ({first_line(error)}), so the run cannot be resumed from it. Remove it to train this "
            f"run again from its start, or start a new one: facerwkv train --init-from {path.parent}."
        ) from error
    require_weights(module, weights, f"{path}, of a run whose {RECIPE} was changed,")
    return step


class Stopwatch(Callback):
    """The seconds spent in training and validation, those before an interruption included."""

    def __init__(self) -> None:
        self.before = 0.0
        self.started: float | None = None

    @property
    def seconds(self) -> float:
        return self.before + (0.0 if self.started is None else time.perf_counter() - self.started)

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.started = time.perf_counter()

    def state_dict(self) -> dict[str, float]:
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        self.before = state_dict["seconds"]


class EpochLines(Callback):
    """Prints one line per epoch, on a terminal or in a log file."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, markup=False, highlight=False, quiet=not leads())
        self.started = time.perf_counter()

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.started = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        scores = [f"{metric.title} {metric.number(values[f'val_{name}'])}" for name, metric in of_confusion().items()]
        self.console.print(
            f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
            f"  train loss {values['train_loss']:.3f}  validation loss {values['val_loss']:.3f}"
            f"  {'  '.join(scores)}"
            f"  {time.perf_counter() - self.started:.0f} s",
            soft_wrap=True,
        )
