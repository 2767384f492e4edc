"""Samples → batches: the images of a split, and the LightningDataModule of all splits."""

import logging
import os
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from facerwkv.core.errors import InputError
from facerwkv.core.files import cache_folder
from facerwkv.data.boxes import DETECT, with_faces
from facerwkv.data.cache import Cache, open_cache
from facerwkv.data.config import DataConfig, TransformConfig
from facerwkv.data.leaks import apart, drop_leaks
from facerwkv.data.load import load_dataset
from facerwkv.data.record import Record
from facerwkv.data.sampler import SeededSampler, TrainLoader
from facerwkv.data.samples import Dataset, Sample, Scope, Splits, read_image
from facerwkv.data.splits import blocks_apart, split_folds, split_validation
from facerwkv.data.transforms import EvalTransform

NO_BOX = {
    "whole": "there the whole image counts as the face",
    "centre": "there the image's middle counts as the face",
    "error": "they are left out",
}
SHOWN = 3  # problems of a data set that are printed


Item = dict[str, Tensor]
_note = logging.getLogger(__name__).warning


class ImageDataset(TorchDataset):
    """The images of one split: {"image": uint8 (h, w, c), "target", "index": int64}.

    index: the sample's position. target: the class number in `labels`, int64; or, where samples carry votes,
    probabilities, float32 (C,). Images that the cache could not read are left out. Without a cache every access
    decodes: an unreadable image then raises UnreadableImage, and a batch (`__getitems__`, what DataLoader asks for)
    leaves it out, with a note.
    """

    def __init__(
        self, samples: Sequence[Sample], labels: Sequence[str], transform: TransformConfig, cache: Cache | None = None
    ):
        left_out = cache.unreadable if cache else {}
        self.rows = [row for row in range(len(samples)) if row not in left_out]
        self.samples = [samples[row] for row in self.rows]
        self.labels, self.transform, self.cache = tuple(labels), EvalTransform(transform), cache
        number = {label: index for index, label in enumerate(labels)}
        for sample in self.samples:
            if sample.label not in number:
                raise InputError(
                    f"{sample.name} is labelled {sample.label!r}, which is none of the classes {', '.join(labels)}. "
                    "Name all classes: data.labels=[first, second, ...]."
                )
        self.classes = torch.tensor([number[sample.label] for sample in self.samples], dtype=torch.int64)
        self.class_counts: list[int] = torch.bincount(self.classes, minlength=len(self.labels)).tolist()
        """The number of images of each class, in the order of `labels`."""
        self.targets = self.classes
        if any(sample.votes for sample in samples):  # one without is sure of its label
            votes = [sample.votes or {sample.label: 1.0} for sample in self.samples]
            table = torch.tensor([[vote.get(label, 0.0) for label in labels] for vote in votes])
            self.targets = table / table.sum(1, keepdim=True)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Item:
        image = torch.from_numpy(self.image(index))
        return {"image": image, "target": self.targets[index], "index": torch.tensor(index)}

    def __getitems__(self, indices: Sequence[int]) -> list[Item]:
        items, problems = [], []
        for index in indices:
            try:
                items.append(self[index])
            except InputError as error:
                problems.append(str(error))
        if not items:
            raise InputError(f"None of the images of a batch can be read. The first: {problems[0]}")
        for problem in problems:
            _note(f"Left out: {problem}")
        return items

    def image(self, index: int) -> np.ndarray:
        """The model's input before normalisation: uint8 (h, w, c), a copy."""
        if self.cache is not None:
            with suppress(OSError):  # it was removed, say by facerwkv data cache remove
                return self.cache.image(self.rows[index])
        sample = self.samples[index]
        return np.array(self.transform(read_image(sample), sample.box))


class DataModule(LightningDataModule):
    """The splits of a data set as batches {"image": uint8 (B, h, w, c), "target": (B,) or (B, C), "index": (B,)}.

    `dataset` holds the samples as they are split; `train`, `val` and `test` are ImageDatasets, made (and cached) when
    they are first asked for. record: the splits of an earlier training, which hold again. known: the labels of a model
    to be scored, see load_dataset. foreign: it was trained on other data: what it was trained on is left out by the
    record, classes without images do not count, and images without a box get the detector's where the model looks at
    faces, as in prediction. quiet: what was left out has been said. InputError for a split that the data set lacks and
    for a class without training images.
    """

    def __init__(
        self,
        config: DataConfig,
        transform: TransformConfig,
        seed: int = 0,
        record: Record | None = None,
        known: Sequence[str] | None = None,
        foreign: bool = False,
        quiet: bool = False,
    ):
        super().__init__()
        self.config, self.transform, self.seed = config, transform, seed
        self.record, self.known, self.foreign, self.quiet = record, known, foreign, quiet
        self._made: dict[str, ImageDataset] = {}
        self.unreadable: list[str] = []
        """The images that were left out, with the reason."""
        self.without_box: dict[str, int] = {}
        """For a model that looks at faces: how many images of a split have no face's box."""
        self.trained_on: dict[str, int] = {}
        """How many images of a split a model was trained on: left out, except of train and all."""
        self.changed = ""
        """A sentence where the data are no longer those of `record`."""
        self.dropped_leaks = 0
        """How many training images `dataset` dropped."""

    def setup(self, stage: str | None = None) -> None:
        """Read the lists of images; for the stages fit, validate and test also the images themselves."""
        splits = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}.get(stage or "", ())
        for split in splits or ("dataset",):
            getattr(self, split)

    @cached_property
    def loaded(self) -> Dataset:
        """The samples in the data set's own splits. Its problems are printed."""
        config = self.config
        dataset = load_dataset(
            config.source, labels=config.labels, rename=config.rename, boxes=config.boxes, known=self.known
        )
        for problem in dataset.problems[:SHOWN]:
            self._say(problem)
        if (more := len(dataset.problems) - SHOWN) > 0:
            self._say(f"And {more} more such lines; all: facerwkv data check {config.source}")
        if self.foreign:
            there = {sample.label for those in dataset.splits.values() for sample in those}
            dataset = replace(dataset, labels=tuple(label for label in dataset.labels if label in there))
        return dataset

    @cached_property
    def dataset(self) -> Dataset:
        """The samples of every split: validation taken from training where there is none, leaks dropped if asked."""
        config, dataset = self.config, self.loaded
        splits = dict(dataset.splits)
        if config.split == "blocks":
            if not {"train", "test"} <= splits.keys():
                raise InputError(
                    f"data.split=blocks keeps part of the training and of the test images, and {config.source} has no "
                    f"{'test' if 'train' in splits else 'training'} split; use data.split=official."
                )
            splits["train"], splits["test"] = blocks_apart(splits["train"], splits["test"])
        if config.folds and not self.foreign:
            parts = split_folds([each for those in splits.values() for each in those], config.folds, config.by)
            if config.fold >= len(parts):
                raise InputError(f"There are {len(parts)} folds, from 0 on; data.fold={config.fold} is none of them.")
            held_out = parts[config.fold]
            splits = {"train": [each for part in parts if part is not held_out for each in part], "test": held_out}
        elif config.test_fraction and not self.foreign:
            if "test" in splits:
                raise InputError(f"{config.source} has a test split: data.test_fraction holds out none. Leave it out.")
            kept, held_out = split_validation(splits.get("train", []), config.validation, config.test_fraction, 0)
            splits |= {"train": apart(kept, held_out), "test": held_out}
        if config.validation == "test":
            if "test" not in splits and not self.foreign:
                raise InputError(f"{config.source} has no test images to watch; use another data.validation.")
            splits |= {} if self.foreign else {"val": splits["test"]}
        elif "train" in splits and "val" not in splits:
            with suppress(InputError) if self.foreign else nullcontext():  # which may have too few for a split
                splits |= self._hold_out(splits["train"])
        whole = replace(dataset, splits=splits)
        clean = drop_leaks(whole) if config.drop_leaks else whole
        if config.drop_leaks and not clean.splits.get("train", [True]):
            raise InputError(
                f"All {len(whole.splits['train'])} training images of {config.source} are also in val or test, so "
                "nothing is left to train on. Train with data.drop_leaks=false, or on other data."
            )
        self.dropped_leaks = sum(len(whole.splits[split]) - len(clean.splits[split]) for split in splits)
        if self.record and not self.foreign:
            splits, changed = self.record.restore(dataset.splits, clean.splits)
            clean = replace(clean, splits=splits)
            fewer = self.known and config.labels and set(config.labels) < set(self.known)
            self.changed = "" if fewer else changed
        if self.changed:
            self._say(self.changed)
        return clean

    def _hold_out(self, samples: Sequence[Sample]) -> Splits:
        """Training and validation, made of the training samples; what the rule cannot give is said in numbers."""
        how = self.config.validation
        kept, held_out = split_validation(samples, how, self.config.val_fraction, self.seed)
        clean = kept if how == "copied" else apart(kept, held_out)
        if copies := len(kept) - len(clean):
            self._say(f"{copies} training images are copies of validation images and were left out.")
        there, counts = {each.label for each in held_out}, Counter(each.label for each in samples)
        lacking = ", ".join(f"{label} (of {counts[label]})" for label in sorted(counts.keys() - there))
        if lacking:
            alone = "; all are of one class, so that any model could be right" if len(there) == 1 else ""
            self._say(
                f"No image of {lacking} is among the {len(held_out)} held out for validation{alone}. Add images, or "
                "raise data.val_fraction."
            )
        return {"train": clean, "val": held_out}

    def _say(self, sentence: str) -> None:
        if not self.quiet:
            _note(sentence)

    @property
    def labels(self) -> tuple[str, ...]:
        return self.dataset.labels

    @cached_property
    def train(self) -> ImageDataset:
        images = self.images("train")
        there = [label for label, count in zip(self.labels, images.class_counts, strict=True) if count]
        if len(there) < min(len(self.labels), self.config.limit or len(self.labels)):
            raise InputError(
                f"{self.config.source} has no training image of {', '.join(sorted({*self.labels} - {*there}))}. "
                f"Add some, or name the classes that there are: data.labels=[{', '.join(there)}]."
            )
        return images

    @cached_property
    def val(self) -> ImageDataset:
        return self.images("val")

    @cached_property
    def test(self) -> ImageDataset:
        return self.images("test")

    def describe(self) -> dict[str, Any]:
        """What a run's folder keeps of its data, in plain values."""
        splits = {split: self._samples(split) for split in self.dataset.splits}
        counts = {split: Counter(sample.label for sample in samples) for split, samples in splits.items()}
        return {
            "source": self.config.source,
            "labels": list(self.labels),
            "images": {split: len(samples) for split, samples in splits.items()},
            "classes": {split: {label: count[label] for label in self.labels} for split, count in counts.items()},
            "dropped_leaks": self.dropped_leaks,
            "unreadable": list(self.unreadable),
            "problems": list(self.dataset.problems),
        }

    def train_dataloader(self) -> DataLoader:
        return self._batches(self.train, shuffled=True)

    def val_dataloader(self) -> DataLoader:
        return self._batches(self.val)

    def test_dataloader(self) -> DataLoader:
        return self._batches(self.test)

    def _batches(self, images: ImageDataset, shuffled: bool = False) -> DataLoader:
        """A TrainLoader, or each image once in order: with several devices, every n-th image for each."""
        workers, replicas, rank = self.config.workers, 1, 0
        if self.trainer is not None:
            replicas, rank = self.trainer.world_size, self.trainer.global_rank
        options: dict[str, Any] = {
            "batch_size": self.config.batch_size,
            "num_workers": workers,
            "persistent_workers": workers > 0,
            "pin_memory": self.trainer is not None and self.trainer.strategy.root_device.type == "cuda",
        }
        if shuffled:
            balanced = self.config.balance == "sampler"
            sampler = SeededSampler(images.classes, self.seed, balanced, replicas, rank, self.config.batch_size)
            return TrainLoader(images, sampler=sampler, **options)
        return DataLoader(images, sampler=range(rank, len(images), replicas), **options)

    def _samples(self, split: Scope) -> list[Sample]:
        splits = dict(self.dataset.splits)
        if split not in (*splits, "all"):
            raise InputError(
                f"{self.config.source} has no {split} split; it has {', '.join(splits)}. Use one of these."
            )
        whole = self.loaded.splits if split == "all" else {split: splits[split]}
        samples, seen, rounds = [each for those in whole.values() for each in those], Counter[str](), []
        if self.record and (self.foreign or split == "all"):
            trained = self.record.trained_on(samples)
            if trained:
                left = "" if split in ("train", "all") else "; they are left out"
                self._say(f"{len(trained)} of {len(samples)} {split} images were trained on{left}.")
                self.trained_on[split] = len(trained)
            samples = [each for each in samples if not left or each not in trained] if trained else samples
            if not samples:
                raise InputError(
                    f"All {split} images of {self.config.source} were trained on, so there is nothing to score. "
                    "Give other data."
                )
        for sample in samples:
            rounds.append(seen[sample.label])
            seen[sample.label] += 1
        # at most `limit`: the first of every class, then the second of every class, and so on; in their order
        chosen = sorted(range(len(samples)), key=rounds.__getitem__)[: self.config.limit]
        return [samples[index] for index in sorted(chosen)]

    def _boxed(self, split: Scope) -> list[Sample]:
        """The samples; for a model that looks at faces, with the boxes that can be had. How many have none is said."""
        samples, crops = self._samples(split), self.dataset.spec.crops
        bare = [row for row, each in enumerate(samples) if each.box is None and not fnmatch(each.name, crops)]
        if not bare or not self.transform.sees_faces:
            return samples
        if self.foreign:
            for row, sample in zip(bare, with_faces([samples[row] for row in bare]), strict=True):
                samples[row] = sample
            bare = [row for row in bare if samples[row].box is None]
        if bare and self.config.boxes != DETECT:
            self.without_box[split] = len(bare)
            what = "no face was found" if self.foreign else "there is no face box (data.boxes=detect finds faces)"
            self._say(
                f"In {len(bare)} of {len(samples)} {split} images {what}, for example in {samples[bare[0]].name}; "
                f"{NO_BOX[self.transform.no_box]}."
            )
        return samples

    def images(self, split: Scope) -> ImageDataset:
        """The images of a split, or of all, made when they are first asked for; classes may have none."""
        if split not in self._made:
            self._made[split] = self._make(split)
        return self._made[split]

    def _make(self, split: Scope) -> ImageDataset:
        samples, cache = self._boxed(split), self.config.cache
        if cache is False:
            return ImageDataset(samples, self.labels, self.transform)
        folder = cache_folder() if cache is True else Path(os.path.expanduser(cache))
        stored = open_cache(samples, self.transform, folder, f"{split} images", self.config.source)
        if stored.unreadable:
            self.unreadable += stored.unreadable.values()
            first = next(iter(stored.unreadable.values()))
            self._say(f"{len(stored.unreadable)} of {len(samples)} {split} images are left out. The first: {first}")
        return ImageDataset(samples, self.labels, self.transform, stored)
