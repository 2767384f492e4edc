"""The embedded data set: rendered scenes of drawn people whose faces show one of the seven expressions.

A scene is planned (its class, the faces, their boxes) without drawing anything, so listing the samples is quick; the
pixels are drawn when an image is read. Everything follows from (seed, split, index) alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from facerwkv.core.errors import InputError
from facerwkv.core.labels import EXPRESSIONS
from facerwkv.data.samples import SPLITS, Sample, Split
from facerwkv.data.toy.face import Face, draw_expression
from facerwkv.data.toy.render import HEIGHT, WIDTH, draw_scene
from facerwkv.media.geometry import Box

COUNTS: Mapping[Split, int] = {"train": 2800, "val": 700, "test": 700}
RENDER_VERSION = 2  # part of the caches' keys: raise it whenever a pixel changes
_FACES, _ORDER, _PIXELS, _HUE = range(4)  # the streams of random numbers of a scene


@dataclass(frozen=True)
class Scene:
    """An image, uint8 (400, 600, 3) RGB; its class; the box of its main (largest) face, and of every face.

    Boxes are x1 y1 x2 y2 in pixels: forehead to chin, ear to ear, with an annotator's few per cent of error.
    """

    image: np.ndarray
    label: str
    box: Box
    boxes: tuple[Box, ...]


@dataclass(frozen=True)
class Plan:
    """What a scene will show: its faces, the largest first, all of class `label`, and their boxes."""

    label: str
    faces: tuple[Face, ...]
    boxes: tuple[Box, ...]


def plan(index: int, split: Split, seed: int = 0) -> Plan:
    """The class and the faces of a scene. Every block of seven indices holds each class once."""
    block, place = divmod(index, len(EXPRESSIONS))
    label = _order(block, split, seed)[place]
    rng = _rng(_FACES, index, split, seed)
    faces: list[Face] = []
    unit = 46 * (112 / 46) ** rng.random()
    for size in (1.0, *rng.uniform(0.5, 0.8, np.searchsorted((0.6, 0.87), rng.random()))):
        placed = _place(_face(label, rng, max(size * unit, 32.0)), faces, rng)
        faces += [placed] if placed else []
    return Plan(label, tuple(faces), tuple(_annotated(face.box(), rng) for face in faces))


@lru_cache(maxsize=1024)
def _order(block: int, split: Split, seed: int) -> tuple[str, ...]:
    """The classes of seven neighbouring scenes."""
    return tuple(EXPRESSIONS[i] for i in _rng(_ORDER, block, split, seed).permutation(len(EXPRESSIONS)))


def _rng(stream: int, index: int, split: Split, seed: int) -> np.random.Generator:
    return np.random.default_rng((seed, SPLITS.index(split), index, stream))


def _face(label: str, rng: np.random.Generator, unit: float) -> Face:
    """A face of half-height `unit`, not yet placed."""
    return Face(
        expression=draw_expression(label, rng),
        centre=(0.0, 0.0),
        unit=unit,
        roll=min(max(rng.normal(0, 0.2), -0.5), 0.5),
        yaw=rng.uniform(-0.4, 0.4),
        pitch=rng.uniform(-0.17, 0.17),
        width=rng.uniform(0.92, 1.06),
        taper=rng.uniform(0.08, 0.3),
    )


def _place(face: Face, others: Sequence[Face], rng: np.random.Generator) -> Face | None:
    """The face where its box lies inside the image, clear of the others; None when ten tries find no such place."""
    x1, y1, x2, y2 = face.box()
    left, top = 3 - x1, 3 - y1 + 0.2 * face.unit
    right, bottom = WIDTH - 3 - x2, HEIGHT - 3 - y2 - 0.25 * face.unit
    places = rng.random((10, 2)).tolist()
    tries = (face.moved(left + u * (right - left), top + v * (bottom - top)) for u, v in places)
    return next((placed for placed in tries if all(_apart(placed, other) for other in others)), None)


def _apart(back: Face, front: Face) -> bool:
    """Whether the smaller face `back` is clear of the head and the shoulders of `front`."""
    across = abs(back.centre[0] - front.centre[0])
    above_shoulders = back.centre[1] < front.centre[1]
    return across > 1.1 * (back.unit + front.unit) and (above_shoulders or across > back.unit + 2.1 * front.unit)


def _annotated(box: Box, rng: np.random.Generator) -> Box:
    """The box as an annotator or a detector gives it: edges off by some 4 %, YuNet's error, inside the image."""
    x1, y1, x2, y2 = box
    errors = (min(max(error, -0.1), 0.1) for error in rng.normal(0, 0.035, 4).tolist())
    left, top, right, bottom = (
        edge + error * size for edge, error, size in zip(box, errors, (x2 - x1, y2 - y1) * 2, strict=True)
    )
    return max(left, 0.0), max(top, 0.0), min(right, float(WIDTH)), min(bottom, float(HEIGHT))


def render(index: int, split: Split, seed: int = 0, context: bool = False) -> Scene:
    """Draw a scene. With `context`, colour far from the main face leans to the class too, as places do in films."""
    planned = plan(index, split, seed)
    hue = _hue(planned.label, _rng(_HUE, index, split, seed)) if context else None
    image = draw_scene(planned.faces[::-1], _rng(_PIXELS, index, split, seed), hue)
    return Scene(image, planned.label, planned.boxes[0], planned.boxes)


def _hue(label: str, rng: np.random.Generator) -> float:
    return (EXPRESSIONS.index(label) + rng.normal(0, 0.25)) / len(EXPRESSIONS)


@dataclass(frozen=True)
class ToyImage:
    """Renders its image when called: uint8 (400, 600, 3) RGB. Its repr stands for the pixels in caches' keys."""

    index: int
    split: Split
    seed: int = 0
    context: bool = False
    version: int = RENDER_VERSION

    def __call__(self) -> np.ndarray:
        return render(self.index, self.split, self.seed, self.context).image


def toy_samples(
    seed: int = 0, counts: Mapping[Split, int] = COUNTS, context: bool = False
) -> dict[Split, list[Sample]]:
    """The samples of every split, nothing drawn yet: named "test/00012", with the main face's box and a ToyImage."""

    def sample(index: int, split: Split) -> Sample:
        planned = plan(index, split, seed)
        image = ToyImage(index, split, seed, context)
        return Sample(name=f"{split}/{index:05d}", image=image, label=planned.label, box=planned.boxes[0])

    return {split: [sample(index, split) for index in range(count)] for split, count in counts.items()}


def samples_of(options: str) -> dict[Split, list[Sample]]:
    """The samples for options such as `seed=1,train=70,val=14,test=14,context=1`. Raises InputError."""
    defaults = {"seed": 0, "context": 0} | {str(split): count for split, count in COUNTS.items()}
    given = dict(part.partition("=")[::2] for part in options.split(",") if part != ".")
    if wrong := [f"{key}={value}" for key, value in given.items() if key not in defaults or not value.isdecimal()]:
        raise InputError(f"toy does not know {', '.join(wrong)}; its options are numbers: {', '.join(defaults)}.")
    values = defaults | {key: int(value) for key, value in given.items()}
    return toy_samples(values["seed"], {split: values[split] for split in COUNTS}, bool(values["context"]))


def montage(seed: int = 0, rows: int = 3, columns: int = 4) -> np.ndarray:
    """Scenes of the training split at half size, the classes in turn: uint8 (200 rows, 300 columns, 3) RGB."""
    blocks = range(0, rows * columns, len(EXPRESSIONS))
    ordered = [
        index
        for block in blocks
        for index in sorted(range(block, block + len(EXPRESSIONS)), key=lambda index: plan(index, "train", seed).label)
    ]
    tiles = np.stack([render(index, "train", seed).image for index in ordered[: rows * columns]])
    halves = tiles.reshape(rows, columns, HEIGHT // 2, 2, WIDTH // 2, 2, 3).mean((3, 5))
    return halves.transpose(0, 2, 1, 3, 4).reshape(rows * HEIGHT // 2, columns * WIDTH // 2, 3).round().astype(np.uint8)
