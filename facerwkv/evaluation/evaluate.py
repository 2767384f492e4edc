"""Model + data → Evaluation and report: of a run after its training, or of any checkpoint on any data."""

import hashlib
import logging
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import nn
from torch.utils.data import DataLoader

from facerwkv.core import metrics
from facerwkv.core.devices import choose_device
from facerwkv.core.errors import InputError
from facerwkv.data.leaks import copies_in_training
from facerwkv.data.load import load_dataset
from facerwkv.data.loader import DataConfig, DataModule
from facerwkv.data.normalise import normalise
from facerwkv.data.readers import meaning
from facerwkv.data.record import Record, same_source
from facerwkv.data.samples import Scope, read_image
from facerwkv.data.transforms import TransformConfig
from facerwkv.data.views import COUNTS, Views, views
from facerwkv.evaluation.ablation import Ablation, Variants
from facerwkv.evaluation.report import console_ablation, console_subgroups, console_table, write_report
from facerwkv.evaluation.result import SUMMARY, Evaluation
from facerwkv.evaluation.subgroups import Subgroups, choose_attributes, score_subgroups
from facerwkv.models.card import known_licence, licence_of_training
from facerwkv.models.checkpoint import load_checkpoint, save_checkpoint
from facerwkv.models.folder import Checkpoint, reports_of
from facerwkv.training.recipe import apply
from facerwkv.training.run import SPLITS, read_run, run_of

WITHOUT_COPIES = "without the images that have a copy in training"
Split = Scope
READING = {"batch_size", "workers", "cache", "balance", "drop_leaks"}
"""Settings of data that change no score of an evaluation."""
_note = logging.getLogger(__name__).warning


@dataclass(frozen=True)
class Scored:
    """An evaluation, the report's file, and where asked for the images without a copy in training, the
    subgroups and the model with parts switched off."""

    evaluation: Evaluation
    report: Path
    without_copies: Evaluation | None = None
    subgroups: Subgroups | None = None
    ablation: Ablation | None = None

    def to_dict(self) -> dict[str, Any]:
        """One JSON object; `without_copies` has the same scores for those images, `subgroups` those by group,
        `ablation` those with parts switched off."""
        extra = {} if self.without_copies is None else {"without_copies": self.without_copies.summary()}
        extra |= {} if self.subgroups is None else {"subgroups": self.subgroups.to_dict()}
        extra |= {} if self.ablation is None else {"ablation": self.ablation.to_dict()}
        return self.evaluation.summary() | extra | {"report": str(self.report)}

    def print(self) -> None:
        console = Console(markup=False)
        console.print(console_table(self.evaluation))
        if self.without_copies is not None:
            console.print(f"\n{WITHOUT_COPIES}: {len(self.without_copies.names)} of {len(self.evaluation.names)}")
            console.print(console_table(self.without_copies))
        if self.subgroups is not None:
            console.print(console_subgroups(self.subgroups))
        if self.ablation is not None:
            console.print(console_ablation(self.ablation))
        console.print(f"\nThe report: {self.report}")


@torch.inference_mode()
def run_logits(
    model: nn.Module,
    loader: DataLoader,
    transform: TransformConfig,
    device: str | torch.device = "cpu",
    progress: bool = True,
    tta: Views = "none",
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """logits float32 (N, C), targets int64 (N,) and indices int64 (N,) of every image of a loader, in its order.

    The batches hold {"image": uint8 (B, h, w, c), "target", "index"}; of soft targets (B, C) the largest counts; with
    `tta` the logits are means over views of each image. The
    model is put on the device and in evaluation mode; its mode is restored.
    """
    device = choose_device(device) if isinstance(device, str) else device
    was_training = model.training
    model.to(device).eval()
    batches = track(loader, "Evaluating", console=Console(stderr=True), transient=True, disable=not progress)
    parts = []
    try:
        for batch in batches:
            images = batch["image"].to(device, non_blocking=True)
            logits = sum(model(normalise(view, transform)) for view in views(images, tta)) / COUNTS[tta]
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
    """Score a model on a data set with other classes: only those that both know, by whatever name, count.

    Returns logits (M, K) and targets (M,) of the K common classes in the model's order, their names, and the rows (M,)
    of the images kept: those whose true class the model knows. Raises InputError for fewer than two common classes.
    """
    meanings = [meaning(label) for label in data_labels]
    common = tuple(label for label in model_labels if meaning(label) in meanings)
    if len(common) < 2:
        raise InputError(
            f"The model knows {', '.join(model_labels)}; the data set has {', '.join(data_labels)}: fewer than two "
            "classes in common, so there is nothing to score. Name the classes alike, or train on this data set."
        )
    names = [meaning(label) for label in common]
    number = np.array([names.index(name) if name in names else -1 for name in meanings])[targets]
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
    tta: Views = "none",
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
    logits, targets, indices = _run_split(checkpoint, datamodule, split, device, progress, tta)
    logits, targets, labels, rows = align_labels(logits, targets, checkpoint.labels, datamodule.labels)
    fitted = checkpoint.temperature
    if temperature == "validation":
        others = _run_split(checkpoint, datamodule, "val", device, progress, tta)[:2] if split != "val" else None
        answers = align_labels(*others, checkpoint.labels, datamodule.labels)[:2] if others else (logits, targets)
        fitted = metrics.fit_temperature(*answers)
    meta = dict(meta or {}) | ({} if tta == "none" else {"tta": tta})
    scored = set(map(meaning, labels))
    if left_out := sorted({each for each in (*checkpoint.labels, *datamodule.labels) if meaning(each) not in scored}):
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
    checkpoint: Checkpoint,
    datamodule: DataModule,
    split: Scope,
    device: str | torch.device,
    progress: bool,
    tta: Views = "none",
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    config = datamodule.config
    loader = DataLoader(datamodule.images(split), batch_size=config.batch_size, num_workers=config.workers)
    return run_logits(checkpoint.model, loader, checkpoint.transform, device, progress, tta)


def finish(folder: str | Path, progress: bool = True) -> Path:
    """Fit the temperature of a run's chosen checkpoint on its validation images, store it and the scores with it.

    Returns the report, RUN/val/report.html.
    """
    folder = Path(folder)
    part = read_run(folder).train
    chosen = folder / part.select
    checkpoint = load_checkpoint(chosen)
    data, _ = _data(checkpoint, folder, None, quiet=True)
    scored = evaluate(checkpoint, data, "val", part.device, temperature="validation", progress=progress)
    card = checkpoint.card | {"metrics": {"val": scored.summary()}}
    temperature = scored.temperature or 1.0
    save_checkpoint(chosen, replace(checkpoint, temperature=temperature, card=card))
    return write_report(scored, folder / "val", run=folder, images=_reader(data, "val"))


def evaluate_folder(
    model: str | Path,
    source: str | None = None,
    split: Split | None = None,
    out: str | Path | None = None,
    device: str = "auto",
    without_copies: bool = False,
    subgroups: str | None = None,
    changes: Sequence[str] = (),
    ablate: bool = False,
    tta: Views = "none",
) -> Scored:
    """Score a checkpoint, or a run's, on a split of a data set ("NAME:ROOT"; None: the one it was trained on).

    split: by default test; all images of other data that have no test. The report goes to `out`, by default
    MODEL/SPLIT, and MODEL/SPLIT_DATA for other data than the model's own; MODEL is runs/NAME for a shipped one or
    "hf-hub:ORG/NAME". subgroups: attributes to score by, "gender,age" or "all". changes: "data.KEY=VALUE", as for a
    recipe. ablate: also with parts of the model's blocks switched off. tta: logits are averaged over views of each
    image; the report then goes to MODEL/SPLIT[_DATA]_TTA. InputError for attributes that the data lack,
    for changes of anything but the data, and to ablate a model without such blocks.
    """
    checkpoint = load_checkpoint(model)
    choose_device(device)  # before images are read
    variants = Variants(checkpoint.model, checkpoint.title) if ablate else None
    data, place = _data(checkpoint, model, source, changes)
    split = split or ("all" if data.foreign and "test" not in data.dataset.splits else "test")
    copies: set[str] = set()
    if without_copies:
        if split == "all":
            raise InputError("All images include those of training. Look for their copies in one split: --split test.")
        copies = copies_in_training(data.dataset, split)
    attributes = [sample.attributes for sample in data.images(split).samples]
    chosen = choose_attributes(subgroups, attributes, data.config.source) if subgroups is not None else ()
    meta = {"own_data": not place} | ({"changes": list(changes)} if changes else {})
    scored = evaluate(checkpoint, data, split, device, meta=meta, tta=tta)
    kept = scored.restrict(np.array([name not in copies for name in scored.names])) if without_copies else None
    by_group = score_subgroups(scored, [attributes[index] for index in scored.indices], chosen) if chosen else None
    ablation = _ablate(checkpoint, variants, data, scored, device, tta) if variants else None
    folder = reports_of(model)
    folder = folder.parent if folder.is_file() else folder
    target = Path(out) if out else folder / f"{split}{place}{'' if tta == 'none' else f'_{tta}'}"
    if kept:
        kept.save(target / "without_copies")
    report = write_report(
        scored,
        target,
        run=run_of(model),
        images=_reader(data, split),
        selections={WITHOUT_COPIES: kept} if kept else None,
        subgroups=by_group,
        ablation=ablation,
    )
    return Scored(scored, report, kept, by_group, ablation)


def _ablate(
    checkpoint: Checkpoint, variants: Variants, data: DataModule, whole: Evaluation, device: str, tta: Views
) -> Ablation:
    """The variants' answers on the images of the whole model's evaluation, among the classes that it scored."""
    logits = _run_split(replace(checkpoint, model=variants), data, cast(Split, whole.split), device, True, tta)[0]
    columns = [checkpoint.labels.index(label) for label in whole.labels]
    kept = logits[whole.indices][..., columns]
    by_name = {name: kept[:, number] for number, name in enumerate(variants.names)}
    return Ablation.of(whole.logits, by_name, whole.targets)


def pack(folder: str | Path, out: str | Path, half: bool = False, name: str | None = None) -> Checkpoint:
    """Write a run's chosen checkpoint for others, its card with the scores in RUN/test where they are of its own data.

    The licence is that of training: the terms of the data and of the weights it started from. See
    Checkpoint.save_pretrained.
    """
    folder = Path(folder)
    checkpoint = load_checkpoint(folder)
    scores = dict(checkpoint.card.get("metrics", {}))
    source = checkpoint.card.get("data", {}).get("source", "")
    if (folder / "test" / SUMMARY).is_file():
        summary = Evaluation.load(folder / "test").summary()
        own = summary.pop("own_data", same_source(summary["source"], source)) and summary["split"] == "test"
        own = own and "tta" not in summary
        scores |= {"test": summary} if own else {}
        if not own:
            _note(
                f"{folder / 'test'} was scored on {summary['source']}, not on the run's test as it is: not on the card."
            )
    licence = known_licence(checkpoint.card) or licence_of_training(source)
    packed = replace(checkpoint, card=checkpoint.card | {"metrics": scores, "licence": licence})
    packed.save_pretrained(out, half, name)
    return packed


def _data(
    checkpoint: Checkpoint, model: str | Path, source: str | None, changes: Sequence[str] = (), quiet: bool = False
) -> tuple[DataModule, str]:
    """The data under the checkpoint's transform: its own, wherever it is, as in training; others as in prediction.

    And an ending for the name of a folder of results, "" for the model's own data as they were in training.
    """
    recipe = checkpoint.card.get("recipe", {})
    stored = DataConfig.parse(recipe.get("data", {}), where="card.recipe.data")
    run = run_of(model)
    record = Record(run / SPLITS) if run and (run / SPLITS).is_file() else None
    place = Path(os.path.expanduser(stored.source.partition(":")[2]))
    if source is None and not (place.exists() or stored.source.startswith("toy")):
        kind = stored.source.partition(":")[0]
        raise InputError(
            f"{checkpoint.title} was trained on {stored.source}, which is not here. Say where it is now: "
            f"--data {kind}:PATH."
        )
    source = _changed(DataConfig.parse({"source": source or stored.source}, where="data"), changes).source
    own = same_source(source, stored.source)
    if not own and record and source.partition(":")[0] == stored.source.partition(":")[0]:  # a copy, or the place moved
        splits = load_dataset(source, known=checkpoint.labels).splits
        own = record.covers([sample for those in splits.values() for sample in those])
    base = (stored if own else DataConfig()).model_copy(update={"source": source, "drop_leaks": False})
    config = _changed(base, changes)
    fixed = ("split", "validation", "val_fraction", "test_fraction", "folds", "fold", "by")
    if own and record and any(getattr(config, name) != getattr(base, name) for name in fixed):
        raise InputError(
            f"The splits of the run's own data are those of its training, {run}/{SPLITS}: data.{', data.'.join(fixed)} "
            "cannot change them. Leave them out, or score all images: --split all."
        )
    seed = int(recipe.get("train", {}).get("seed", 0))
    data = DataModule(config, checkpoint.transform, seed, record, checkpoint.labels, not own, quiet)
    data.setup()
    as_trained = own and config.model_dump(exclude=READING) == base.model_dump(exclude=READING)
    return data, "" if as_trained else _slug(config)


def _changed(config: DataConfig, changes: Sequence[str]) -> DataConfig:
    """The configuration with "data.KEY=VALUE" applied."""
    if wrong := [change for change in changes if not re.match(r"data[.=]", change)]:
        raise InputError(
            f"{wrong[0]!r} does not change the data; the rest is the checkpoint's own. Write data.KEY=VALUE, say "
            "data.boxes=detect."
        )
    values = {"data": config.model_dump(mode="json")}
    apply(values, changes)
    return DataConfig.parse(values["data"], where="data")


def _slug(config: DataConfig) -> str:
    """For a folder's name: the same for the same place and settings, another for every other."""
    name, _, path = config.source.partition(":")
    what = f"{name}:{Path(os.path.expanduser(path)).resolve()} {config.model_dump_json(exclude=READING | {'source'})}"
    digest = hashlib.sha256(what.encode(errors="surrogateescape")).hexdigest()[:6]
    return re.sub(r"[^\w.-]+", "_", f"_{name}_{Path(path).name}_{digest}")


def _reader(data: DataModule, split: Split) -> Callable[[int], np.ndarray]:
    """Index in a split → its image."""
    samples = data.images(split).samples
    return lambda index: read_image(samples[index])
