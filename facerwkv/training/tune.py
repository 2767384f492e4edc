"""A learning rate to begin with: Lightning's range test (Smith 2017, arXiv 1506.01186)."""

import logging
import tempfile
import warnings
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.tuner import Tuner

from facerwkv.core.devices import choose_device
from facerwkv.core.errors import InputError
from facerwkv.data.loader import DataModule
from facerwkv.models.checkpoint import load_checkpoint
from facerwkv.training.module import TrainingModule, check_inputs, fine_tuning, new_model
from facerwkv.training.recipe import Recipe

STEPS = 100


def find_lr(recipe: Recipe, steps: int = STEPS) -> tuple[float, dict[str, list[float]]]:
    """The learning rate at which the loss falls fastest, and what was tried: {"lr": [...], "loss": [...]}.

    The rate rises from 1e-8 to 1 within `steps` steps; nothing is written. InputError where no rate makes the loss
    fall, and as `train` raises it.
    """
    start = None if recipe.init_from is None else load_checkpoint(recipe.init_from)
    recipe = recipe if start is None else fine_tuning(recipe, start)
    check_inputs(recipe)
    device = choose_device(recipe.train.device)
    data = DataModule(recipe.data, recipe.transform, recipe.train.seed)
    model = new_model(recipe, data.labels, start)
    module = TrainingModule(model, recipe, torch.as_tensor(data.train.class_counts))
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module=r"lightning\\.")
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    with tempfile.TemporaryDirectory() as folder:
        kind = "gpu" if device.type == "cuda" else device.type
        trainer = Trainer(
            accelerator=kind, devices=1, max_epochs=1_000, default_root_dir=folder, num_sanity_val_steps=0, **quiet
        )
        found = Tuner(trainer).lr_find(module, datamodule=data, num_training=steps, update_attr=False)
    suggestion = found.suggestion() if found else None
    if found is None or suggestion is None:
        raise InputError("At no learning rate does the loss fall. Look at the data, or name one: optim.lr=1e-3.")
    return float(suggestion), {name: list(map(float, values)) for name, values in found.results.items()}
