"""Images a second: the loader and the cache against Pillow, on made-up photographs."""

from collections.abc import Callable, Iterator, Sequence, Sized
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image

from facerwkv.bench.answers import Disagreement
from facerwkv.bench.timing import Call, Measured, Setting, times_faster
from facerwkv.core.labels import EXPRESSIONS
from facerwkv.data.cache import open_cache
from facerwkv.data.loader import ImageDataset
from facerwkv.data.samples import Sample
from facerwkv.data.toy.scenes import render
from facerwkv.data.transforms import TransformConfig, normalise

IMAGES, WIDTH, HEIGHT, QUALITY = 16, 720, 480, 90
GRAIN = 4.0  # standard deviation of the noise, in grey values: the files then weigh about 70 kB, as photographs do
TRANSFORM = TransformConfig(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
LEVEL = 1 / 255


def loader(setting: Setting) -> Measured:
    """Files → uint8 images of 400 x 600, against Pillow's decoding and antialiased bilinear resizing."""
    with _photographs(setting) as samples:
        dataset = ImageDataset(samples, EXPRESSIONS, TRANSFORM)
        if (off := _difference(dataset)) > LEVEL:
            raise Disagreement(f"the images differ from Pillow's by {off:.2g} of the range, allowed is {LEVEL:.2g}")
        return times_faster(_each(_read, dataset), _each(_pillow, samples), setting)


def loader_difference(setting: Setting) -> Measured:
    """The mean difference of the loader's images from Pillow's, as a part of the range of values."""
    with _photographs(setting) as samples:
        return Measured(_difference(ImageDataset(samples, EXPRESSIONS, TRANSFORM)))


def cache(setting: Setting) -> Measured:
    """Cached images → float32 minus mean, divided by std, one at a time; against Pillow's uint8 images."""
    with _photographs(setting) as samples, TemporaryDirectory() as folder:
        stored = ImageDataset(samples, EXPRESSIONS, TRANSFORM, open_cache(samples, TRANSFORM, Path(folder)))
        fresh = ImageDataset(samples, EXPRESSIONS, TRANSFORM)
        if not all(np.array_equal(stored.image(i), fresh.image(i)) for i in range(len(samples))):
            raise Disagreement("the cache holds other images than the loader gives")
        return times_faster(_each(_read_normalised, stored), _each(_pillow, samples), setting)


def _each(read: Callable[[Any, int], object], images: Sized) -> Call:
    """A call that reads one image after another and keeps none."""

    def run() -> None:
        for index in range(len(images)):
            read(images, index)

    return run


def _read(dataset: ImageDataset, index: int) -> torch.Tensor:
    return dataset[index]["image"]


def _read_normalised(dataset: ImageDataset, index: int) -> torch.Tensor:
    return normalise(_read(dataset, index)[None], TRANSFORM)


def _difference(dataset: ImageDataset) -> float:
    """Mean over all images, as a part of the range."""
    each = range(len(dataset))
    pairs = ((_read(dataset, index).numpy().astype(int), _pillow(dataset.samples, index)) for index in each)
    return float(np.mean([np.abs(ours - theirs).mean() for ours, theirs in pairs])) / 255


def _pillow(samples: Sequence[Sample], index: int) -> np.ndarray:
    height, width = TRANSFORM.image_size
    with Image.open(samples[index].image) as image:  # type: ignore[arg-type]
        return np.asarray(image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR))


@contextmanager
def _photographs(setting: Setting) -> Iterator[list[Sample]]:
    with TemporaryDirectory() as folder:
        samples = []
        for index in range(IMAGES // setting.shrink):
            path = Path(folder) / f"{index:02d}.jpg"
            _photograph(index).save(path, quality=QUALITY)
            samples.append(Sample(path.name, path, EXPRESSIONS[index % len(EXPRESSIONS)]))
        yield samples


def _photograph(index: int) -> Image.Image:
    """A drawn scene, enlarged, with the grain of a sensor; every other one is a mosaic of four."""
    scene = Image.fromarray(render(index, "train").image).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    pixels = np.asarray(scene, np.float64)
    if index % 2:
        halves = np.asarray(scene.resize((WIDTH // 2, HEIGHT // 2), Image.Resampling.BOX), np.float64)
        pixels = np.tile(halves, (2, 2, 1))
    grain = np.random.default_rng(index).normal(0, GRAIN, pixels.shape[:2])
    return Image.fromarray((pixels + grain[..., None]).clip(0, 255).astype(np.uint8))
