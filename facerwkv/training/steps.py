"""How a model computes its steps: memory layout, gradient checkpointing, compilation."""

from typing import Any

import torch
from torch import nn

from facerwkv.core.errors import InputError
from facerwkv.training.recipe import Recipe


def prepare(model: nn.Module, recipe: Recipe) -> nn.Module:
    """The model, ready to be trained as the recipe says. InputError for what it, or this machine, does not have."""
    if recipe.train.grad_checkpointing:
        _checkpoint(model, recipe.model.name)
    model = model.to(memory_format=torch.channels_last)  # faster convolutions, 10 to 30 % of a step on a CPU
    if recipe.train.compile:
        model.compile(dynamic=False)  # in place: the names of the weights stay, and copies are as they were
    return model


def _checkpoint(model: nn.Module, name: str) -> None:
    switch: Any = getattr(model, "set_grad_checkpointing", None)
    try:
        if switch is None:
            raise AssertionError
        switch(True)
    except AssertionError as error:  # timm's answer
        raise InputError(
            f"{name} keeps what it computed: it has no gradient checkpointing. Leave train.grad_checkpointing out; "
            "train.accumulate saves memory, too."
        ) from error
