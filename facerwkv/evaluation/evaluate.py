"""Model + data → Evaluation and report: of a run after its training, or of any checkpoint on any data."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
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
from facerwkv.data.datasets import DATASETS
from facerwkv.data.leaks import copies_in_training
from facerwkv.data.load import load_dataset
from facerwkv.data.loader import DataConfig, DataModule
from facerwkv.data.record import Record, same_source
from facerwkv.data.samples import Scope, read_image
from facerwkv.data.transforms import TransformConfig, normalise
from facerwkv.evaluation.report import console_subgroups, console_table, write_report
from facerwkv.evaluation.result import SUMMARY, Evaluation
from facerwkv.evaluation.subgroups import Subgroups, choose_attributes, score_subgroups
from facerwkv.models.checkpoint import Checkpoint, load_checkpoint, reports_of, save_checkpoint
from facerwkv.training.run import SPLITS, read_run, run_of

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
        """One JSON object; `without_copies` has the same scores for those images, `subgroups` those by group."""
        extra = {} if self.without_copies is None else {"without_copies": self.without_copies.summary()}
        extra |= {} if self.subgroups is None else {"subgroups": self.subgroups.to_dict()}
        return self.evaluation.summary() | extra | {"report": str(self.report)}

    def print(self) -> None:
        console = Console()
        console.print(console_table(self.evaluation))
        if self.without_copies is not None:
            console.print(f"\n{WITHOUT_COPIES}: {len(self.without_copies.names)} of {len(self.evaluation.names)}")
            console.print(console_table(self.without_copies))
        if self.subgroups is not None:
            console.print(console_subgroups(self.subgroups))
        console.print(f"\nThe report: {self.report}")


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
    split: Split = "test",
    device: str | torch.device = "cpu",
    temperature: Literal["checkpoint", "validation"] = "checkpoint",
    progress: bool = True,
    meta: dict[str, Any] | None = None,
) -> Evaluation:
    """Run a checkpoint over one split of a data set, without augmentation and in the order of its samples.

    temperature: the checkpoint's own (1.0 means that none was fitted), or fitted here on the validation split.
    The summary's "without_box" counts the images in which a model that looks at faces had no face's box, "trained_on"
    those that it was trained on, and "changed" is a sentence where the data have changed since. Where the label sets
    differ, "ignored_labels" names the classes left out and "ignored_images" counts their images. Raises
    InputError for an empty split, for logits that are not finite and for images that are not prepared by the
    checkpoint's transform.
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
    for name in ("without_box", "trained_on"):
        if count := getattr(datamodule, name).get(split):
            meta[name] = count
    if datamodule.changed:
        meta["changed"] = datamodule.changed
    samples = datamodule.images(split).samples
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
    checkpoint: Checkpoint, datamodule: DataModule, split: Scope, device: str | torch.device, progress: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    config = datamodule.config
    loader = DataLoader(datamodule.images(split), batch_size=config.batch_size, num_workers=config.workers)
    return run_logits(checkpoint.model, loader, checkpoint.transform, device, progress)


def finish(folder: str | Path, progress: bool = True) -> Path:
    """Fit the temperature of a run's chosen checkpoint on its validation images, store it and the scores with it.

    Returns the report, RUN/val/report.html.
    """
    folder = Path(folder)
    part = read_run(folder).train
    chosen = folder / part.select
    checkpoint = load_checkpoint(chosen)
    data = _data(checkpoint, folder, None)
    scored = evaluate(checkpoint, data, "val", part.device, temperature="validation", progress=progress)
    card = checkpoint.card | {"metrics": {"val": scored.summary()}}
    temperature = scored.temperature or 1.0
    save_checkpoint(chosen, replace(checkpoint, temperature=temperature, card=card))
    return write_report(scored, folder / "val", run=folder, images=_reader(data, "val"))


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
    data = _data(checkpoint, model, source)
    attributes = [sample.attributes for sample in data.images(split).samples]
    chosen = choose_attributes(subgroups, attributes, data.config.source) if subgroups is not None else ()
    scored = evaluate(checkpoint, data, split, device)
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
        run=run_of(model),
        images=_reader(data, split),
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
    scores = dict(checkpoint.card.get("metrics", {}))
    if (folder / "test" / SUMMARY).is_file():
        scores["test"] = Evaluation.load(folder / "test").summary()
    name_of_data = checkpoint.card.get("data", {}).get("source", "").partition(":")[0]
    terms = DATASETS[name_of_data].terms if name_of_data in DATASETS else "the data are not recorded."
    licence = "Apache-2.0" if name_of_data == "toy" else f"research only: {terms}"
    packed = replace(checkpoint, card=checkpoint.card | {"metrics": scores, "licence": licence})
    packed.save_pretrained(out, half, name)
    return packed


def _data(checkpoint: Checkpoint, model: str | Path, source: str | None) -> DataModule:
    """The data under the checkpoint's transform: its own, wherever it is, as in training; others as in prediction."""
    recipe = checkpoint.card.get("recipe", {})
    stored = DataConfig.parse(recipe.get("data", {}), where="card.recipe.data")
    run = run_of(model)
    record = Record(run / SPLITS) if run and (run / SPLITS).is_file() else None
    source = source or stored.source
    own = same_source(source, stored.source)
    if not own and record and source.partition(":")[0] == stored.source.partition(":")[0]:  # a copy, or the place moved
        splits = load_dataset(source, known=checkpoint.labels).splits
        own = record.covers([sample for those in splits.values() for sample in those])
    config = stored if own else DataConfig()
    config = config.model_copy(update={"source": source, "drop_leaks": False})
    seed = int(recipe.get("train", {}).get("seed", 0))
    data = DataModule(config, checkpoint.transform, seed, record, checkpoint.labels, foreign=not own)
    data.setup()
    return data


def _reader(data: DataModule, split: Split) -> Callable[[int], np.ndarray]:
    """Index in a split → its image."""
    samples = data.images(split).samples
    return lambda index: read_image(samples[index])
