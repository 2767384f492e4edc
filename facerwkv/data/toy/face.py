"""A face before it is drawn: the expression as movements of brows, lids, nose and mouth, and where the head is.

Face coordinates: origin between nose and eyes, x to the image's right, y down, 1 = half the height from hairline to
chin. Features are described on an upright frontal face; `Face.turn` and `Face.matrix` bring them into the image.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class Expression(NamedTuple):
    """How the features are placed, with the action units of FACS."""

    brow_inner: float  # raised by (AU1), below 0 lowered (AU4)
    brow_outer: float  # raised by (AU2)
    brow_arch: float
    brow_draw: float  # inner ends drawn together, 0..1 (AU4)
    lid: float  # opening of the upper lid (AU5 above 1)
    squint: float  # lower lid raised, 0..1 (AU7)
    droop: float  # upper lid falls towards the temple, 0..1
    wrinkle: float  # nose wrinkled, 0..1 (AU9)
    cheek: float  # raised, 0..1 (AU6)
    corner: float  # lip corners up (AU12), below 0 down (AU15)
    width: float  # half the width of the mouth (AU20 wider, AU18 narrower)
    rise: float  # upper lip above the line of the mouth (AU10)
    drop: float  # lower lip below it (AU25)
    square: float  # shape of the opening: 0 round, 1 rectangular
    upper_teeth: float  # share of the opening that they fill
    lower_teeth: float
    lips: float  # thickness (below 1 pressed, AU23 and AU24)
    jaw: float  # chin lowered by (AU26)


# Ekman and Friesen's prototypes, two variants of each class; the columns are Expression's fields in their order.
# fmt: off
PROTOTYPES = {
    "anger": (    (-.12,  .05,  .03,  1,    1, .55,   0,  .2,   0, -.45,  .24,    0,    0,   0,   0,   0,  .4,    0),
                  (-.12,  .06,  .03,  1,  1.1,  .5,   0,  .3,   0,  -.3,   .3,  .07,  .09,   1, .55, .55,  .6,  .04)),
    "disgust": (  (-.07, -.03,  .03, .5,  .55, .85,   0,   1,  .6,  -.6,  .26,  .09,    0,  .3,  .6,   0,   1,    0),
                  (-.06, -.04,  .03, .4,   .5,  .9,   0,   1,  .5,  -.8,  .25,  .03,    0,   0,   0,   0, 1.2,    0)),
    "fear": (     ( .14,  .04,    0, .9, 1.55,  .1,   0,   0,   0,  -.3,  .36,  .03,  .12,  .9,   0, .35,  .7,  .06),
                  ( .14,  .03,    0, .9,  1.6,   0,   0,   0,   0,  -.4,  .37,  .03,  .07,  .9,   0,  .5,  .7,  .03)),
    "happiness": ((   0,  .02,  .07,  0,   .8, .75,   0,   0,   1,    1,  .36,    0,  .15, .15,  .6,   0,  .8,  .03),
                  (   0,  .02,  .07,  0,   .8,  .7,   0,   0,   1,  1.1,  .37,    0,    0,   0,   0,   0, .75,    0)),
    "neutral": (  (   0,    0,  .05,  0,    1,   0,   0,   0,   0,    0,  .27,    0,    0,   0,   0,   0,   1,    0),
                  (   0,    0,  .05,  0,  .95,   0,   0,   0,   0,    0,  .27,    0, .015,   0,   0,   0,   1,    0)),
    "sadness": (  ( .14, -.07, -.01, .5,  .65, .15,  .9,   0,   0,   -1,  .25,    0,    0,   0,   0,   0,  .9,    0),
                  ( .15, -.07, -.01, .6,  .55,  .3,   1,   0,   0,  -.9,  .26,    0,  .03,   0,   0,   0,  .9,    0)),
    "surprise": ( ( .13,  .15,  .12,  0, 1.55,   0,   0,   0,   0,    0,  .17,  .07,  .22,   0, .15,   0,  .9,  .14),
                  ( .14,  .15,  .12,  0, 1.45,   0,   0,   0,   0,    0,  .15,  .05,  .13,   0,   0,   0,   1,  .08)),
}
_REST = np.array(PROTOTYPES["neutral"][0])
_LOWEST, _HIGHEST, _SPREAD = np.array((
    ( -.2,  -.2, -.05,  0,  .35,   0,   0,   0,   0, -1.5,   .1,    0,    0,   0,   0,   0,  .3,    0),
    (  .2,   .2,   .2,  1,  1.8,   1,   1,   1,   1,  1.5,  .45,  .15,   .3,   1,   1,   1, 1.5,   .2),
    (.015, .015, .012, .1,  .08, .08, .06, .06, .08,   .1, .015, .006,  .01,  .1, .06, .06, .12,  .01),
))
# fmt: on
_ANGLES = np.linspace(0, 2 * np.pi, 48, endpoint=False)
_ACROSS, _DOWN = np.cos(_ANGLES), np.sin(_ANGLES)
_BELOW = np.maximum(_DOWN, 0)
_NARROW = _BELOW**1.5 * (1 - 0.35 * _BELOW)  # how much the jaw's taper takes


def draw_expression(label: str, rng: np.random.Generator) -> Expression:
    """One person's way of showing `label`: a variant of the class, its intensity, and some spread of every feature."""
    target = np.array(PROTOTYPES[label][rng.integers(2)])
    values = _REST + rng.uniform(0.7, 1.1) * (target - _REST) + rng.standard_normal(len(_REST)) * _SPREAD
    return Expression(*np.minimum(np.maximum(values, _LOWEST), _HIGHEST).tolist())


@dataclass(frozen=True)
class Face:
    """An expression on a head somewhere: `centre` and `unit` in pixels of the image, angles in radians."""

    expression: Expression
    centre: tuple[float, float]
    unit: float
    roll: float
    yaw: float
    pitch: float
    width: float  # of the head, 1 = average
    taper: float  # of the jaw

    def turn(self, points: np.ndarray, bump: float = 0.0) -> np.ndarray:
        """Points (N, 2) of the frontal face after yaw and pitch; `bump`: height above the ellipsoid of the head."""
        x, y = points[:, 0], points[:, 1]
        depth = 0.8 * np.sqrt(np.maximum(1 - x**2 - (y / 1.3) ** 2, 0)) + bump
        x = x * np.cos(self.yaw) + depth * np.sin(self.yaw)
        y = y * np.cos(self.pitch) + depth * np.sin(self.pitch)
        return np.stack([x * self.width, y], axis=1)

    def matrix(self, scale: float = 1.0) -> np.ndarray:
        """The affine map (2, 3) from turned face coordinates to pixels of an image `scale` times as large."""
        c, s = np.cos(self.roll) * self.unit, np.sin(self.roll) * self.unit
        return scale * np.array([[c, -s, self.centre[0]], [s, c, self.centre[1]]])

    def outline(self, top: float = 1.17) -> np.ndarray:
        """The head from `top` above the origin (the skull) to the chin: (48, 2), turned face coordinates."""
        x = 0.77 * self.width * _ACROSS * (1 - self.taper * _NARROW)
        return np.stack([x, np.where(_DOWN > 0, 1 + self.expression.jaw, top) * _DOWN], axis=1)

    def box(self) -> tuple[float, float, float, float]:
        """x1 y1 x2 y2 in pixels: forehead to chin, ear to ear, upright around the rolled head, as YuNet draws it."""
        matrix = self.matrix()
        points = self.outline(top=0.95) @ matrix[:, :2].T + matrix[:, 2]
        (x1, y1), (x2, y2) = points.min(0).tolist(), points.max(0).tolist()
        return x1, y1, x2, y2
