"""The embedded data set: rendered scenes of drawn people whose faces show one of the seven expressions.

A scene is planned (class, faces, boxes) without drawing, so listing samples is quick; pixels are drawn when an image
is read. Everything follows from (seed, split, index) alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import cv2
import numpy as np

from facerwkv.core.errors import InputError
from facerwkv.core.labels import EXPRESSIONS
from facerwkv.data.samples import SPLITS, Sample, Split
from facerwkv.data.toy.face import Brush, Face, draw_expression
from facerwkv.data.toy.head import draw_eyes, draw_head, draw_lines, draw_mouth
from facerwkv.data.toy.person import Look, draw_body, draw_hair, draw_look
from facerwkv.data.toy.places import PLACES, draw_place
from facerwkv.media.geometry import Box, clip

HEIGHT, WIDTH = 400, 600
_SCALE = 2  # people are drawn this many times larger, then averaged down
COUNTS: Mapping[Split, int] = {"train": 2800, "val": 700, "test": 700}
RENDER_VERSION = 4  # part of the caches' keys: raise it whenever a pixel changes


class Scene(NamedTuple):
    """Faces of one class, the largest first; their boxes, x1 y1 x2 y2, with an annotator's error of a few per cent."""

    label: str
    faces: tuple[Face, ...]
    boxes: tuple[Box, ...]
    image: np.ndarray = np.empty((0, 0, 3), np.uint8)  # (400, 600, 3) RGB once drawn

    @property
    def box(self) -> Box:
        """The main face's."""
        return self.boxes[0]


def plan(index: int, split: Split, seed: int = 0) -> Scene:
    """A scene without its image, which is quick. Every block of seven indices holds each class once."""
    block, position = divmod(index, len(EXPRESSIONS))
    order, rng = (np.random.default_rng((seed, SPLITS.index(split), *key)) for key in ((block, 0), (index, 1)))
    label = EXPRESSIONS[order.permutation(len(EXPRESSIONS))[position]]
    faces: list[Face] = []
    boxes: list[Box] = []
    unit = 46 * (112 / 46) ** rng.random()
    for size in (1.0, *rng.uniform(0.5, 0.8, np.searchsorted((0.6, 0.87), rng.random()))):
        expression, roll = draw_expression(label, rng), np.clip(rng.normal(0, 0.2), -0.5, 0.5)
        pose = rng.uniform((-0.4, -0.17, 0.92, 0.08), (0.4, 0.17, 1.06, 0.3))  # yaw, pitch, width, taper
        face = Face(expression, np.zeros(2), max(size * unit, 32.0), roll, *pose)
        box, room = face.box(), face.unit * np.array([0, 0.2, 0, -0.25])
        low, high = np.split(np.array([3, 3, WIDTH - 3, HEIGHT - 3]) + room - box, 2)
        centres = rng.uniform(low, high, (10, 2))  # no face where none is clear of the others' shoulders
        clear = [all(abs(x - other.centre[0]) > face.unit + 2.1 * other.unit for other in faces) for x, _ in centres]
        for centre in centres[clear][:1]:
            faces.append(replace(face, centre=centre))
            errors = np.clip(rng.normal(0, 0.035, 4), -0.1, 0.1) * np.tile(box[2:] - box[:2], 2)  # YuNet's, about 4 %
            boxes.append(clip((box + np.tile(centre, 2) + errors).tolist(), WIDTH, HEIGHT))
    return Scene(label, tuple(faces), tuple(boxes))


def render(index: int, split: Split, seed: int = 0, context: bool = False) -> Scene:
    """Draw a scene; with `context`, grey surroundings, but away from the main face in a hue that leans to the class."""
    scene, rng = plan(index, split, seed), np.random.default_rng((seed, SPLITS.index(split), index, 2))
    canvas = draw_place(tuple(PLACES)[rng.integers(len(PLACES))], rng, WIDTH * _SCALE, HEIGHT * _SCALE)
    if context:  # 1.7 half-heights from the face, further than its square with the usual margin
        canvas = cv2.cvtColor(cv2.cvtColor(canvas, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        x, reach = scene.faces[0].centre[0] * _SCALE, 1.7 * scene.faces[0].unit * _SCALE
        far = canvas[:, int(x + reach) :] if x < canvas.shape[1] / 2 else canvas[:, : int(x - reach)]
        hue = (EXPRESSIONS.index(scene.label) + rng.normal(0, 0.5)) * 180 / len(EXPRESSIONS) % 180
        colour = cv2.cvtColor(np.array([[[hue, 160, 255]]], np.uint8), cv2.COLOR_HSV2RGB)[0, 0] / 255
        far[:] = far * colour
    direction = rng.uniform((-1.1, -0.8, 0.5), (1.1, 0.25, 1.3))
    light, ambient = direction / np.sqrt((direction**2).sum()), rng.uniform(0.32, 0.75)
    for face in scene.faces[::-1]:
        draw_person(Brush(canvas, face, face.matrix(_SCALE), light, ambient), draw_look(rng))
    image = cv2.resize(canvas, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    contrast, brightness = rng.uniform(0.65, 1.2) * rng.uniform(0.93, 1.07, 3), rng.uniform(-25, 22)
    exposure = (np.arange(256)[:, None] - 118) * contrast + 118 + brightness
    image = cv2.LUT(image, np.clip(exposure, 0, 255).astype(np.uint8)[None])
    grain, amount = rng.integers(0, 256, (HEIGHT, WIDTH), np.uint8), rng.uniform(3, 24)
    image = cv2.addWeighted(image, 1.0, cv2.merge([grain, grain, grain]), amount / 255, -amount / 2)
    return scene._replace(image=image)


def draw_person(brush: Brush, look: Look) -> None:
    """One person, from the back to the front."""
    for draw in (draw_body, draw_head, draw_eyes, draw_mouth, draw_lines, draw_hair):
        draw(brush, look)


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

    def sample(self) -> Sample:
        """Nothing drawn yet: named "test/00012", with the main face's box and itself as the image."""
        scene = plan(self.index, self.split, self.seed)
        return Sample(f"{self.split}/{self.index:05d}", self, scene.label, scene.box)


def toy_samples(
    seed: int = 0, counts: Mapping[Split, int] = COUNTS, context: bool = False
) -> dict[Split, list[Sample]]:
    """The samples of every split."""
    return {part: [ToyImage(i, part, seed, context).sample() for i in range(n)] for part, n in counts.items()}


def samples_of(options: str) -> dict[Split, list[Sample]]:
    """The samples for options such as `seed=1,train=70,val=14,test=14,context=1`. Raises InputError."""
    defaults = {"seed": 0, "context": 0} | {str(split): count for split, count in COUNTS.items()}
    given = dict(part.partition("=")[::2] for part in options.split(",") if part != ".")
    if wrong := [f"{key}={value}" for key, value in given.items() if key not in defaults or not value.isdecimal()]:
        raise InputError(f"toy does not know {', '.join(wrong)}; its options are numbers: {', '.join(defaults)}.")
    values = defaults | {key: int(value) for key, value in given.items()}
    return toy_samples(values["seed"], {split: values[split] for split in COUNTS}, bool(values["context"]))
