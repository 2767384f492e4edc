"""Brows, eyes, nose and mouth: the strokes that show the expression."""

from typing import NamedTuple

import numpy as np

from facerwkv.data.toy.brush import Brush, Colour, band, bezier, ellipse, mix, shade
from facerwkv.data.toy.person import Look


class Lids(NamedTuple):
    """The opening of an eye: upper and lower edge over x, from the nose to the temple, and the light there."""

    x: np.ndarray
    upper: np.ndarray
    lower: np.ndarray
    arch: np.ndarray
    light: float


def draw_eye(brush: Brush, look: Look, side: float) -> None:
    """The eye on the image's left (side -1) or right (1)."""
    lids = _lids(brush, look, side)
    turn, (x, upper, lower, arch, light) = brush.face.turn, lids
    brush.fill(turn(band(x, upper - 0.03 - 0.025 * arch, upper)), shade(look.skin, 0.76 * light))
    brush.fill(turn(band(x, upper, lower)), shade((240, 236, 232), light))
    _iris(brush, look, lids, 0.34 * side + look.gaze[0], -0.215 + look.gaze[1])
    lash = shade(mix(look.skin, (20, 14, 12), 0.88), light)
    brush.fill(turn(band(x, upper - 0.012 - 0.018 * arch, upper + 0.008)), lash)
    brush.stroke(turn(np.stack([x, lower], 1)), shade(look.skin, 0.55 * light), 0.014)
    squint = brush.face.expression.squint
    if squint > 0.3:
        bag = np.stack([0.96 * x + 0.0136 * side, lower + 0.035 + 0.03 * arch], axis=1)
        brush.stroke(turn(bag), shade(look.skin, (0.86 - 0.15 * squint) * light), 0.016)


def _lids(brush: Brush, look: Look, side: float) -> Lids:
    e = brush.face.expression
    t = np.linspace(-1, 1, 17)
    arch = (1 - t**2) ** 0.7
    low = 0.068 * look.eyes * (1 - 0.6 * e.squint) + 0.012 * (e.lid - 1)
    upper = -0.2 - 0.02 * t + 0.05 * e.droop * (t + 0.3) - 0.088 * look.eyes * e.lid * arch
    lower = -0.2 - 0.02 * t + 0.02 * e.droop * t + low * arch
    light = min(brush.tone(0.34 * side, -0.2) + 0.12, 1.05)
    return Lids(side * (0.34 + 0.175 * look.eyes * t), upper, np.maximum(lower, upper + 0.012), arch, light)


def _iris(brush: Brush, look: Look, lids: Lids, x: float, y: float) -> None:
    """Iris, pupil and glint, as far as the lids leave them free."""
    order = np.argsort(lids.x)

    def free(points: np.ndarray) -> np.ndarray:
        top, bottom = (np.interp(points[:, 0], lids.x[order], lid[order]) for lid in (lids.upper, lids.lower))
        return np.stack([points[:, 0], np.clip(points[:, 1], top, bottom)], axis=1)

    glint = 0.03 if brush.light.direction[0] > 0 else -0.03
    discs: tuple[tuple[float, float, float, Colour], ...] = (
        (x, y, 0.088, shade(look.iris, 0.5 * lids.light)),
        (x, y, 0.072, shade(look.iris, 1.15 * lids.light)),
        (x, y, 0.038, (14, 12, 12)),
        (x + glint, y - 0.03, 0.016, (250, 250, 250)),
    )
    for u, v, radius, colour in discs:
        brush.fill(brush.face.turn(free(ellipse(u, v, radius, radius, 24))), colour)


def draw_brow(brush: Brush, look: Look, side: float) -> None:
    """The brow on the image's left (side -1) or right (1)."""
    e = brush.face.expression
    t = np.linspace(0, 1, 11)  # from the nose to the temple
    x = 0.13 - 0.045 * e.brow_draw + (0.47 + 0.03 * e.brow_draw) * t
    raised = e.brow_inner * (1 - t) ** 1.5 + e.brow_outer * t**1.2 + e.brow_arch * np.sin(np.pi * t**1.15)
    middle = -0.39 - 0.03 * t - raised
    thick = look.brows * (0.042 * (1 - t) ** 0.6 + 0.02) * np.minimum(1, 0.75 + 3 * t)
    colour = shade(mix(look.hair, (36, 24, 20), 0.55), min(brush.tone(0.34 * side, -0.4) + 0.15, 1))
    brush.fill(brush.face.turn(band(side * x, middle - thick / 2, middle + thick / 2)), colour)


def draw_nose(brush: Brush, look: Look) -> None:
    """Nostrils, wings and tip."""
    e, turn = brush.face.expression, brush.face.turn
    y = 0.3 - 0.05 * e.wrinkle
    wide = 0.135 * look.nose * (1 + 0.12 * e.wrinkle)
    light = brush.tone(0, 0.25)
    dark, soft = shade(look.skin, 0.42 * light), shade(look.skin, 0.66 * light)
    for side in (-1, 1):
        brush.fill(turn(ellipse(side * 0.068 * look.nose, y - 0.015, 0.038, 0.019, 14), 0.1), dark)
        wing = bezier((0.8 * side * wide, y - 0.13), (1.35 * side * wide, y - 0.06), (0.75 * side * wide, y))
        brush.stroke(turn(wing, 0.08), soft, 0.018)
    brush.stroke(turn(bezier((-0.05, y + 0.005), (0, y + 0.025), (0.05, y + 0.005)), 0.1), soft, 0.018)


def draw_mouth(brush: Brush, look: Look) -> None:
    """Lips, their corners, and what an open mouth shows."""
    e, turn = brush.face.expression, brush.face.turn
    light = brush.tone(0, 0.55) + 0.05
    t = np.linspace(-1, 1, 25)
    line = mouth_line(brush, look) - 0.15 * e.corner * (np.abs(t) ** 1.8 - 0.4)
    room = (1 - np.abs(t) ** (2 + 4 * e.square)) ** 0.6
    x, upper, lower = e.width * t, line - e.rise * room, line + e.drop * room
    bow = 0.055 * e.lips * (1 - np.abs(t) ** 2.2) * (1 - 0.22 * np.exp(-((t / 0.13) ** 2)))
    brush.fill(turn(band(x, upper - bow, lower)), shade(look.lips, 0.86 * light))
    brush.fill(turn(band(x, upper, lower + 0.08 * e.lips * (1 - np.abs(t) ** 2.4))), shade(look.lips, 1.04 * light))
    if e.rise + e.drop > 0.012:
        _open_mouth(brush, x, upper, lower, light)
    else:
        brush.stroke(turn(np.stack([x, line], 1)), shade(mix(look.lips, (60, 16, 18), 0.65), light), 0.022)
    for end in (0, -1):
        corner = ellipse(1.01 * x[end], line[end], 0.022, 0.016, 10)
        brush.fill(turn(corner), shade(mix(look.skin, look.lips, 0.4), 0.55 * light))


def mouth_line(brush: Brush, look: Look) -> float:
    """The height at which the lips meet when the mouth is straight."""
    return 0.56 + look.mouth - 0.02 * brush.face.expression.wrinkle


def _open_mouth(brush: Brush, x: np.ndarray, upper: np.ndarray, lower: np.ndarray, light: float) -> None:
    e, turn = brush.face.expression, brush.face.turn
    gap, inside = lower - upper, slice(1, -1)
    x, upper, lower, gap = x[inside], upper[inside], lower[inside], gap[inside]
    brush.fill(turn(band(x, upper, lower)), shade((78, 22, 24), light))
    if e.rise + e.drop > 0.1:
        brush.fill(turn(band(x, lower - 0.5 * gap, lower)), shade((176, 84, 84), 0.85 * light))
    enamel = shade((244, 240, 230), light)
    if e.upper_teeth > 0.08:
        brush.fill(turn(band(x, upper, upper + e.upper_teeth * gap)), enamel)
    if e.lower_teeth > 0.08:
        brush.fill(turn(band(x, lower - e.lower_teeth * gap, lower)), shade(enamel, 0.94))
    if e.upper_teeth + e.lower_teeth > 0.9:
        brush.stroke(turn(np.stack([x, upper + e.upper_teeth * gap], 1)), shade((110, 60, 56), light), 0.01)
