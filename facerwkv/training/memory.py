"""What a step of training takes: memory, by what autograd keeps; seconds, by a few images. And what fits a GPU."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from facerwkv.core.devices import choose_device
from facerwkv.models.zoo import create_model
from facerwkv.training.recipe import Recipe

IMAGES = 2  # of the measurement
STATES = 4  # copies of the weights in a step: themselves, gradients, and two means of Adam
SPARE = 1.1  # what allocators and kernels take besides


@dataclass(frozen=True)
class Cost:
    """weights: their bytes. kept: bytes of activations that an image's forward pass keeps for the backward pass.
    train_seconds, seconds: per image, of both passes, and of the forward pass alone."""

    weights: int
    kept: int
    train_seconds: float
    seconds: float

    def step(self, batch: int) -> int:
        """The bytes that a step on `batch` images takes."""
        return round(SPARE * (STATES * self.weights + self.kept * batch))

    def accumulation(self, batch: int, free: int) -> int | None:
        """The least number of parts of a batch, a divisor of it, of which each fits into `free` bytes."""
        parts = (count for count in range(1, batch + 1) if batch % count == 0)
        return next((count for count in parts if self.step(batch // count) <= free), None)


def measure(recipe: Recipe) -> Cost:
    """What a recipe's model costs on its device: built anew, run once to warm up and once for time, on two images."""
    device, transform = choose_device(recipe.train.device), recipe.transform
    shape = {"image_size": transform.image_size, "in_chans": transform.channels}
    model: Any = create_model(recipe.model.name, **recipe.model.options | shape).to(device)
    if recipe.train.grad_checkpointing:
        model.set_grad_checkpointing(True)
    images = torch.rand(IMAGES, transform.channels, *transform.image_size, device=device)
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    with _counted(model) as storages:
        _step(model, images, recipe.train.precision)
        kept = sum(storages.values())
    spent = _seconds(lambda: _step(model, images, recipe.train.precision))
    with torch.inference_mode():
        model.eval()(images)
        forward = _seconds(lambda: model(images).sum().item())
    return Cost(weights, kept // IMAGES, spent / IMAGES, forward / IMAGES)


def _step(model: nn.Module, images: Tensor, precision: str) -> None:
    dtype = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}.get(precision)
    with torch.autocast(images.device.type, dtype or torch.bfloat16, enabled=dtype is not None):
        logits = model(images)
    loss = functional.cross_entropy(logits.float(), torch.zeros(len(images), dtype=torch.int64, device=images.device))
    loss.backward()
    model.zero_grad()
    loss.item()  # which waits for a GPU


def _seconds(call: Any) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


@contextmanager
def _counted(model: nn.Module) -> Iterator[dict[int, int]]:
    """The storages that autograd keeps in the block, but for the weights: address → bytes."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield kept


def too_small(recipe: Recipe, free: int) -> str:
    """A sentence for a GPU on which a step did not fit: the accumulation that does, by what two images keep."""
    part = recipe.train.model_copy(update={"device": "cpu"})
    batch, found = recipe.data.batch_size, measure(recipe.model_copy(update={"train": part}))
    whole = f"A step of {recipe.model.name} on {batch} images takes about {found.step(batch) / 1e9:,.1f} GB, and "
    whole += f"{free / 1e9:,.1f} GB are there. "
    if parts := found.accumulation(batch, free):
        small = f"data.batch_size={batch // parts} train.accumulate={parts * recipe.train.accumulate}"
        return f"{whole}Use {small}, with the same gradients, or train.grad_checkpointing=true."
    return f"{whole}Not even one image fits: use train.grad_checkpointing=true, smaller images or a smaller model."
