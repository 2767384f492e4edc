"""Augmentation: what changes a batch from epoch to epoch, on its device. Random numbers are keyed by (seed, epoch,
sample): a sample is augmented in the same way in whatever batch, process or resumed run it turns up.
"""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from facerwkv.data.config import AugmentConfig

_INT64 = 1 << 63


class Augment:
    """Flip, rotation, size, shift, brightness, contrast and erasing, drawn anew for every sample and epoch.

    Takes float (B, c, h, w) in 0..1, as `normalise` has them on the way, and the samples' ids, int64
    (B,); gives the same shape and range, and the very input where everything is off. What is drawn depends on (seed,
    epoch, id) alone.
    """

    def __init__(self, config: AugmentConfig, seed: int = 0):
        self.config, self.seed = config, seed

    @torch.no_grad()
    def __call__(self, images: Tensor, ids: Tensor, epoch: int) -> Tensor:
        config = self.config
        flip, *draws = uniforms(self.seed, epoch, ids.to(images.device), 12)[..., None, None, None].unbind(1)
        where, colour, erase = draws[:4], draws[4:6], draws[6:]
        if config.rotate or config.scale or config.translate:
            images = self._move(images, flip[:, 0] < config.flip, *(2 * draw[:, 0] - 1 for draw in where))
        elif config.flip:
            images = torch.where(flip < config.flip, images.flip(-1), images)
        if config.brightness or config.contrast:
            brightness, contrast = (2 * draw - 1 for draw in colour)
            images = images * (1 + config.brightness * brightness)
            mean = images.mean((2, 3) if config.contrast_mean == "channel" else (1, 2, 3), keepdim=True)
            images = images.sub_(mean).mul_(1 + config.contrast * contrast).add_(mean).clamp_(0, 1)
        return self._erase(images, *erase) if config.erase else images

    def _move(self, images: Tensor, flip: Tensor, turn: Tensor, size: Tensor, across: Tensor, down: Tensor) -> Tensor:
        """The affine part in one resampling. The draws are (B, 1, 1): a flag, then numbers in -1..1.

        Every pixel's source is worked out element by element (no matrix product), so that it does not depend on the
        batch. Coordinates run from -1 to 1 over the width and over the height.
        """
        config, (height, width) = self.config, images.shape[-2:]
        x = _centres(width, images) * 2 - 1 - 2 * config.translate * across
        y = _centres(height, images)[:, None] * 2 - 1 - 2 * config.translate * down
        angle, scale = turn * math.radians(config.rotate), 1 + config.scale * size
        cos, sin = angle.cos() / scale, angle.sin() / scale
        mirror = 1 - 2 * flip.to(images.dtype)
        grid = images.new_empty(len(images), height, width, 2)
        torch.add(mirror * cos * x, mirror * sin * (height / width) * y, out=grid[..., 0])
        torch.sub(cos * y, sin * (width / height) * x, out=grid[..., 1])
        return grid_sample(images, grid, padding_mode="border", align_corners=False)

    def _erase(self, images: Tensor, chance: Tensor, area: Tensor, shape: Tensor, down: Tensor, across: Tensor):
        """The draws are (B, 1, 1, 1), in 0..1. Height to width is 1:3 to 3:1, as parts of the image's own."""
        least, largest = self.config.erase_area
        area, ratio = least + (largest - least) * area, 3 ** (2 * shape - 1)
        height, width = (area * ratio).sqrt(), (area / ratio).sqrt()
        x, y = _centres(images.shape[-1], images), _centres(images.shape[-2], images)[:, None]
        top, left = down * (1 - height), across * (1 - width)
        inside = (y >= top) & (y < top + height) & (x >= left) & (x < left + width) & (chance < self.config.erase)
        return torch.where(inside, images.mean((2, 3), keepdim=True), images)


def mix(images: Tensor, targets: Tensor, config: AugmentConfig, key: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """Blend every image of a batch (mixup), or replace a rectangle of it (cutmix), with another one's.

    images: float (B, c, h, w); targets: class probabilities (B, C), blended in the same shares. key: seed, epoch and
    step. With both on, each batch takes one of the two, by even chance; with both off, or from `mixup_off_epoch` on,
    the inputs come back.
    """
    ways = [way for way in ("mixup", "cutmix") if getattr(config, way)]
    if not ways or 0 < config.mixup_off_epoch <= key[1]:
        return images, targets
    rng = keyed_rng(*key)
    way = ways[rng.integers(len(ways))]
    partner = torch.from_numpy(rng.permutation(len(images))).to(images.device)
    others, share = images[partner], float(rng.beta(getattr(config, way), getattr(config, way)))
    if way == "mixup":
        images = torch.lerp(others, images, share)
    else:  # a rectangle of about 1 - share of the image, around a random point
        sides = np.array(images.shape[-2:])
        half = sides * math.sqrt(1 - share) / 2
        middle = rng.random(2) * sides
        top, left = (middle - half).round().clip(0).astype(int)
        bottom, right = (middle + half).round().clip(max=sides).astype(int)
        images = images.clone()
        images[..., top:bottom, left:right] = others[..., top:bottom, left:right]
        share = 1 - float((bottom - top) * (right - left) / sides.prod())
    return images, targets * share + targets[partner] * (1 - share)


def keyed_rng(*key: int) -> np.random.Generator:
    """A generator that depends on the key alone; negative numbers are welcome."""
    return np.random.default_rng([part % (1 << 64) for part in key])


def uniforms(seed: int, epoch: int, ids: Tensor, count: int) -> Tensor:
    """float32 (B, count) in [0, 1), a pure function of (seed, epoch, id, column); the same on every device.

    A counter-based generator: splitmix64 (Steele, Lea & Flood 2014) of the key, its upper 24 bits.
    """
    start = _splitmix(_splitmix(torch.tensor(_signed(seed))) + epoch)
    stream = _splitmix(start.to(ids.device) + ids.to(torch.int64))
    numbers = _splitmix(stream[:, None] + torch.arange(count, device=ids.device))
    return _shifted(numbers, 40).to(torch.float32) / (1 << 24)


def _splitmix(state: Tensor) -> Tensor:
    """One step of splitmix64 on int64, whose sums and products wrap."""
    state = state * _signed(0x9E3779B97F4A7C15) + _signed(0x9E3779B97F4A7C15)
    state = (state ^ _shifted(state, 30)) * _signed(0xBF58476D1CE4E5B9)
    state = (state ^ _shifted(state, 27)) * _signed(0x94D049BB133111EB)
    return state ^ _shifted(state, 31)


def _shifted(state: Tensor, bits: int) -> Tensor:
    """A logical right shift: torch's own repeats the sign."""
    return (state >> bits) & ((1 << (64 - bits)) - 1)


def _signed(number: int) -> int:
    return (number + _INT64) % (2 * _INT64) - _INT64


def _centres(count: int, like: Tensor) -> Tensor:
    """The middles of `count` pixels, from 0 to 1 over all."""
    return (torch.arange(count, device=like.device, dtype=like.dtype) + 0.5) / count
