"""Images per second: the loader and the cache against Pillow, on made-up photographs."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from facerwkv.bench.answers import Disagreement
from facerwkv.bench.timing import BenchSetting, Call, Measured, relative
from facerwkv.core.labels import EXPRESSIONS
from facerwkv.data.cache import open_cache
from facerwkv.data.loader import ImageDataset
from facerwkv.data.normalise import normalise
from facerwkv.data.samples import Sample
from facerwkv.data.toy.scenes import render
from facerwkv.data.transforms import TransformConfig

IMAGES, WIDTH, HEIGHT, QUALITY = 16, 720, 480, 90
GRAIN = 4.0  # standard deviation of the noise, in grey values: the files then weigh about 70 kB, as photographs do
TRANSFORM = TransformConfig(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
LEVEL = 1 / 255


def loader(setting: BenchSetting, timed: bool = True) -> Measured:
    """Files → uint8 images of 400 x 600, against Pillow's decoding and antialiased bilinear resizing.

    If not `timed`, the mean difference of the loader's images from Pillow's, as a part of the range of values.
    """
    with _photographs(setting) as samples:
        dataset, differences = ImageDataset(samples, EXPRESSIONS, TRANSFORM), []
        for index in range(len(dataset)):
            loaded = dataset[index]["image"].numpy().astype(int)
            differences.append(np.abs(loaded - _pillow(samples, index)).mean())
        off = float(np.mean(differences)) / 255
        if not timed:
            return Measured(off)
        if off > LEVEL:
            raise Disagreement(f"the images differ from Pillow's by {off:.2g} of the range, allowed is {LEVEL:.2g}")
        ours, peer = (_over_all(samples, read) for read in (dataset.__getitem__, partial(_pillow, samples)))
        return relative(ours, peer, setting, inverse=True)


def cache(setting: BenchSetting) -> Measured:
    """Cached images → float32 minus mean, divided by std, one at a time; against Pillow's uint8 images."""
    with _photographs(setting) as samples, TemporaryDirectory() as folder:
        stored = ImageDataset(samples, EXPRESSIONS, TRANSFORM, open_cache(samples, TRANSFORM, Path(folder)))
        fresh = ImageDataset(samples, EXPRESSIONS, TRANSFORM)
        if not all(np.array_equal(stored.image(i), fresh.image(i)) for i in range(len(samples))):
            raise Disagreement("the cache has other images than the loader gives")
        ours = _over_all(samples, lambda index: normalise(stored[index]["image"][None], TRANSFORM))
        return relative(ours, _over_all(samples, partial(_pillow, samples)), setting, inverse=True)


def _over_all(samples: Sequence[Sample], read: Callable[[int], object]) -> Call:
    """A call that reads one image after another and keeps none."""

    def run() -> None:
        for index in range(len(samples)):
            read(index)

    return run


def _pillow(samples: Sequence[Sample], index: int) -> np.ndarray:
    height, width = TRANSFORM.image_size
    with Image.open(samples[index].image) as image:  # type: ignore[arg-type]
        return np.asarray(image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR))


@contextmanager
def _photographs(setting: BenchSetting) -> Iterator[list[Sample]]:
    """Drawn scenes, enlarged, with the grain of a sensor, as files; every other one is a mosaic of four."""
    with TemporaryDirectory() as folder:
        samples = []
        for index in range(IMAGES // setting.shrink):
            scene = Image.fromarray(render(index, "train").image).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
            pixels = np.asarray(scene, np.float64)
            if index % 2:
                quarter = np.asarray(scene.resize((WIDTH // 2, HEIGHT // 2), Image.Resampling.BOX), np.float64)
                pixels = np.tile(quarter, (2, 2, 1))
            grain = np.random.default_rng(index).normal(0, GRAIN, pixels.shape[:2])
            path = Path(folder) / f"{index:02d}.jpg"
            photograph = (pixels + grain[..., None]).clip(0, 255).astype(np.uint8)
            Image.fromarray(photograph).save(path, quality=QUALITY)
            samples.append(Sample(path.name, path, EXPRESSIONS[index % len(EXPRESSIONS)]))
        yield samples
