"""A face before it is drawn: the expression as movements of brows, lids, nose and mouth, and where the head is.

Face coordinates: origin between nose and eyes, x to the image's right, y down, 1 = half the height from hairline to
chin. Features have their places on an upright frontal face; `Face.turn` and `Face.matrix` bring them into the image.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np


class Expression(NamedTuple):
    """How the features stand, with the action units of FACS; the defaults are the neutral face."""

    brow_inner: float = 0.0  # raised by (AU1), below 0 lowered (AU4)
    brow_outer: float = 0.0  # raised by (AU2)
    brow_arch: float = 0.05
    brow_draw: float = 0.0  # inner ends drawn together, 0..1 (AU4)
    lid: float = 1.0  # opening of the upper lid (AU5 above 1)
    squint: float = 0.0  # lower lid raised, 0..1 (AU7)
    droop: float = 0.0  # upper lid falls towards the temple, 0..1
    wrinkle: float = 0.0  # nose wrinkled, 0..1 (AU9)
    cheek: float = 0.0  # raised, 0..1 (AU6)
    corner: float = 0.0  # lip corners up (AU12), below 0 down (AU15)
    width: float = 0.27  # half the width of the mouth (AU20 wider, AU18 narrower)
    rise: float = 0.0  # upper lip above the line of the mouth (AU10)
    drop: float = 0.0  # lower lip below it (AU25)
    square: float = 0.0  # shape of the opening: 0 round, 1 rectangular
    upper_teeth: float = 0.0  # share of the opening that they fill
    lower_teeth: float = 0.0
    lips: float = 1.0  # thickness (below 1 pressed, AU23 and AU24)
    jaw: float = 0.0  # chin lowered by (AU26)


# Ekman and Friesen's prototypes; several lines of a class are its variants.
PROTOTYPES: dict[str, tuple[Expression, ...]] = {
    "anger": (
        Expression(brow_inner=-0.12, brow_outer=0.05, brow_arch=0.03, brow_draw=1, squint=0.55, wrinkle=0.2,
                   corner=-0.45, width=0.24, lips=0.4),
        Expression(brow_inner=-0.12, brow_outer=0.06, brow_arch=0.03, brow_draw=1, lid=1.1, squint=0.5, wrinkle=0.3,
                   corner=-0.3, width=0.3, rise=0.07, drop=0.09, square=1, upper_teeth=0.55, lower_teeth=0.55, lips=0.6,
                   jaw=0.04),
    ),
    "disgust": (
        Expression(brow_inner=-0.07, brow_outer=-0.03, brow_arch=0.03, brow_draw=0.5, lid=0.55, squint=0.85, wrinkle=1,
                   cheek=0.6, corner=-0.6, width=0.26, rise=0.09, square=0.3, upper_teeth=0.6),
        Expression(brow_inner=-0.06, brow_outer=-0.04, brow_arch=0.03, brow_draw=0.4, lid=0.5, squint=0.9, wrinkle=1,
                   cheek=0.5, corner=-0.8, width=0.25, rise=0.03, lips=1.2),
    ),
    "fear": (
        Expression(brow_inner=0.14, brow_outer=0.04, brow_arch=0, brow_draw=0.9, lid=1.55, squint=0.1, corner=-0.3,
                   width=0.36, rise=0.03, drop=0.12, square=0.9, lower_teeth=0.35, lips=0.7, jaw=0.06),
        Expression(brow_inner=0.14, brow_outer=0.03, brow_arch=0, brow_draw=0.9, lid=1.6, corner=-0.4, width=0.37,
                   rise=0.03, drop=0.07, square=0.9, lower_teeth=0.5, lips=0.7, jaw=0.03),
    ),
    "happiness": (
        Expression(brow_outer=0.02, brow_arch=0.07, lid=0.8, squint=0.75, cheek=1, corner=1, width=0.36, drop=0.15,
                   square=0.15, upper_teeth=0.6, lips=0.8, jaw=0.03),
        Expression(brow_outer=0.02, brow_arch=0.07, lid=0.8, squint=0.7, cheek=1, corner=1.1, width=0.37, lips=0.75),
    ),
    "neutral": (Expression(), Expression(lid=0.95, drop=0.015)),
    "sadness": (
        Expression(brow_inner=0.14, brow_outer=-0.07, brow_arch=-0.01, brow_draw=0.5, lid=0.65, squint=0.15, droop=0.9,
                   corner=-1, width=0.25, lips=0.9),
        Expression(brow_inner=0.15, brow_outer=-0.07, brow_arch=-0.01, brow_draw=0.6, lid=0.55, squint=0.3, droop=1,
                   corner=-0.9, width=0.26, drop=0.03, lips=0.9),
    ),
    "surprise": (
        Expression(brow_inner=0.13, brow_outer=0.15, brow_arch=0.12, lid=1.55, width=0.17, rise=0.07, drop=0.22,
                   upper_teeth=0.15, lips=0.9, jaw=0.14),
        Expression(brow_inner=0.14, brow_outer=0.15, brow_arch=0.12, lid=1.45, width=0.15, rise=0.05, drop=0.13,
                   jaw=0.08),
    ),
}  # fmt: skip
_REST = np.array(Expression())
_TARGETS = {label: np.array(variants) for label, variants in PROTOTYPES.items()}
_LOWEST = np.array(Expression(-0.2, -0.2, -0.05, 0, 0.35, 0, 0, 0, 0, -1.5, 0.1, 0, 0, 0, 0, 0, 0.3, 0))
_HIGHEST = np.array(Expression(0.2, 0.2, 0.2, 1, 1.8, 1, 1, 1, 1, 1.5, 0.45, 0.15, 0.3, 1, 1, 1, 1.5, 0.2))
_SPREAD = np.array(
    Expression(
        brow_inner=0.015, brow_outer=0.015, brow_arch=0.012, brow_draw=0.1, lid=0.08, squint=0.08, droop=0.06,
        wrinkle=0.06, cheek=0.08, corner=0.1, width=0.015, rise=0.006, drop=0.01, square=0.1, upper_teeth=0.06,
        lower_teeth=0.06, lips=0.12, jaw=0.01,
    )
)  # fmt: skip
_ANGLES = np.linspace(0, 2 * np.pi, 48, endpoint=False)
_ACROSS, _DOWN = np.cos(_ANGLES), np.sin(_ANGLES)
_BELOW = np.maximum(_DOWN, 0)
_NARROW = _BELOW**1.5 * (1 - 0.35 * _BELOW)  # how much the jaw's taper takes


def draw_expression(label: str, rng: np.random.Generator) -> Expression:
    """One person's way of showing `label`: a variant of the class, its intensity, and some spread of every feature."""
    targets = _TARGETS[label]
    target = targets[rng.integers(len(targets))]
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

    def moved(self, x: float, y: float) -> "Face":
        """The same face elsewhere."""
        return replace(self, centre=(x, y))
