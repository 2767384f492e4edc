"""Model + loader → stored logits → Evaluation: the numbers, saved so that nothing has to be run twice."""

import csv
import json
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import nn
from torch.utils.data import DataLoader

from facerwkv.core import metrics
from facerwkv.core.devices import choose_device
from facerwkv.core.errors import InputError
from facerwkv.core.files import atomic, write_text
from facerwkv.data.loader import DataModule
from facerwkv.data.transforms import TransformConfig, normalise
from facerwkv.models.checkpoint import Checkpoint

TABLE, LOGITS, SUMMARY = "predictions.csv", "logits.npz", "evaluation.json"
_SCORES = ("accuracy", "uar", "macro_f1", "ece", "ece_calibrated")


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a model answered on one split, and the scores that follow from it.

    labels: C names, in the order of the logits' columns. names: N, what each image is called. targets int64 (N,).
    logits float (N, C). temperature: divides the logits in predictions.csv; None where none was fitted.
    indices int64 (N,): the place of each image in its data set. meta: further entries for the summary.
    Raises InputError for no images, for logits that are not finite and for shapes that do not fit.
    """

    labels: tuple[str, ...]
    names: list[str]
    targets: np.ndarray
    logits: np.ndarray
    temperature: float | None = None
    source: str = ""
    split: str = "test"
    model: str = ""
    indices: np.ndarray = field(default=None)  # type: ignore[arg-type]  # all, in order
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        if not len(self.names):
            raise InputError(f"There are no images to score in {self.split} of {self.source}; choose another split.")
        if np.shape(self.logits) != (len(self.names), len(self.labels)) or len(self.targets) != len(self.names):
            raise InputError(
                f"Logits of shape {np.shape(self.logits)} and {len(self.targets)} targets do not fit {len(self.names)} "
                f"images of {len(self.labels)} classes; is this checkpoint made for these labels?"
            )
        metrics.require_finite(self.logits, self.names)
        if self.indices is None:
            object.__setattr__(self, "indices", np.arange(len(self.names)))

    @property
    def predictions(self) -> np.ndarray:
        return self.logits.argmax(-1)

    @property
    def confusion(self) -> np.ndarray:
        return metrics.confusion(self.targets, self.predictions, len(self.labels))

    @cached_property
    def probs(self) -> np.ndarray:
        """float64 (N, C) in 0..1, after the temperature where there is one: what `predict` shows."""
        return metrics.softmax(self.logits, self.temperature or 1.0)

    @cached_property
    def scores(self) -> dict[str, metrics.Score]:
        return metrics.scores(self.targets, self.logits, self.temperature)

    def summary(self) -> dict[str, Any]:
        """What `evaluate --json` prints: native numbers; None (null) where a score is not defined."""
        columns = metrics.per_class(self.confusion)
        rows = zip(*(values.tolist() for values in columns.values()), strict=True)
        return {
            **self.meta,
            "model": self.model,
            "source": self.source,
            "split": self.split,
            "n": len(self.names),
            **{name: self.scores[name].to_dict() if name in self.scores else None for name in _SCORES},
            "temperature": self.temperature,
            "labels": list(self.labels),
            "per_class": {
                label: {name: None if value != value else value for name, value in zip(columns, row, strict=True)}
                for label, row in zip(self.labels, rows, strict=True)
            },
            "confusion": self.confusion.tolist(),
        }

    def restrict(self, keep: Iterable[str] | np.ndarray) -> "Evaluation":
        """The evaluation of some of the images: those with these names, or where a mask (N,) of booleans is true."""
        if isinstance(keep, np.ndarray):
            rows = np.flatnonzero(keep)
        else:
            chosen = set(keep)
            rows = np.flatnonzero([name in chosen for name in self.names])
        return replace(
            self,
            names=[self.names[row] for row in rows],
            targets=self.targets[rows],
            logits=self.logits[rows],
            indices=self.indices[rows],
            meta={**self.meta, "restricted_from": len(self.names)},
        )

    def mistakes(self, limit: int) -> np.ndarray:
        """Rows of the wrong answers given with the highest probability, highest first."""
        wrong = np.flatnonzero(self.predictions != self.targets)
        return wrong[np.argsort(-self.probs[wrong].max(-1), kind="stable")][:limit]

    def save(self, folder: str | Path) -> None:
        """Write predictions.csv, logits.npz and, last, evaluation.json into `folder`, each whole or not at all."""
        folder = Path(folder)
        with (
            atomic(folder / TABLE) as partial,
            partial.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
        ):
            csv.writer(file, lineterminator="\n").writerows(self._table())
        with atomic(folder / LOGITS) as partial, partial.open("wb") as file:
            np.savez_compressed(
                file, names=np.array(self.names), targets=self.targets, logits=self.logits, indices=self.indices
            )
        write_text(folder / SUMMARY, json.dumps(self.summary(), indent=1, ensure_ascii=False, allow_nan=False) + "\n")

    @classmethod
    def load(cls, folder: str | Path) -> "Evaluation":
        """Read what `save` wrote. Raises InputError where a file is missing or damaged."""
        folder = Path(folder)
        try:
            summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
            with np.load(folder / LOGITS, allow_pickle=False) as file:
                stored = {name: file[name] for name in ("names", "targets", "logits", "indices")}
            own = {name: summary.pop(name) for name in ("temperature", "source", "split", "model")}
            labels = tuple(summary.pop("labels"))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(
                f"{folder} holds no evaluation: {SUMMARY} or {LOGITS} is missing or damaged. "
                "Make one with `facerwkv evaluate`."
            ) from error
        meta = {name: value for name, value in summary.items() if name not in {*_SCORES, "n", "per_class", "confusion"}}
        return cls(labels, names=stored.pop("names").tolist(), **stored, **own, meta=meta)

    def _table(self) -> Iterator[tuple]:
        yield ("name", "label", "predicted", "score", "correct", *(f"p_{label}" for label in self.labels))
        for name, target, guess, probs in zip(self.names, self.targets, self.predictions, self.probs, strict=True):
            yield (
                name,
                self.labels[target],
                self.labels[guess],
                f"{probs[guess]:.6f}",
                int(target == guess),
                *(f"{value:.6f}" for value in probs),
            )


@torch.inference_mode()
def run_logits(
    model: nn.Module,
    loader: DataLoader,
    transform: TransformConfig,
    device: str | torch.device = "cpu",
    progress: bool = True,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """logits float32 (N, C), targets int64 (N,) and indices int64 (N,) of every image of a loader, in its order.

    The batches hold {"image": uint8 (B, h, w, c), "target", "index"}; of soft targets (B, C) the largest counts. The
    model is put on the device and in evaluation mode; its mode is restored.
    """
    device = choose_device(device) if isinstance(device, str) else device
    was_training = model.training
    model.to(device).eval()
    batches = track(loader, "Evaluating", console=Console(stderr=True), transient=True, disable=not progress)
    parts = []
    try:
        for batch in batches:
            logits = model(normalise(batch["image"].to(device, non_blocking=True), transform))
            target = batch["target"]
            target = target.argmax(-1) if target.ndim == 2 else target
            parts.append((logits.float().cpu(), target.cpu().long(), batch["index"].cpu().long()))
    finally:
        model.train(was_training)
    if not parts:
        raise InputError("There are no images to evaluate; choose another split.")
    logits, targets, indices = (torch.cat(part).numpy() for part in zip(*parts, strict=True))
    return logits, targets, indices


def align_labels(
    logits: np.ndarray, targets: np.ndarray, model_labels: Sequence[str], data_labels: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...], np.ndarray]:
    """Score a model on a data set with other classes: only those that both know count.

    Returns logits (M, K) and targets (M,) of the K common classes in the model's order, their names, and the rows (M,)
    of the images kept: those whose true class the model knows. Raises InputError for fewer than two common classes.
    """
    common = tuple(label for label in model_labels if label in data_labels)
    if len(common) < 2:
        raise InputError(
            f"The model knows {', '.join(model_labels)}; the data set has {', '.join(data_labels)}: fewer than two "
            "classes in common, so there is nothing to score. Name the classes alike, or train on this data set."
        )
    number = np.array([common.index(label) if label in common else -1 for label in data_labels])[targets]
    rows = np.flatnonzero(number >= 0)
    columns = [list(model_labels).index(label) for label in common]
    return logits[rows][:, columns], number[rows], common, rows


def evaluate(
    checkpoint: Checkpoint,
    datamodule: DataModule,
    split: Literal["train", "val", "test"] = "test",
    device: str | torch.device = "cpu",
    temperature: Literal["checkpoint", "validation"] = "checkpoint",
    progress: bool = True,
    meta: dict[str, Any] | None = None,
) -> Evaluation:
    """Run a checkpoint over one split of a data set, without augmentation and in the order of its samples.

    temperature: the checkpoint's own (1.0 means that none was fitted), or fitted here on the validation split.
    Where the label sets differ, the summary's "ignored_labels" names the classes left out and "ignored_images" counts
    their images. Raises InputError for an empty split, for logits that are not finite and for images that are not
    prepared by the checkpoint's transform.
    """
    if datamodule.transform != checkpoint.transform:
        raise InputError(
            f"The images are prepared by {datamodule.transform!r}, but {checkpoint.title} was trained on "
            f"{checkpoint.transform!r}. Make the DataModule with the checkpoint's transform."
        )
    logits, targets, indices = _run_split(checkpoint, datamodule, split, device, progress)
    logits, targets, labels, rows = align_labels(logits, targets, checkpoint.labels, datamodule.labels)
    fitted = checkpoint.temperature
    if temperature == "validation":
        others = _run_split(checkpoint, datamodule, "val", device, progress)[:2] if split != "val" else None
        answers = align_labels(*others, checkpoint.labels, datamodule.labels)[:2] if others else (logits, targets)
        fitted = metrics.fit_temperature(*answers)
    meta = dict(meta or {})
    if left_out := sorted({*checkpoint.labels, *datamodule.labels} - set(labels)):
        meta |= {"ignored_labels": left_out, "ignored_images": len(indices) - len(rows)}
    samples = getattr(datamodule, split).samples
    return Evaluation(
        labels,
        [samples[index].name for index in indices[rows]],
        targets,
        logits,
        None if fitted == 1.0 else fitted,
        source=datamodule.config.source,
        split=split,
        model=checkpoint.title,
        indices=indices[rows],
        meta=meta,
    )


def _run_split(
    checkpoint: Checkpoint, datamodule: DataModule, split: str, device: str | torch.device, progress: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    config = datamodule.config
    loader = DataLoader(getattr(datamodule, split), batch_size=config.batch_size, num_workers=config.workers)
    return run_logits(checkpoint.model, loader, checkpoint.transform, device, progress)
