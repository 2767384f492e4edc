"""The embedded data set: rendered scenes of drawn people whose faces show one of the seven expressions.

A scene is planned (its class, the faces, their boxes) without drawing anything, so listing the samples is quick; the
pixels are drawn when an image is read. Everything follows from (seed, split, index) alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np

from facerwkv.core.errors import InputError
from facerwkv.core.labels import EXPRESSIONS
from facerwkv.data.samples import SPLITS, Sample, Split
from facerwkv.data.toy.brush import Brush, Light
from facerwkv.data.toy.face import Face, draw_expression
from facerwkv.data.toy.head import draw_brow, draw_eye, draw_head, draw_mouth, draw_nose
from facerwkv.data.toy.person import Look, draw_body, draw_glasses, draw_hair, draw_hair_behind, draw_look
from facerwkv.data.toy.places import PLACES, palette
from facerwkv.media.geometry import Box, clip

HEIGHT, WIDTH = 400, 600
_SCALE = 2  # people are drawn this many times larger, then averaged down
_REACH = 1.7  # half-heights of a face: further than its square with the usual margin
COUNTS: Mapping[Split, int] = {"train": 2800, "val": 700, "test": 700}
RENDER_VERSION = 2  # part of the caches' keys: raise it whenever a pixel changes
_FACES, _ORDER, _PIXELS, _HUE = range(4)  # the streams of random numbers of a scene


@dataclass(frozen=True)
class Plan:
    """What a scene will show: its faces, the largest first, all of class `label`, and their boxes.

    Boxes are x1 y1 x2 y2 in pixels: forehead to chin, ear to ear, with an annotator's few per cent of error.
    """

    label: str
    faces: tuple[Face, ...]
    boxes: tuple[Box, ...]

    @property
    def box(self) -> Box:
        """The main face's."""
        return self.boxes[0]


@dataclass(frozen=True)
class Scene(Plan):
    """A plan and its image, uint8 (400, 600, 3) RGB."""

    image: np.ndarray


def plan(index: int, split: Split, seed: int = 0) -> Plan:
    """The class and the faces of a scene. Every block of seven indices holds each class once."""
    block, position = divmod(index, len(EXPRESSIONS))
    label = _order(block, split, seed)[position]
    rng = _rng(_FACES, index, split, seed)
    faces: list[Face] = []
    unit = 46 * (112 / 46) ** rng.random()
    for size in (1.0, *rng.uniform(0.5, 0.8, np.searchsorted((0.6, 0.87), rng.random()))):
        expression, roll = draw_expression(label, rng), min(max(rng.normal(0, 0.2), -0.5), 0.5)
        yaw, pitch, width, taper = rng.uniform((-0.4, -0.17, 0.92, 0.08), (0.4, 0.17, 1.06, 0.3)).tolist()
        face = Face(expression, (0.0, 0.0), max(size * unit, 32.0), roll, yaw, pitch, width, taper)
        x1, y1, x2, y2 = face.box()
        left, top = 3 - x1, 3 - y1 + 0.2 * face.unit
        right, bottom = WIDTH - 3 - x2, HEIGHT - 3 - y2 - 0.25 * face.unit
        for u, v in rng.random((10, 2)).tolist():  # no face where ten tries find no free spot
            placed = replace(face, centre=(left + u * (right - left), top + v * (bottom - top)))
            if all(_apart(placed, other) for other in faces):
                faces.append(placed)
                break
    boxes = []
    for face in faces:  # as an annotator or a detector gives them: edges off by some 4 %, YuNet's error
        x1, y1, x2, y2 = box = face.box()
        errors = np.clip(rng.normal(0, 0.035, 4), -0.1, 0.1).tolist()
        sizes = (x2 - x1, y2 - y1, x2 - x1, y2 - y1)
        edges = [edge + error * size for edge, error, size in zip(box, errors, sizes, strict=True)]
        boxes.append(clip(edges, WIDTH, HEIGHT))
    return Plan(label, tuple(faces), tuple(boxes))


@lru_cache(maxsize=1024)
def _order(block: int, split: Split, seed: int) -> tuple[str, ...]:
    """The classes of seven neighbouring scenes."""
    return tuple(EXPRESSIONS[i] for i in _rng(_ORDER, block, split, seed).permutation(len(EXPRESSIONS)))


def _rng(stream: int, index: int, split: Split, seed: int) -> np.random.Generator:
    return np.random.default_rng((seed, SPLITS.index(split), index, stream))


def _apart(back: Face, front: Face) -> bool:
    """Whether the smaller face `back` is clear of the head and the shoulders of `front`."""
    across = abs(back.centre[0] - front.centre[0])
    above_shoulders = back.centre[1] < front.centre[1]
    return across > 1.1 * (back.unit + front.unit) and (above_shoulders or across > back.unit + 2.1 * front.unit)


def render(index: int, split: Split, seed: int = 0, context: bool = False) -> Scene:
    """Draw a scene. With `context`, colour far from the main face leans to the class too, as places do in films."""
    planned = plan(index, split, seed)
    hue = _hue(planned.label, _rng(_HUE, index, split, seed)) if context else None
    image = draw_scene(planned.faces[::-1], _rng(_PIXELS, index, split, seed), hue)
    return Scene(planned.label, planned.faces, planned.boxes, image)


def _hue(label: str, rng: np.random.Generator) -> float:
    return (EXPRESSIONS.index(label) + rng.normal(0, 0.25)) / len(EXPRESSIONS)


def draw_scene(faces: Sequence[Face], rng: np.random.Generator, hue: float | None = None) -> np.ndarray:
    """The faces, the last in front, somewhere: uint8 (400, 600, 3) RGB.

    With `hue` (0..1) the surroundings are grey but for the side away from the face in front, which has that colour.
    """
    chosen = rng.random() if hue is None else hue
    place = PLACES[tuple(PLACES)[rng.integers(len(PLACES))]]
    canvas = cv2.resize(place(rng, palette(rng, 180 * chosen)), (WIDTH * _SCALE, HEIGHT * _SCALE))
    if hue is not None:  # so that a square around the face shows none of it
        x, reach = faces[-1].centre[0] * _SCALE, _REACH * faces[-1].unit * _SCALE
        nearby = np.s_[:, : int(x + reach)] if x < canvas.shape[1] / 2 else np.s_[:, int(x - reach) :]
        canvas[nearby] = canvas[nearby].max(-1, keepdims=True)  # of a hue's brightness, what all hues share
    direction = rng.uniform((-1.1, -0.8, 0.5), (1.1, 0.25, 1.3))
    x, y, z = (direction / np.sqrt((direction**2).sum())).tolist()
    light = Light((x, y, z), rng.uniform(0.32, 0.75))
    for face in faces:
        draw_person(Brush(canvas, face, light, face.matrix(_SCALE)), draw_look(rng))
    return _photograph(cv2.resize(canvas, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA), light, rng)


def draw_person(brush: Brush, look: Look) -> None:
    """One person, from the back to the front."""
    draw_hair_behind(brush, look)
    draw_body(brush, look)
    draw_head(brush, look)
    for side in (-1, 1):
        draw_eye(brush, look, side)
    draw_nose(brush, look)
    draw_mouth(brush, look)
    for side in (-1, 1):
        draw_brow(brush, look, side)
    draw_hair(brush, look)
    if look.glasses:
        draw_glasses(brush, look)


def _photograph(image: np.ndarray, light: Light, rng: np.random.Generator) -> np.ndarray:
    """Light that falls off across the image, exposure, contrast, tint and noise."""
    slope = rng.uniform(0, 0.35)
    across = 1 + slope * light.direction[0] * np.linspace(-1, 1, 24)
    down = 1 + slope * light.direction[1] * np.linspace(-1, 1, 16)
    field = cv2.resize((np.outer(down, across) * 140).astype(np.uint8), (WIDTH, HEIGHT))
    image = cv2.multiply(image, cv2.merge([field, field, field]), scale=1 / 140)
    contrast, brightness = rng.uniform(0.65, 1.2), rng.uniform(-25, 22)
    levels = np.arange(256)[:, None]
    curves = (levels - 118) * contrast * rng.uniform(0.93, 1.07, 3) + 118 + brightness
    image = cv2.LUT(image, np.clip(curves, 0, 255).astype(np.uint8)[None])
    grain, amount = rng.integers(0, 256, (HEIGHT, WIDTH), np.uint8), rng.uniform(3, 24)
    return cv2.addWeighted(image, 1.0, cv2.merge([grain, grain, grain]), amount / 255, -amount / 2)


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

    samples: dict[Split, list[Sample]] = {split: [] for split in counts}
    for split, count in counts.items():
        for index in range(count):
            image, planned = ToyImage(index, split, seed, context), plan(index, split, seed)
            samples[split].append(Sample(f"{split}/{index:05d}", image, planned.label, planned.box))
    return samples


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
    indices = range(rows * columns + -(rows * columns) % len(EXPRESSIONS))
    ordered = sorted(indices, key=lambda index: (index // len(EXPRESSIONS), plan(index, "train", seed).label))
    images = [render(index, "train", seed).image for index in ordered[: rows * columns]]
    tiles = np.stack([cv2.resize(image, (WIDTH // 2, HEIGHT // 2), interpolation=cv2.INTER_AREA) for image in images])
    return np.concatenate(np.concatenate(tiles.reshape(rows, columns, *tiles.shape[1:]), axis=1), axis=1)
