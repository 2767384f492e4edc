"""Distillation: a model also learns what trained ones, its teachers, answer for the images as it sees them."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from facerwkv.core.errors import InputError
from facerwkv.data.config import TransformConfig
from facerwkv.models.card import known_licence
from facerwkv.models.checkpoint import load_checkpoint
from facerwkv.models.fold import fold
from facerwkv.models.folder import Checkpoint
from facerwkv.training.recipe import TrainPart


class Teacher(NamedTuple):
    """A network for bytes, where in its logits the student's labels are, and what its checkpoint is called."""

    network: nn.Module
    order: list[int]
    title: str
    licence: str

    @classmethod
    def of(cls, checkpoint: Checkpoint, labels: Sequence[str], transform: TransformConfig) -> "Teacher":
        title, seen = checkpoint.title, checkpoint.transform
        if missing := [label for label in labels if label not in checkpoint.labels]:
            raise InputError(f"The teacher {title} does not know {', '.join(missing)}: leave it out of train.teachers.")
        if (seen.image_size, seen.channels) != (transform.image_size, transform.channels):
            wanted = f"transform.image_size={list(seen.image_size)} with {seen.channels} channels"
            raise InputError(f"The teacher {title} takes {wanted}, and the student must see the same.")
        order = [checkpoint.labels.index(label) for label in labels]
        return cls(fold(checkpoint.model, seen), order, title, known_licence(checkpoint.card) or "")


class Teachers:
    """The checkpoints that a recipe names, for a student that sees images under `transform` and knows `labels`.

    They are no part of what is trained or saved; `licences` are theirs by name. InputError for one that knows other
    expressions, or takes images of another size or with other channels.
    """

    def __init__(self, part: TrainPart, labels: Sequence[str], transform: TransformConfig):
        self.transform, self.alpha, self.tau = transform, part.distill_alpha, part.distill_tau
        self._ready = [Teacher.of(load_checkpoint(name), labels, transform) for name in part.teachers]
        self.licences = {each.title: each.licence for each in self._ready}

    def joined(self, loss: Tensor, logits: Tensor, images: Tensor) -> Tensor:
        """(1 - alpha) of the labels' loss and alpha of the distance to the teachers' answers for the same images."""
        return (1 - self.alpha) * loss + self.alpha * distillation(logits, self.answers(images), self.tau)

    @torch.no_grad()
    def answers(self, images: Tensor) -> Tensor:
        """The mean of their probabilities, (B, C) float32, at temperature tau, for normalised images (B, c, h, w)."""
        mean, std = (images.new_tensor(each).view(-1, 1, 1) for each in self.transform.normalisation)
        pixels = (images * std + mean).permute(0, 2, 3, 1) * 255
        logits = [each.network.to(images.device)(pixels).float()[:, each.order] for each in self._ready]
        return torch.stack([(each / self.tau).softmax(1) for each in logits]).mean(0)


def distillation(logits: Tensor, answers: Tensor, tau: float) -> Tensor:
    """How far logits (B, C) are from the teachers' probabilities (B, C) at temperature `tau`, a number.

    tau² KL(answers ‖ softmax(logits / tau)) per image (Hinton et al., arXiv 1503.02531, section 2).
    """
    return functional.kl_div((logits / tau).log_softmax(1), answers, reduction="batchmean") * tau**2
