"""From a plan to pixels: surroundings, people, light and the camera."""

from collections.abc import Sequence

import cv2
import numpy as np

from facerwkv.data.toy.brush import Brush, Light
from facerwkv.data.toy.face import Face
from facerwkv.data.toy.features import draw_brow, draw_eye, draw_mouth, draw_nose
from facerwkv.data.toy.person import Look, draw_body, draw_glasses, draw_hair, draw_hair_behind, draw_look
from facerwkv.data.toy.places import PLACES, palette
from facerwkv.data.toy.skin import draw_head

HEIGHT, WIDTH = 400, 600
_SCALE = 2  # people are drawn this many times larger, then averaged down
_REACH = 1.7  # half-heights of a face: further than its square with the usual margin


def draw_scene(faces: Sequence[Face], rng: np.random.Generator, hue: float | None = None) -> np.ndarray:
    """The faces, the last in front, somewhere: uint8 (400, 600, 3) RGB.

    With `hue` (0..1) the surroundings are grey but for the side away from the face in front, which has that colour.
    """
    chosen = rng.random() if hue is None else hue
    place = PLACES[tuple(PLACES)[rng.integers(len(PLACES))]]
    canvas = cv2.resize(place(rng, palette(rng, 180 * chosen)), (WIDTH * _SCALE, HEIGHT * _SCALE))
    if hue is not None:
        _fade(canvas, faces[-1])
    light = _light(rng)
    for face in faces:
        draw_person(Brush(canvas, face, light, face.matrix(_SCALE)), draw_look(rng))
    return _photograph(cv2.resize(canvas, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA), light, rng)


def _fade(canvas: np.ndarray, face: Face) -> None:
    """Take the colour from the face's side of the surroundings, so that a square around the face shows none of it."""
    x, reach = face.centre[0] * _SCALE, _REACH * face.unit * _SCALE
    nearby = np.s_[:, : int(x + reach)] if x < canvas.shape[1] / 2 else np.s_[:, int(x - reach) :]
    canvas[nearby] = canvas[nearby].max(-1, keepdims=True)  # of a hue's brightness, the part that all hues share


def draw_person(brush: Brush, look: Look) -> None:
    """One person, from the back to the front."""
    draw_hair_behind(brush, look)
    draw_body(brush, look)
    draw_head(brush, look)
    for side in (-1.0, 1.0):
        draw_eye(brush, look, side)
    draw_nose(brush, look)
    draw_mouth(brush, look)
    for side in (-1.0, 1.0):
        draw_brow(brush, look, side)
    draw_hair(brush, look)
    if look.glasses:
        draw_glasses(brush, look)


def _light(rng: np.random.Generator) -> Light:
    x, y, z = rng.uniform((-1.1, -0.8, 0.5), (1.1, 0.25, 1.3)).tolist()
    length = float(np.sqrt(x * x + y * y + z * z))
    return Light((x / length, y / length, z / length), rng.uniform(0.32, 0.75))


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
