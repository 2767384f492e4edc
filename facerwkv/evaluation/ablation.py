"""What do the mixers do? A trained model's scores with parts of its blocks switched off; nothing is trained anew."""

import copy
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from facerwkv.core import metrics
from facerwkv.core.errors import InputError
from facerwkv.core.files import read_json, write_text
from facerwkv.core.metrics import Score
from facerwkv.models.facerwkv import FaceRWKV

FILE = "ablation.json"
HEADERS = ("what is switched off", "accuracy", "difference", "95 % interval", "p", "other answers")
READING = (
    "The trained model with parts of its blocks switched off, without retraining: what they add is left out. "
    "Values averaged: every token is handed the mean of all values, whatever keys, decay and bonus say. Difference: of "
    "the accuracy from the whole model's on the same images, with the 95 % bootstrap interval of their pairs and "
    "McNemar's exact p. Other answers: the share of images that are answered differently, rightly or wrongly. A small "
    "difference says that this model does without that part, not that one trained without it would."
)


@dataclass(frozen=True)
class Row:
    """What is switched off; accuracy 0..1, its difference from the whole model's, McNemar's p, the answers changed."""

    name: str
    accuracy: float
    difference: Score
    p: float
    changed: float

    @property
    def cells(self) -> tuple[str, ...]:
        """The texts under HEADERS; differences in points."""
        points = [f"{100 * value:+.2f}" for value in (self.difference.value, self.difference.low, self.difference.high)]
        return (
            self.name,
            f"{self.accuracy:.2%}",
            points[0],
            f"{points[1]} to {points[2]}",
            f"{self.p:.2g}",
            f"{self.changed:.1%}",
        )


@dataclass(frozen=True)
class Ablation:
    """accuracy: of the whole model, 0..1. rows: one for each part that is switched off."""

    accuracy: float
    rows: list[Row]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def save(self, folder: Path) -> None:
        write_text(folder / FILE, json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n")

    @property
    def table(self) -> list[tuple[str, ...]]:
        """The texts under HEADERS, the whole model's first."""
        return [("nothing", f"{self.accuracy:.2%}", *[""] * 4), *(row.cells for row in self.rows)]

    @classmethod
    def load(cls, folder: Path) -> "Ablation":
        """Read what `save` wrote."""
        stored = read_json(folder / FILE)
        rows = [Row(**row | {"difference": Score(**row["difference"])}) for row in stored["rows"]]
        return cls(stored["accuracy"], rows)

    @classmethod
    def of(cls, whole: np.ndarray, variants: dict[str, np.ndarray], targets: np.ndarray) -> "Ablation":
        """From logits (N, C) of the whole model and of each variant, and the targets (N,)."""
        answers, rows = whole.argmax(-1), []
        for name, logits in variants.items():
            others = logits.argmax(-1)
            difference, p = metrics.paired(answers == targets, others == targets)
            changed = float((others != answers).mean())
            rows.append(Row(name, float((others == targets).mean()), difference, p, changed))
        return cls(float((answers == targets).mean()), rows)


class Variants(nn.Module):
    """A copy of a FaceRWKV that gives the logits of all its variants: images (B, c, H, W) → (B, V, C).

    The stem, most of the work, runs once. InputError for a model without blocks of mixers.
    """

    def __init__(self, model: nn.Module, title: str):
        super().__init__()
        if not isinstance(model, FaceRWKV):
            raise InputError(f"{title} has no blocks of mixers to switch off; leave ablate out.")
        self.model = copy.deepcopy(model)
        self.variants = _variants(self.model)

    @property
    def names(self) -> list[str]:
        return list(self.variants)

    def forward(self, images: Tensor) -> Tensor:
        tokens, grid = self.model.embed(images)
        logits = []
        for switched_off in self.variants.values():
            with switched_off():
                logits.append(self.model.classifier(self.model.pool(self.model.mixed(tokens, grid))))
        return torch.stack(logits, 1)


def _variants(model: Any) -> dict[str, Callable[[], AbstractContextManager]]:
    """Name → what makes a context in which that part of the model is switched off."""
    blocks = list(model.blocks)
    times, channels = [block.time_mix for block in blocks], [block.channel_mix for block in blocks]
    variants: dict[str, Callable[[], AbstractContextManager]] = {}
    for layer in range(len(blocks)):
        variants[f"block {layer}: time mix"] = partial(_hooked, [times[layer]], _zeros)
        variants[f"block {layer}: channel mix"] = partial(_hooked, [channels[layer]], _zeros)
    variants["all time mixes"] = partial(_hooked, times, _zeros)
    variants["all channel mixes"] = partial(_hooked, channels, _zeros)
    variants["all blocks"] = partial(_hooked, times + channels, _zeros)
    if averaged := [mix.hook_value for mix in times if hasattr(mix, "hook_value")]:
        variants["values averaged"] = partial(_hooked, averaged, _mean)
    if undecayed := [mix for mix in times if mix.undecayed]:
        variants["decay and bonus"] = partial(_undecayed, undecayed)
    return variants


def _zeros(module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
    return torch.zeros_like(output)


def _mean(module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
    return output.mean(1, keepdim=True).expand_as(output).contiguous()


@contextmanager
def _hooked(modules: Iterable[nn.Module], hook: Callable[..., Tensor]) -> Iterator[None]:
    """Their outputs are what the hook says."""
    with ExitStack() as stack:
        for module in modules:
            stack.callback(module.register_forward_hook(hook).remove)
        yield


@contextmanager
def _undecayed(mixes: Sequence[Any]) -> Iterator[None]:
    """Time mixes whose decay and bonus have no effect."""
    changed = [(mix.get_parameter(name).data, value) for mix in mixes for name, value in mix.undecayed.items()]
    kept = [parameter.clone() for parameter, _ in changed]
    for parameter, value in changed:
        parameter.fill_(value)
    try:
        yield
    finally:
        for (parameter, _), before in zip(changed, kept, strict=True):
            parameter.copy_(before)
