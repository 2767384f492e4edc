"""What a model answered on one split, with the scores that follow: saved so that nothing has to be run twice."""

import csv
import json
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from facerwkv.core import metrics
from facerwkv.core.errors import InputError
from facerwkv.core.files import atomic, read_json, write_text
from facerwkv.core.settings import Positive, Settings

TABLE, LOGITS, SUMMARY = "predictions.csv", "logits.npz", "evaluation.json"


class _Kept(Settings):
    """What `load` takes from SUMMARY; the scores are computed again."""

    labels: tuple[str, ...]
    temperature: Positive | None
    source: str
    split: str
    model: str


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A model's logits on one split, and the scores computed from them.

    labels: C names, in the order of the logits' columns. names: N, what each image is called. targets int64 (N,).
    logits float (N, C). temperature: divides the logits in predictions.csv; None where none was fitted.
    indices int64 (N,): the index of each image in its data set. meta: further entries for the summary.
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
        """Each score of metrics.SCORES that is defined here, with its 95 % interval."""
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
            **metrics.to_json(self.scores),
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
            table = csv.writer(file, lineterminator="\n")
            table.writerow(("name", "label", "predicted", "score", "correct", *(f"p_{label}" for label in self.labels)))
            for name, target, guess, probs in zip(self.names, self.targets, self.predictions, self.probs, strict=True):
                numbers = (f"{probs[guess]:.6f}", int(target == guess), *(f"{value:.6f}" for value in probs))
                table.writerow((name, self.labels[target], self.labels[guess], *numbers))
        self.save_logits(folder)
        write_text(folder / SUMMARY, json.dumps(self.summary(), indent=1, ensure_ascii=False, allow_nan=False) + "\n")

    def save_logits(self, folder: Path, dtype: type[np.floating] | None = None) -> None:
        """Write logits.npz; in another dtype, say float16, for answers that are kept for long."""
        logits = self.logits.astype(dtype or self.logits.dtype)
        with atomic(folder / LOGITS) as partial, partial.open("wb") as file:
            np.savez_compressed(
                file, names=np.array(self.names), targets=self.targets, logits=logits, indices=self.indices
            )

    @classmethod
    def load(cls, folder: str | Path) -> "Evaluation":
        """Read what `save` wrote. Raises InputError where a file is missing or damaged."""
        folder = Path(folder)
        try:
            summary = read_json(folder / SUMMARY)
            own = _Kept.parse({name: summary.pop(name) for name in _Kept.model_fields}, SUMMARY, strict=True)
            with np.load(folder / LOGITS, allow_pickle=False) as file:
                stored = {name: file[name] for name in ("names", "targets", "logits", "indices")}
            if not np.isin(stored["targets"], range(len(own.labels))).all():
                raise ValueError(f"{LOGITS} has targets that are no label's number")
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            reason = f" ({error})" if isinstance(error, InputError) else ""
            raise InputError(
                f"{folder} contains no evaluation: {SUMMARY} or {LOGITS} is missing or damaged{reason}. "
                "Make one with `facerwkv evaluate`."
            ) from error
        computed = {*metrics.SCORES, "n", "per_class", "confusion"}
        meta = {name: value for name, value in summary.items() if name not in computed}
        return cls(**dict(own), names=stored.pop("names").tolist(), **stored, meta=meta)
