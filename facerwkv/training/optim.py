"""Loss, parameter groups, optimisers, schedules."""

import math
from collections.abc import Callable
from typing import Any

import torch
from timm.optim import Muon
from torch import Tensor, nn

from facerwkv.models.stem import from_imagenet
from facerwkv.training.recipe import OptimPart, SchedulePart

BALANCES = {"loss": 1.0, "loss_sqrt": 0.5}


def balanced_weights(counts: Tensor, power: float = 1.0) -> Tensor:
    """Class weights in proportion to counts (C,) ** -power, mean 1 over the training images; 0 for an empty class."""
    weights = torch.where(counts > 0, counts.clamp(min=1) ** -power, torch.zeros_like(counts))
    return weights * counts.sum() / (weights * counts).sum()


def parameter_groups(model: nn.Module, weight_decay: float, lr: float, stem_lr_scale: float = 1.0) -> list[dict]:
    """Parameters that share weight decay and learning rate.

    Weight decay on matrices only: not on biases, norms, or what the model's `no_weight_decay` names. The learning rate
    is lr times what a module's `lr_scales` says of a parameter, times stem_lr_scale for the layers that a ResNet stem
    may take from ImageNet. The first group has lr itself.
    """
    spared: set[str] = getattr(model, "no_weight_decay", set)()
    scales = {
        f"{name}.{parameter}": scale
        for name, module in model.named_modules()
        for parameter, scale in getattr(module, "lr_scales", {}).items()
    }
    scales |= dict.fromkeys(from_imagenet(model), stem_lr_scale)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decay = 0.0 if parameter.ndim < 2 or name in spared else weight_decay
            groups.setdefault((scales.get(name, 1.0), decay), []).append(parameter)
    ordered = sorted(groups, key=lambda kind: (kind[0] != 1, -kind[1]))
    return [{"params": groups[kind], "lr": kind[0] * lr, "weight_decay": kind[1]} for kind in ordered]


def build_optimizer(model: nn.Module, part: OptimPart, beside: nn.Module | None = None) -> torch.optim.Optimizer:
    """For the model, and for classifiers `beside` its own."""
    groups = parameter_groups(model, part.weight_decay, part.lr, part.stem_lr_scale)
    groups += parameter_groups(beside, part.weight_decay, part.lr) if beside else []
    if part.name == "sgd":
        return torch.optim.SGD(groups, part.lr, part.momentum, nesterov=part.momentum > 0)
    if part.name == "muon":
        return _muon(model, groups, part)
    if part.name == "sam":
        return SAM(groups, part.lr, part.betas, part.rho)
    kind = torch.optim.Adam if part.name == "adam" else torch.optim.AdamW
    return kind(groups, part.lr, part.betas)


class SAM(torch.optim.AdamW):
    """AdamW with the gradients found `rho` up the slope from the present weights; `step` needs a closure.

    Source: Foret et al., Sharpness-Aware Minimization (arXiv 2010.01412), equation 2, over all weights together.
    """

    def __init__(self, params: Any, lr: float, betas: tuple[float, float], rho: float):
        super().__init__(params, lr, betas)
        self.rho = rho

    @torch.no_grad()
    def step(self, closure: Callable[[], Any]) -> Any:  # type: ignore[override]
        with torch.enable_grad():
            value = closure()
        climbed = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        norm = torch.stack([p.grad.norm() for p in climbed]).norm()
        ways = [p.grad * (self.rho / (norm + 1e-12)) for p in climbed]
        torch._foreach_add_(climbed, ways)
        with torch.enable_grad():
            closure()
        torch._foreach_sub_(climbed, ways)
        super().step()
        return value


def _muon(model: nn.Module, groups: list[dict], part: OptimPart) -> Muon:
    """Muon for what weight decay applies to, the classifier excepted: matrices and convolutions. AdamW for the rest."""
    spared: set[str] = getattr(model, "no_weight_decay", set)()
    last = {id(parameter) for parameter in getattr(model, "get_classifier", nn.Identity)().parameters()}
    named = ((name, parameter) for name, parameter in model.named_parameters() if parameter.ndim >= 2)
    chosen = {id(parameter) for name, parameter in named if name not in spared} - last
    split = [
        group | {"params": [p for p in group["params"] if (id(p) in chosen) != fallback], "use_fallback": fallback}
        for group in groups
        for fallback in (False, True)
    ]
    options: dict[str, Any] = {"nesterov": True, "adjust_lr_fn": "original", "momentum": part.momentum}
    options |= {"betas": part.betas, "fallback_lr_scale": part.fallback_lr_scale}
    return Muon([group for group in split if group["params"]], part.lr, **options)


def lr_factor(part: SchedulePart, epochs: int, steps_per_epoch: int) -> Callable[[int], float]:
    """Step (from 0) → the factor on optim.lr."""
    warmup, total = round(part.warmup_epochs * steps_per_epoch), epochs * steps_per_epoch

    def factor(step: int) -> float:
        if part.name == "as_coded":  # the authors stepped a schedule of epochs once per step: it swings
            half = part.half_period or epochs
            return part.warmup_factor if step == 0 else (1 + math.cos(math.pi * (step - 1) / half)) / 2
        if step < warmup:
            return part.warmup_factor + (1 - part.warmup_factor) * step / warmup
        if part.name == "constant":
            return 1.0
        if part.name == "exponential":
            return part.gamma ** (step // (part.gamma_epochs * steps_per_epoch))
        done = min((step - warmup) / max(total - warmup, 1), 1.0)
        return part.final_factor + (1 - part.final_factor) * (1 + math.cos(math.pi * done)) / 2

    return factor
