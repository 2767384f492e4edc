"""What follows the training: temperature, scores, report; and the same for a checkpoint on any data."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from facerwkv.core.devices import choose_device
from facerwkv.core.labels import EXPRESSIONS_8
from facerwkv.data.datasets import DATASETS, read_image
from facerwkv.data.leaks import copies_in_training
from facerwkv.data.loader import DataConfig, DataModule, ImageDataset
from facerwkv.evaluation.evaluate import SUMMARY, Evaluation, evaluate
from facerwkv.evaluation.report import console_subgroups, console_table, write_report
from facerwkv.evaluation.subgroups import Subgroups, choose_attributes, score_subgroups
from facerwkv.models.checkpoint import Checkpoint, load_checkpoint, reports_of, save_checkpoint
from facerwkv.training.run import RECIPE, read_run

WITHOUT_COPIES = "without the images that have a copy in training"
Split = Literal["train", "val", "test"]


@dataclass(frozen=True)
class Scored:
    """An evaluation, the report's file, and where asked for the images without a copy in training and the subgroups."""

    evaluation: Evaluation
    report: Path
    without_copies: Evaluation | None = None
    subgroups: Subgroups | None = None

    def to_dict(self) -> dict[str, Any]:
        """One JSON object; `without_copies` holds the same scores for those images, `subgroups` those by group."""
        extra = {} if self.without_copies is None else {"without_copies": self.without_copies.summary()}
        extra |= {} if self.subgroups is None else {"subgroups": self.subgroups.to_dict()}
        return self.evaluation.summary() | extra | {"report": str(self.report)}

    def print(self) -> None:
        from rich.console import Console

        console = Console()
        console.print(console_table(self.evaluation))
        if self.without_copies is not None:
            console.print(f"\n{WITHOUT_COPIES}: {len(self.without_copies.names)} of {len(self.evaluation.names)}")
            console.print(console_table(self.without_copies))
        if self.subgroups is not None:
            console.print(console_subgroups(self.subgroups))
        console.print(f"\nThe report: {self.report}")


def finish(folder: str | Path, progress: bool = True) -> Path:
    """Fit the temperature of a run's chosen checkpoint on its validation images, store it and the scores with it.

    Returns the report, RUN/val/report.html.
    """
    folder = Path(folder)
    part = read_run(folder).train
    chosen = folder / part.select
    checkpoint = load_checkpoint(chosen)
    data = _data(checkpoint, None)
    device = choose_device(part.device)
    scored = evaluate(checkpoint, data, "val", device, temperature="validation", progress=progress)
    card = checkpoint.card | {"metrics": {"val": scored.summary()}}
    temperature = scored.temperature or 1.0
    save_checkpoint(chosen, replace(checkpoint, temperature=temperature, card=card))
    return write_report(scored, folder / "val", run=folder, images=_images(data.val))


def evaluate_folder(
    model: str | Path,
    source: str | None = None,
    split: Split = "test",
    out: str | Path | None = None,
    device: str = "auto",
    without_copies: bool = False,
    subgroups: str | None = None,
) -> Scored:
    """Score a checkpoint, or a run's, on a split of a data set ("NAME:ROOT"; None: the one it was trained on).

    The report goes to `out`, by default MODEL/SPLIT, and runs/NAME/SPLIT for a shipped model or
    "hf-hub:ORG/NAME". subgroups: attributes to score by, "gender,age" or "all". InputError for one that the data lack.
    """
    checkpoint = load_checkpoint(model)
    data = _data(checkpoint, source)
    attributes = [sample.attributes for sample in getattr(data, split).samples]
    chosen = choose_attributes(subgroups, attributes, data.config.source) if subgroups is not None else ()
    scored = evaluate(checkpoint, data, split, choose_device(device))
    kept = None
    if without_copies:
        copies = copies_in_training(data.dataset, split)
        kept = scored.restrict(np.array([name not in copies for name in scored.names]))
    by_group = score_subgroups(scored, [attributes[index] for index in scored.indices], chosen) if chosen else None
    folder = reports_of(model)
    target = Path(out) if out else folder / split
    if kept:
        kept.save(target / "without_copies")
    report = write_report(
        scored,
        target,
        run=folder if (folder / RECIPE).is_file() else None,
        images=_images(getattr(data, split)),
        selections={WITHOUT_COPIES: kept} if kept else None,
        subgroups=by_group,
    )
    return Scored(scored, report, kept, by_group)


def pack(folder: str | Path, out: str | Path, half: bool = False, name: str | None = None) -> Checkpoint:
    """Write a run's chosen checkpoint for others, its card with the scores in RUN/test where there are any.

    The licence follows from the terms of the data it was trained on. See Checkpoint.save_pretrained.
    """
    folder = Path(folder)
    checkpoint = load_checkpoint(folder)
    metrics = dict(checkpoint.card.get("metrics", {}))
    if (folder / "test" / SUMMARY).is_file():
        metrics["test"] = Evaluation.load(folder / "test").summary()
    terms = _licence(checkpoint.card.get("data", {}).get("source", ""))
    packed = replace(checkpoint, card=checkpoint.card | {"metrics": metrics, "licence": terms})
    packed.save_pretrained(out, half, name)
    return packed


def _licence(source: str) -> str:
    name = source.partition(":")[0]
    if name == "toy":
        return "Apache-2.0"
    return f"research only: {DATASETS[name].terms if name in DATASETS else 'the data are not recorded.'}"


def _data(checkpoint: Checkpoint, source: str | None) -> DataModule:
    """The data under the checkpoint's transform; its own data set is split as it was in training."""
    recipe = checkpoint.card.get("recipe", {})
    stored = DataConfig.parse(recipe.get("data", {}), where="card.recipe.data")
    config = stored if source in (None, stored.source) else DataConfig(source=source or "toy")
    if not set(checkpoint.labels) <= set(EXPRESSIONS_8):
        config = config.model_copy(update={"labels": checkpoint.labels})
    data = DataModule(config.model_copy(update={"drop_leaks": False}), checkpoint.transform, _seed(recipe))
    data.setup()
    return data


def _seed(recipe: dict[str, Any]) -> int:
    return int(recipe.get("train", {}).get("seed", 0))


def _images(dataset: ImageDataset) -> Callable[[int], np.ndarray]:
    return lambda index: read_image(dataset.samples[index])
