"""A face, its expression as movements of brows, lids, nose and mouth, and the brush that draws in its coordinates.

Face coordinates: origin between nose and eyes, x to the image's right, y down, 1 = half the height from hairline to
chin. Features are described on an upright frontal face; `Face.turn` and `Face.matrix` bring them into the image.
"""

from collections import namedtuple
from dataclasses import dataclass
from math import comb

import cv2
import numpy as np

# How the features are placed, with the action units of FACS: ends of the brows raised (AU1, AU2, below 0 AU4), brows
# drawn together (AU4), upper lid open (AU5 above 1), lower lid raised (AU7), upper lid falling towards the temple, nose
# wrinkled (AU9), cheek raised (AU6), lip corners up (AU12, below 0 AU15), half the mouth's width (AU20, AU18), upper
# lip above its line (AU10), lower lip below it (AU25, AU26), the share of the opening that the upper teeth fill (below
# 0 the lower ones, 1 clenched), and how thick the lips are (below 1 pressed, AU23 and AU24).
Expression = namedtuple("Expression", "inner outer draw lid squint droop sneer cheek corner width rise drop teeth lips")
# Ekman and Friesen's prototypes, the variants of each class; the columns are Expression's fields in their order.
PROTOTYPES = {
    "anger": (    (-.13,  .06,  1,    1, .55,   0,  .2,   0,  -.5,  .24,   0,   0,   0,  .4),
                  (-.13,  .06,  1,  1.1,  .5,   0,  .3,   0,  -.3,   .3, .07, .09,   1,  .6)),
    "disgust": (  (-.07, -.03, .5,  .55, .85,   0,   1,  .6,  -.6,  .26, .09,   0,  .6,   1),
                  (-.06, -.04, .4,   .5,  .9,   0,   1,  .5,  -.8,  .25, .03,   0,   0, 1.2)),
    "fear": (     ( .15,  .04, .9, 1.55,   0,   0,   0,   0, -.35,  .37, .03,  .1, -.4,  .7),),
    "happiness": ((   0,  .02,  0,   .8, .75,   0,   0,   1,    1,  .36,   0, .15,  .6,  .8),
                  (   0,  .02,  0,   .8,  .7,   0,   0,   1,  1.1,  .37,   0,   0,   0, .75)),
    "neutral": (  (   0,    0,  0,    1,   0,   0,   0,   0,    0,  .27,   0,   0,   0,   1),),
    "sadness": (  ( .15, -.08, .5,   .6,  .2,   1,   0,   0,   -1,  .25,   0, .01,   0,  .9),),
    "surprise": ( ( .13,  .16,  0,  1.5,   0,   0,   0,   0,    0,  .16, .06, .18, .05,  .9),),
}  # fmt: skip
_SPREAD = np.array((0.015, 0.015, 0.1, 0.08, 0.08, 0.06, 0.06, 0.08, 0.1, 0.015, 0.01, 0.015, 0.06, 0.12))
_ANGLES, _T = np.linspace(0, 2 * np.pi, 48, endpoint=False), np.linspace(0, 1, 12)
CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)  # as a polygon
_BERNSTEIN = {n: np.stack([comb(n - 1, i) * _T**i * (1 - _T) ** (n - 1 - i) for i in range(n)], 1) for n in range(3, 7)}


def draw_expression(label: str, rng: np.random.Generator) -> Expression:
    """One person's way of showing `label`: a variant of the class, its intensity, and some spread of every feature."""
    target, rest = np.array(PROTOTYPES[label][rng.integers(len(PROTOTYPES[label]))]), np.array(PROTOTYPES["neutral"][0])
    values = rest + rng.uniform(0.75, 1.15) * (target - rest) + rng.normal(0, _SPREAD)
    return Expression(*values.tolist())


@dataclass(frozen=True)
class Face:
    """An expression on a head somewhere: `centre` and `unit` in pixels of the image, angles in radians."""

    expression: Expression
    centre: np.ndarray  # x y
    unit: float
    roll: float
    yaw: float
    pitch: float
    width: float  # of the head, 1 = average
    taper: float  # of the jaw

    def turn(self, points: np.ndarray) -> np.ndarray:
        """Points (N, 2) of the frontal face after yaw and pitch, on the ellipsoid of the head."""
        depth = 0.8 * np.sqrt(np.maximum(1 - ((points / [1, 1.3]) ** 2).sum(1, keepdims=True), 0))
        angles = np.array([self.yaw, self.pitch])
        return (points * np.cos(angles) + depth * np.sin(angles)) * [self.width, 1]

    def matrix(self, scale: float = 1.0) -> np.ndarray:
        """The affine map (2, 3) from turned face coordinates to pixels of an image `scale` times as large."""
        c, s = np.cos(self.roll) * self.unit, np.sin(self.roll) * self.unit
        return scale * np.array([[c, -s, self.centre[0]], [s, c, self.centre[1]]])

    def outline(self, top: float = 1.17) -> np.ndarray:
        """The head from `top` above the origin (the skull) to the chin: (48, 2), turned face coordinates."""
        x, y = CIRCLE.T
        below = np.maximum(y, 0)
        wide = 0.77 * self.width * (1 - self.taper * below**1.5 * (1 - 0.35 * below))
        return np.stack([x * wide, y * np.where(y > 0, 1 + 0.5 * self.expression.drop, top)], axis=1)

    def box(self) -> np.ndarray:
        """x1 y1 x2 y2 in pixels: forehead to chin, ear to ear, upright around the rolled head, as YuNet draws it."""
        matrix = self.matrix()
        points = self.outline(top=0.95) @ matrix[:, :2].T + matrix[:, 2]
        return np.concatenate([points.min(0), points.max(0)])


def mix(first: np.ndarray, second: tuple[float, ...] | np.ndarray, share: float | np.ndarray) -> np.ndarray:
    """`share` of the second colour in the first."""
    return first + (np.array(second) - first) * share


def curve(*points: tuple[float, float] | np.ndarray) -> np.ndarray:
    """The Bezier curve from the first point to the last, drawn to those between: (12, 2)."""
    return _BERNSTEIN[len(points)] @ np.array(points)


def band(x: np.ndarray, top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """The polygon between two curves over the same x."""
    return np.stack([np.r_[x, x[::-1]], np.r_[top, bottom[::-1]]], axis=1)


@dataclass(frozen=True)
class Brush:
    """Paints on an RGB canvas, in colours 0..255; `affine` leads from face coordinates to its pixels."""

    canvas: np.ndarray
    face: Face
    affine: np.ndarray
    light: np.ndarray  # where it comes from, a unit vector: x right, y down, z to the camera
    ambient: float  # share of the light that is everywhere

    def paint(self, points: np.ndarray, colour: np.ndarray, width: float = 0.0) -> None:
        """Fill a polygon or, with a width in face coordinates, draw a line of at least one pixel."""
        pixels = np.round((points @ self.affine[:, :2].T + self.affine[:, 2]) * 16).astype(np.int32)
        if width == 0:
            cv2.fillPoly(self.canvas, [pixels], colour.tolist(), cv2.LINE_AA, 4)
        else:
            thickness = max(1, round(width * float(np.hypot(*self.affine[0, :2]))))
            cv2.polylines(self.canvas, [pixels], False, colour.tolist(), thickness, cv2.LINE_AA, 4)

    def tone(self, points: np.ndarray) -> np.ndarray:
        """Lambert's brightness, 0..1, of an ellipsoid head at turned face coordinates (..., 2)."""
        x, y = points[..., 0] / (0.86 * self.face.width), points[..., 1] / 1.3
        normal = np.stack([x, y, np.sqrt(np.clip(1 - x * x - y * y, 0, 1))], axis=-1)
        return self.ambient + (1 - self.ambient) * np.clip(normal @ self.light, 0, 1)
