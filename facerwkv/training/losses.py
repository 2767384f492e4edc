"""Losses by name: logits (B, C) float and targets, (B,) class numbers or (B, C) shares → a number; the LOSSES table."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

Loss = Callable[[Tensor, Tensor, Tensor | None, float, Tensor], Tensor]
"""logits, targets, weights of the classes (C,) or None, label smoothing 0..1, images of each class in training (C,)."""
GAMMA = 2.0


def cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor | None, smoothing: float, counts: Tensor) -> Tensor:
    """torch's."""
    return functional.cross_entropy(logits, targets, weights, label_smoothing=smoothing)


def focal(logits: Tensor, targets: Tensor, weights: Tensor | None, smoothing: float, counts: Tensor) -> Tensor:
    """Images that are right already count less, by (1 - p) ** 2 (Lin et al., arXiv 1708.02002, equation 4)."""
    classes = logits.shape[1]
    shares = functional.one_hot(targets, classes).to(logits.dtype) if targets.ndim == 1 else targets
    shares = shares * (1 - smoothing) + smoothing / classes
    shares = shares if weights is None else shares * weights
    log_probs = logits.log_softmax(1)
    return -((1 - log_probs.exp()) ** GAMMA * shares * log_probs).sum() / shares.sum()


def logit_adjusted(logits: Tensor, targets: Tensor, weights: Tensor | None, smoothing: float, counts: Tensor) -> Tensor:
    """Cross-entropy of the logits plus the log of each class's frequency, so that the logits themselves are those of
    balanced classes (Menon et al., arXiv 2007.07314, equation 10, tau 1)."""
    prior = (counts.clamp(min=1) / counts.clamp(min=1).sum()).log().to(logits)
    return functional.cross_entropy(logits + prior, targets, weights, label_smoothing=smoothing)


LOSSES: dict[str, Loss] = {"cross_entropy": cross_entropy, "focal": focal, "logit_adjusted": logit_adjusted}


def freeze(model: torch.nn.Module, what: str, name: str) -> list[torch.nn.Module]:
    """Freeze the parameters of a model's `stem`, or of its `backbone`: all but the classifier.

    Returns the modules that stay in evaluation mode, lest their statistics change. ValueError where the model has no
    such part.
    """
    last = getattr(model, "get_classifier", lambda: None)()
    part = getattr(model, "stem", None) if what == "stem" else model
    if part is None or (what == "backbone" and not isinstance(last, torch.nn.Module)):
        raise ValueError(f"{name} has no {'stem' if what == 'stem' else 'classifier of its own'}")
    kept = {id(parameter) for parameter in last.parameters()} if what == "backbone" and last is not None else set()
    for parameter in part.parameters():
        parameter.requires_grad_(id(parameter) in kept)
    if what == "stem":
        return [part]
    within = set(last.modules())  # type: ignore[union-attr]
    return [each for each in model.modules() if each not in within]
