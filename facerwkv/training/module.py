"""The LightningModule, and the call to Trainer.fit."""

import logging
import math
import re
import sys
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, EarlyStopping, RichProgressBar
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassConfusionMatrix

from facerwkv.core.devices import choose_device
from facerwkv.core.errors import InputError, first_line
from facerwkv.core.metrics import of_confusion
from facerwkv.data.augment import Augment, mix
from facerwkv.data.loader import DataModule
from facerwkv.data.normalise import normalise
from facerwkv.data.record import Record, write_record
from facerwkv.data.transforms import TransformConfig
from facerwkv.models.card import known_licence
from facerwkv.models.checkpoint import load_checkpoint, load_weights
from facerwkv.models.fold import need_compiler
from facerwkv.models.folder import Checkpoint
from facerwkv.models.stem import has_resnet_stem, load_stem
from facerwkv.models.zoo import create_model, licence_of, model_line, shipped
from facerwkv.training.auxiliary import Auxiliary
from facerwkv.training.callbacks import EpochLines, Saver, Stopwatch, read_step
from facerwkv.training.loggers import Curves, TensorBoard, require_service, service
from facerwkv.training.losses import LOSSES, freeze
from facerwkv.training.memory import too_small
from facerwkv.training.optim import BALANCES, balanced_weights, build_optimizer, lr_factor
from facerwkv.training.recipe import ModelPart, Recipe
from facerwkv.training.run import (
    DATA,
    ENVIRONMENT,
    SPLITS,
    TIME,
    alone,
    environment,
    leads,
    open_run,
    read_run,
    require_place,
    settle_rank,
    write_json,
)
from facerwkv.training.steps import prepare, running_mean
from facerwkv.training.teachers import Teachers


class TrainingModule(LightningModule):
    """A model under a recipe. Batches are {"image": uint8 (B, h, w, c), "target": (B,) or (B, C), "index": (B,)}."""

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        class_counts: Tensor,
        teachers: Teachers | None = None,
        auxiliary: Auxiliary | None = None,
    ):
        super().__init__()
        self.teachers, self.auxiliary = teachers, auxiliary
        self.model, self.recipe = prepare(model, recipe), recipe
        self.class_counts, self.num_classes = class_counts, len(class_counts)
        self.frozen: list[nn.Module] = []
        if recipe.train.freeze != "none":
            try:
                self.frozen = freeze(model, recipe.train.freeze, recipe.model.name)
            except ValueError as error:
                what = recipe.train.freeze
                raise InputError(f"{error}, so train.freeze={what} freezes nothing. Leave it out.") from error
        self.ema = running_mean(model, recipe.train.ema)
        self.augment = Augment(recipe.augment, recipe.train.seed)
        power = BALANCES.get(recipe.data.balance)
        weights = None if power is None else balanced_weights(class_counts.double(), power).float()
        self.class_weights: Tensor | None
        self.register_buffer("class_weights", weights, persistent=False)
        self.train_loss, self.val_loss = MeanMetric(), MeanMetric()
        self.train_loss.persistent(True)  # so that a resumed epoch reports the mean of the whole of it
        self.confusion = MulticlassConfusionMatrix(self.num_classes)
        self.written = False  # whether the run has a checkpoint

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for part in self.frozen:
            part.training = False
        return self

    @property
    def evaluated(self) -> nn.Module:
        """The weights that count: the running mean where there is one."""
        return self.ema.module if self.ema is not None else self.model

    def on_train_batch_start(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        # Dropout and stochastic depth depend on seed, step and device alone, so that a resumed run repeats them.
        batch_of_run = self.global_step * self.recipe.train.accumulate + batch_idx % self.recipe.train.accumulate
        torch.manual_seed((self.recipe.train.seed + 1) * 1_000_003 + batch_of_run + (self.global_rank << 32))

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        recipe, epoch = self.recipe, self.current_epoch
        change = partial(self.augment, ids=batch["index"], epoch=epoch) if recipe.augment.any_image else None
        images, targets = normalise(batch["image"], recipe.transform, change), batch["target"]
        others: Any = self.auxiliary.targets[batch["index"]] if self.auxiliary else None
        if recipe.augment.mixup or recipe.augment.cutmix:
            targets = functional.one_hot(targets, self.num_classes).float() if targets.ndim == 1 else targets
            mixed = partial(mix, images, config=recipe.augment, key=(recipe.train.seed, epoch, batch_idx))
            others = None if others is None else mixed(others)[1]
            images, targets = mixed(targets)
        (logits, other), smoothing = self._forward(images), recipe.train.label_smoothing
        value = LOSSES[recipe.train.loss](logits, targets, self.class_weights, smoothing, self.class_counts)
        value = self.teachers.joined(value, logits, images) if self.teachers else value
        value = self.auxiliary.joined(value, other, others) if self.auxiliary else value
        self._check(value)
        self.train_loss.update(value.detach(), len(images))
        self.log("loss", value.detach(), prog_bar=True, logger=False)
        return value

    def _forward(self, images: Tensor) -> tuple[Tensor, Any]:
        """The logits, float32, and those of an auxiliary task."""
        try:
            logits, other = self.auxiliary(self.model, images) if self.auxiliary else (self.model(images), None)
            return logits.float(), other
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise InputError(
                f"{self.recipe.model.name} normalises over the batch, which takes two images or more: data.batch_size "
                f"is {self.recipe.data.batch_size}. Raise it, or add training images."
            ) from error

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        if self.ema is not None:
            self.ema.update_parameters(self.model)

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ):
        if self.recipe.optim.clip_norm is not None:
            norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.optim.clip_norm)
            if self.recipe.train.precision != "16-mixed":  # whose scaler skips such steps itself
                self._check(norm, "gradient")

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        targets = batch["target"] if batch["target"].ndim == 1 else batch["target"].argmax(1)
        logits = self.evaluated(normalise(batch["image"], self.recipe.transform)).float()
        self.val_loss.update(functional.cross_entropy(logits, targets), len(targets))
        self.confusion.update(logits.argmax(1), targets)

    def on_validation_epoch_end(self) -> None:
        counts = self.confusion.compute().cpu().numpy()
        scores = {
            "train_loss": self.train_loss.compute(),
            "val_loss": self.val_loss.compute(),
            **{f"val_{name}": metric.function(counts) for name, metric in of_confusion().items()},
            "lr": self.trainer.optimizers[0].param_groups[0]["lr"],
        }
        self.log_dict({name: torch.as_tensor(value, dtype=torch.float32) for name, value in scores.items()})
        for metric in (self.train_loss, self.val_loss, self.confusion):
            metric.reset()

    def configure_optimizers(self) -> Any:
        optimizer = build_optimizer(self.model, self.recipe.optim, self.auxiliary)
        # Lightning's own count of steps would set the loaders up before a resumed run has told them where it stopped.
        images = math.ceil(int(self.class_counts.sum()) / self.trainer.world_size)
        steps = math.ceil(math.ceil(images / self.recipe.data.batch_size) / self.recipe.train.accumulate)
        factor = lr_factor(self.recipe.schedule, self.recipe.train.epochs, steps)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _check(self, value: Tensor, what: str = "loss") -> None:
        if not value.isfinite():
            left = " The checkpoints written so far are good." if self.written else ""
            raise InputError(
                f"The {what} became {value.item()} in epoch {self.current_epoch}, step {self.global_step}. "
                f"Lower the learning rate (optim.lr is {self.recipe.optim.lr:g}) or clip (optim.clip_norm=1).{left}"
            )


def train(
    recipe: Recipe,
    folder: str | Path,
    resume: bool = False,
    progress: bool = True,
    changes: Sequence[str] = (),
    callbacks: Sequence[Callback] = (),
) -> Path:
    """Train as the recipe says and return the run's folder; `facerwkv.training.run` lists the files in it.

    With `resume`, continue where the run in `folder` stopped, under the recipe stored there; `changes` may be of
    train.epochs and train.early_stop, and are kept. On the CPU a resumed run
    ends with the same numbers as an uninterrupted one. Ctrl-C stops it and leaves last/ and resume.ckpt. callbacks:
    Lightning's, which watch. InputError for what cannot be trained: before images are read where the recipe alone
    tells, before the folder is made in any case.
    """
    folder = Path(folder)
    recipe = read_run(folder, changes) if resume else recipe
    settle_rank(recipe.train)
    with alone(folder):
        start = None if recipe.init_from is None else load_checkpoint(recipe.init_from)
        if start is not None and not resume:  # a run's recipe has it already
            recipe = fine_tuning(recipe, start)
        check_inputs(recipe)
        choose_device(recipe.train.device)
        require_service(recipe.train.logger)
        if recipe.optim.name == "sam" and recipe.train.accumulate > 1:
            raise InputError("optim.name=sam takes two passes over one batch; leave train.accumulate at 1.")
        if not resume:
            require_place(folder)
        record = Record(folder / SPLITS) if resume and (folder / SPLITS).is_file() else None
        data = DataModule(recipe.data, recipe.transform, recipe.train.seed, record)
        if len(data.labels) < 2:
            raise InputError(
                f"{recipe.data.source} has one class, {data.labels[0]}, so there is nothing to learn. Add images of "
                "another, or name two classes or more: data.labels=[first, second, ...]."
            )
        model = new_model(recipe, data.labels, start)
        teachers = Teachers(recipe.train, data.labels, recipe.transform) if recipe.train.teachers else None
        auxiliary = Auxiliary(model, recipe) if recipe.train.auxiliary else None
        data.setup("fit")
        if auxiliary:
            auxiliary.match(data.train.samples)
        point = open_run(folder, recipe, resume)
        if leads():
            write_json(folder / ENVIRONMENT, environment(folder / ENVIRONMENT if resume else None))
            write_json(folder / DATA, data.describe())
            if record is None:
                write_record(folder / SPLITS, data.loaded.splits, data.dataset.splits)
        module = TrainingModule(model, recipe, torch.as_tensor(data.train.class_counts), teachers, auxiliary)
        watch = Stopwatch()
        step = read_step(point, module) if point else 0
        saver = Saver(folder, module, data, _licences(recipe, start, teachers, auxiliary))
        trainer = _trainer(recipe, folder, step, [saver, watch, *callbacks], progress)
        try:
            trainer.fit(module, data, ckpt_path=point, weights_only=True)
        except SystemExit as stop:  # Lightning's answer to Ctrl-C
            raise KeyboardInterrupt from stop
        except torch.OutOfMemoryError as error:
            raise InputError(too_small(recipe, torch.cuda.mem_get_info()[1])) from error
        if leads():
            write_json(folder / TIME, {"seconds": watch.seconds, "epochs": trainer.current_epoch})
    return folder


def check_inputs(recipe: Recipe) -> None:
    """InputError for an unknown model, for one that needs other inputs than the transform gives, and for a choice that
    the test images would make, and where a compiler is needed and missing."""
    name = recipe.model.name
    if recipe.train.compile:
        need_compiler()
    if recipe.data.validation == "test" and (recipe.train.select == "best" or recipe.train.early_stop):
        raise InputError(
            "With data.validation=test the test images would choose the epoch, and the score on them would promise "
            "nothing. Take the last one, train.select=last with train.early_stop=null, or another data.validation."
        )
    if model_line(name).config.two_inputs and recipe.transform.crop != "both":
        raise InputError(
            f"{name} looks at a face and at the scene around it: give it both with transform.crop=both; faces are from "
            "the data set's own boxes, data.boxes=FILE or data.boxes=detect."
        )


def new_model(recipe: Recipe, labels: Sequence[str], start: Checkpoint | None) -> nn.Module:
    """The checkpoint's model, with a new classifier for other classes; without a checkpoint a fresh one."""
    torch.manual_seed(recipe.train.seed)
    if start is not None:
        built: Any = start.model
        if built.config.model_dump(mode="json") != recipe.model.options:
            built = _refitted(recipe, start)
        if start.labels != labels:
            built.reset_classifier(len(labels))
        return built
    part, transform = recipe.model, recipe.transform
    shape = {"image_size": transform.image_size, "in_chans": transform.channels, "num_classes": len(labels)}
    model = create_model(part.name, pretrained=part.pretrained, parts=part.parts, **part.options | shape)
    if part.stem_weights and has_resnet_stem(model):
        load_stem(model, part.stem_weights)
    return model


def _licences(
    recipe: Recipe, start: Checkpoint | None, teachers: Teachers | None, auxiliary: Auxiliary | None
) -> dict[str, str]:
    """The licences of what the model starts and learns from besides its data, by name."""
    name = recipe.model.name
    found = {name: licence_of(name)} if recipe.model.pretrained and name in shipped() else {}
    found = found if start is None else {start.title: known_licence(start.card) or ""}
    return found | (teachers.licences if teachers else {}) | (auxiliary.licences if auxiliary else {})


def fine_tuning(recipe: Recipe, start: Checkpoint) -> Recipe:
    """The checkpoint's model, options and transform in place of the recipe's, but for what was changed by hand."""
    chosen, transform = recipe.chosen("model"), start.transform.model_dump() | recipe.chosen("transform")
    wrong = [f"{name}={value}" for name, value in chosen.items() if name not in ("name", "options")]
    wrong += [f"name={chosen['name']}"] if chosen.get("name", start.name) != start.name else []
    if wrong:
        raise InputError(
            f"Training starts from {start.title}, which is a {start.name}, so model.{wrong[0]} cannot be obeyed. Leave "
            "it out, or train without init_from."
        )
    config: Any = start.model.config
    fitted = TransformConfig.parse(transform, where="transform")
    shape = {"image_size": fitted.image_size, "in_chans": fitted.channels}
    changed = type(config).parse(config.model_dump() | chosen.get("options", {}) | shape, where="model.options")
    part = ModelPart(name=start.name, options=changed.model_dump(mode="json"))
    return recipe.model_copy(update={"model": part, "transform": fitted})


def _refitted(recipe: Recipe, start: Checkpoint) -> nn.Module:
    """A model under other options with the checkpoint's weights; its tables over positions are interpolated."""
    model: Any = create_model(start.name, **recipe.model.options)
    own, weights = model.state_dict(), start.model.state_dict()
    for name in own.keys() & weights.keys():
        old, shape = weights[name], own[name].shape
        unlike = [axis for axis, pair in enumerate(zip(old.shape, shape, strict=False)) if len(set(pair)) > 1]
        if len(unlike) != 1 or old.ndim < 2 or not re.search(getattr(model, "tables", "$^"), name):
            continue
        if name == "position.table":
            image = old.mT.unflatten(-1, start.model.position.grid)
            weights[name] = functional.interpolate(image, model.position.grid, mode="bicubic").flatten(2).mT
        else:
            lines = old.movedim(unlike[0], -1)
            stretched = functional.interpolate(lines.flatten(0, -2)[None], shape[unlike[0]], mode="linear")
            weights[name] = stretched.view(*lines.shape[:-1], -1).movedim(-1, unlike[0])
    try:
        load_weights(model, weights, start.title)
    except InputError as error:
        raise InputError(
            f"{start.title} cannot start under these changes of model.options and transform. Leave out those that "
            f"change a weight's shape. {error}"
        ) from error
    return model


def _trainer(recipe: Recipe, folder: Path, step: int, callbacks: list[Callback], progress: bool) -> Trainer:
    part, chosen, curves = recipe.train, choose_device(recipe.train.device), Curves(folder)
    kind = "gpu" if chosen.type == "cuda" else chosen.type
    hardware: dict[str, Any] = {"devices": [chosen.index or 0] if kind == "gpu" else 1}
    hardware["plugins"] = LightningEnvironment()  # whatever a cluster's variables say, it is one process
    if part.devices * part.num_nodes > 1:
        hardware = {"devices": part.devices, "num_nodes": part.num_nodes, "strategy": "ddp"}
    if step:
        curves.rewind(step)
    bar = progress and sys.stderr.isatty()
    callbacks = [*callbacks, EpochLines(), *([RichProgressBar(leave=False)] if bar else [])]
    if part.early_stop:
        best: dict[str, Any] = {"mode": "max", "min_delta": 0.0, "check_finite": False}
        callbacks.append(_EarlyStopping(f"val_{part.monitor}", patience=part.early_stop, **best))
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module=r"lightning\.")  # advice for people who write loops, not for users
    try:
        return Trainer(
            accelerator=kind,
            **hardware,
            use_distributed_sampler=False,  # the data module deals the images out
            precision=part.precision,
            accumulate_grad_batches=part.accumulate,
            max_epochs=part.epochs,
            logger=[curves, TensorBoard(folder), *service(part.logger, folder, recipe)],
            callbacks=callbacks,
            enable_model_summary=False,
            enable_progress_bar=bar,
            num_sanity_val_steps=0,
            log_every_n_steps=10,
        )
    except (ValueError, RuntimeError, KeyError, MisconfigurationException) as error:
        raise InputError(
            f"train.devices={part.devices} and train.num_nodes={part.num_nodes} cannot be had here: "
            f"{first_line(error)}. Change one of them, or how the processes are started."
        ) from error


class _EarlyStopping(EarlyStopping):
    """Lightning's, which also stops a resumed run that it had stopped before, and keeps a patience that was raised."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict | {"patience": self.patience})

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.should_stop = trainer.should_stop or self.wait_count >= self.patience
