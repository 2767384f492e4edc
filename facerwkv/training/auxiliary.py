"""An auxiliary task: while a model trains, a second head learns what another data set says of the same images."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from facerwkv.core.errors import InputError
from facerwkv.data.load import load_dataset
from facerwkv.data.samples import Sample
from facerwkv.training.recipe import Recipe


class Auxiliary(nn.Module):
    """A linear classifier beside the model's own, on what that reads; it ends with the training.

    `licences`: the data set's terms by its name. InputError for a data set that cannot be read, for a model without
    timm's methods, and for a compiled one.
    """

    targets: Tensor
    """What the data set says of the training images, shares (N, C) float32; zeros for an image that it lacks."""

    def __init__(self, model: nn.Module, recipe: Recipe):
        super().__init__()
        part, own = recipe.train, recipe.data.source
        if part.compile:
            raise InputError("train.auxiliary takes a model apart, and train.compile=true joins it: leave one out.")
        classifier = getattr(model, "get_classifier", lambda: None)()
        if not isinstance(classifier, nn.Linear):
            raise InputError(
                f"{recipe.model.name} has no linear classifier beside which train.auxiliary could put another."
            )
        name, sign, _ = str(part.auxiliary).partition(":")
        self.data = load_dataset(str(part.auxiliary) if sign else f"{name}:{own.partition(':')[2]}")
        self.weight, self.licences = part.auxiliary_weight, {name: self.data.spec.terms}
        self.head = nn.Linear(classifier.in_features, len(self.data.labels))

    def match(self, samples: Sequence[Sample]) -> None:
        """Set `targets` for the training images, in the order of their indices, found by their names. InputError where
        the data set has none of them."""
        there = {each.name: each for split in self.data.splits.values() for each in split}
        known = [there.get(each.name) for each in samples]
        if not any(known):
            raise InputError(
                f"train.auxiliary: {next(iter(self.licences))} has none of the {len(samples)} training images; the "
                f"first of them is {samples[0].name}. Give a data set of the same images."
            )
        shares: list[Any] = [(each.votes or {each.label: 1.0}) if each else {} for each in known]
        table = torch.tensor([[each.get(label, 0.0) for label in self.data.labels] for each in shares])
        self.register_buffer("targets", table, persistent=False)

    def forward(self, model: Any, images: Tensor) -> tuple[Tensor, Tensor]:
        """The model's logits (B, c), and those of the head (B, C), for images (B, ...) that it takes."""
        features = model.forward_head(model.forward_features(images), pre_logits=True)
        return model.get_classifier()(features), self.head(features)

    def joined(self, loss: Tensor, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss, and by its weight the cross-entropy of the head's logits; images without a target add nothing."""
        return loss + self.weight * functional.cross_entropy(logits.float(), targets)
