"""Bytes → the numbers that a model takes, a batch at a time, on any device; augmentation on the way, for training."""

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from facerwkv.data.config import TransformConfig
from facerwkv.kernels.calls import refusal, watched
from facerwkv.kernels.pixels import look_up


def normalise(images: Tensor, config: TransformConfig, augment: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """Images (B, h, w, c), uint8 or float in 0..255 → the model's input, float32 (B, c, h, w), on the same device.

    Training, evaluation, prediction and exported graphs share it. `augment` changes the images on the way, as floats in
    0..1, (B, c, h, w). Bytes on a CPU that are not augmented are looked up in a table of the same values.
    """
    by_table = augment is None and images.dtype == torch.uint8
    if by_table and not refusal("pixels", images, dtype=torch.float32) and not watched(images):
        return look_up(images, _table(images.shape[-1], config))
    images = images.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format) / 255
    images = images if augment is None else augment(images)
    mean, std = config.normalisation
    if any(mean):
        images = images - images.new_tensor(mean).view(-1, 1, 1)
    if any(value != 1 for value in std):
        images = images / images.new_tensor(std).view(-1, 1, 1)
    return images


@lru_cache(maxsize=8)
def _table(channels: int, config: TransformConfig) -> Tensor:
    """What becomes of each of the 256 values, float32 (channels, 256)."""
    values = torch.arange(256.0, device="cpu").view(1, 1, 256, 1).expand(-1, -1, -1, channels)
    return normalise(values, config)[0, :, 0].contiguous()
