"""Loss, parameter groups, optimisers, schedules."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from facerwkv.training.recipe import OptimPart, SchedulePart


def loss(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0, class_weights: Tensor | None = None) -> Tensor:
    """Cross-entropy in float32. logits (B, C); targets (B,) class numbers or (B, C) probabilities."""
    return functional.cross_entropy(logits.float(), targets, class_weights, label_smoothing=label_smoothing)


BALANCES = {"loss": 1.0, "loss_sqrt": 0.5}


def balanced_weights(counts: Tensor, power: float = 1.0) -> Tensor:
    """Class weights in proportion to counts (C,) ** -power, mean 1 over the training images; 0 for an empty class."""
    weights = torch.where(counts > 0, counts.clamp(min=1) ** -power, torch.zeros_like(counts))
    return weights * counts.sum() / (weights * counts).sum()


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Weight decay on matrices only: not on biases, norms, or what the model's `no_weight_decay` names."""
    spared: set[str] = getattr(model, "no_weight_decay", set)()
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (others if parameter.ndim < 2 or name in spared else matrices).append(parameter)
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def build_optimizer(model: nn.Module, part: OptimPart) -> torch.optim.Optimizer:
    groups = parameter_groups(model, part.weight_decay)
    if part.name == "sgd":
        return torch.optim.SGD(groups, part.lr, part.momentum, nesterov=part.momentum > 0)
    kind = torch.optim.Adam if part.name == "adam" else torch.optim.AdamW
    return kind(groups, part.lr, part.betas)


def lr_factor(part: SchedulePart, epochs: int, steps_per_epoch: int) -> Callable[[int], float]:
    """Step (from 0) → the factor on optim.lr."""
    if part.name == "as_coded":
        return lambda step: _as_coded(step, part.warmup_factor, epochs)
    warmup, total = round(part.warmup_epochs * steps_per_epoch), epochs * steps_per_epoch

    def factor(step: int) -> float:
        if step < warmup:
            return part.warmup_factor + (1 - part.warmup_factor) * step / warmup
        if part.name == "constant":
            return 1.0
        done = min((step - warmup) / max(total - warmup, 1), 1.0)
        return part.final_factor + (1 - part.final_factor) * (1 + math.cos(math.pi * done)) / 2

    return factor


def _as_coded(step: int, warmup_factor: float, epochs: int) -> float:
    """The authors stepped a schedule of `epochs` epochs once a step: it swings between 1 and 0 for the whole run."""
    return warmup_factor if step == 0 else (1 + math.cos(math.pi * (step - 1) / epochs)) / 2
