"""The head: soft skin from a small map in turned face coordinates, and on it the features that show the expression."""

from dataclasses import replace

import cv2
import numpy as np

from facerwkv.data.toy.face import CIRCLE, Brush, band, curve, mix
from facerwkv.data.toy.person import HAIR, Look, mirrored

MAP = 96  # cells across; the map covers -1.5..1.5
_AXIS = (np.arange(MAP) + 0.5) * (3 / MAP) - 1.5
_CELLS = np.stack(np.meshgrid(_AXIS, _AXIS), axis=-1)
_TO_FACE = np.array([[3 / MAP, 0, -1.5], [0, 3 / MAP, -1.5], [0, 0, 1]])


def draw_head(brush: Brush, look: Look) -> None:
    """The hair or the headscarf behind it, the head, and the ears where no scarf covers them."""
    if half := HAIR[look.style][1]:
        brush.paint(mirrored(curve(*half)) * [brush.face.width, 1.0], look.cover * 0.65)
    face, reach, centre = brush.face, 1.4 * np.hypot(*brush.affine[0, :2]), brush.affine[:, 2]
    left, top = np.maximum(centre - reach, 0).astype(int).tolist()
    patch = brush.canvas[top : int(centre[1] + reach), left : int(centre[0] + reach)]
    affine = brush.affine - [[0, 0, left], [0, 0, top]]
    mask = replace(brush, canvas=np.zeros(patch.shape[:2], np.uint8), affine=affine)
    mask.paint(face.outline(), np.full(1, 255.0))
    for s in () if look.style == "scarf" else (-1, 1):
        mask.paint(CIRCLE * [0.12, 0.23] + [(0.76 * face.width + 0.05) * s - 0.2 * face.yaw, 0], np.full(1, 255.0))
    skin = cv2.warpAffine(_skin(brush, look), affine @ _TO_FACE, patch.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)
    cv2.copyTo(skin, mask.canvas, patch)


def _skin(brush: Brush, look: Look) -> np.ndarray:
    """The colours of the map, uint8 (96, 96, 3)."""
    e, (lip, jaw) = brush.face.expression, look.beard
    relief = (  # x, y, width, height, strength, and how much that gains from light on this side
        (0.34, -0.2, 0.17, 0.12, -0.24, 0), (0.2, -0.12, 0.06, 0.1, -0.1, 0.08),  # the sockets
        (0.13 * look.nose, 0.1, 0.05, 0.16, -0.16, 0.2), (0, 0, 0.05, 0.25, 0.12, 0), (0, 0.2, 0.07, 0.06, 0.12, 0),
        (0.42, 0.2 - 0.08 * e.cheek, 0.16, 0.12, 0.07 + 0.07 * e.cheek, 0), (0, 0.34, 0.14, 0.035, -0.26, 0),
        (0, 0.75 + e.drop, 0.15, 0.05, -0.16, 0), (0, 0.86 + e.drop / 2, 0.2, 0.09, 0.07, 0),
    )  # fmt: skip
    flush = ((0.42, 0.28 - 0.06 * e.cheek, 0.2, 0.16, 1, 0), (0, 0.18, 0.12, 0.1, 0.6, 0))
    hairy = ((0.14, 0.45, 0.12, 0.035, lip, 0), (0.3, 0.95, 0.25, 0.13, jaw, 0), (0.72, 0.4, 0.12, 0.3, jaw, 0))
    tone = brush.tone(_CELLS) * (1 + _blobs(brush, relief))
    colour = tone[..., None] * look.skin * (1 - _blobs(brush, flush)[..., None] * [0, 0.13, 0.12])
    colour = mix(colour, tone[..., None] * look.hair, _blobs(brush, hairy)[..., None].clip(0, 0.9))
    return np.clip(colour, 0, 255).astype(np.uint8)


def _blobs(brush: Brush, spots: tuple[tuple[float, ...], ...]) -> np.ndarray:
    """The sum of soft spots, (96, 96); those beside the middle are on both sides."""
    right = np.array(spots)
    numbers = np.concatenate([right, right[right[:, 0] != 0] * [-1, 1, 1, 1, 1, -1]])
    offsets = (_AXIS - brush.face.turn(numbers[:, :2])[..., None]) / numbers[:, 2:4, None]
    across, down = np.exp(-0.5 * offsets**2).swapaxes(0, 1)
    return (down * (numbers[:, 4:5] + numbers[:, 5:] * brush.light[0])).T @ across


def draw_lines(brush: Brush, look: Look) -> None:
    """The nose and what the expression folds, as curves on both sides: darkness, width, start, control, end."""
    e, n = brush.face.expression, look.nose * (1 + 0.12 * brush.face.expression.sneer)
    corner, y, bow = 0.56 - 0.09 * e.corner, 0.3 - 0.05 * e.sneer, -0.03 if e.outer > 0.06 else -0.09
    raised, smile = 0.2 * min(max(e.inner, 0) / 0.14, 1.2), max(e.corner, 0)
    lines: tuple[tuple, ...] = (
        (0.58, 0.035, (0.04 * n, y - 0.012), (0.068 * n, y - 0.02), (0.1 * n, y - 0.012)),  # nostril, wing, tip
        (0.34, 0.018, (0.108 * n, y - 0.13), (0.182 * n, y - 0.06), (0.101 * n, y)),
        (0.34, 0.018, (-0.05, y + 0.005), (0, y + 0.025), (0.05, y + 0.005)),
        (0.08 + 0.22 * smile + 0.25 * e.sneer, 0.022,  # beside nose and mouth
         (0.17, 0.22 - 0.06 * e.sneer), (0.36, 0.3), (e.width + 0.1, corner + 0.04)),
        (-0.15 * e.corner, 0.022, (e.width, corner), (e.width + 0.05, corner + 0.06), (e.width + 0.04, corner + 0.14)),
        (0.24 * e.draw, 0.022, (0.06, -0.32), (0.045, -0.42), (0.07, -0.52)),  # between the brows
        (0.36 * e.sneer, 0.022, (0.02, -0.17), (0.09, -0.16), (0.15, -0.1)),  # on the nose
        (0.16 * e.cheek, 0.022, (0.56, -0.17), (0.62, -0.16), (0.68, -0.22)),  # at the eyes
        *((raised, 0.022, (-0.38, y + 0.03), (0, y + bow), (0.38, y + 0.03)) for y in (-0.66, -0.76, -0.86)),
        (0.85 * look.glasses, 0.024, (0.1, -0.19), (0.1, -0.42), (0.59, -0.42), (0.59, -0.19)),
        (0.85 * look.glasses, 0.024, (0.1, -0.19), (0.12, 0.06), (0.57, 0.06), (0.59, -0.19)),
        (0.85 * look.glasses, 0.024, (-0.1, -0.19), (0, -0.24), (0.1, -0.19)),
    )  # fmt: skip
    for darkness, width, *points in lines:
        for side in (-1, 1) if darkness > 0.02 else ():
            line = brush.face.turn(curve(*points) * [side, 1])
            brush.paint(line, look.skin * brush.tone(line[6]) * (1 - darkness), width)


def draw_eyes(brush: Brush, look: Look) -> None:
    """Lids, white, iris and pupil, lashes; and the brow."""
    e, turn, t = brush.face.expression, brush.face.turn, np.linspace(-1, 1, 17)  # from the nose to the temple
    arch, up = (1 - t**2) ** 0.7, (t + 1) / 2
    upper = -0.2 - 0.02 * t + 0.05 * e.droop * (t + 0.3) - 0.088 * look.eyes * e.lid * arch
    low = 0.068 * look.eyes * (1 - 0.6 * e.squint) + 0.012 * (e.lid - 1)
    lower = np.maximum(-0.2 - 0.02 * t + 0.02 * e.droop * t + low * arch, upper + 0.012)
    bend = 0.05 * (1 - e.draw) + 0.5 * e.outer
    brow = -0.39 - 0.03 * up - e.inner * (1 - up) ** 1.5 - e.outer * up**1.2 - bend * np.sin(np.pi * up**1.15)
    half = look.brows * (0.021 * (1 - up) ** 0.6 + 0.01) * np.minimum(1, 0.75 + 3 * up)
    lash, hair = mix(look.skin, (20, 14, 12), 0.88), mix(look.hair, (36, 24, 20), 0.6)
    glint, dark, white = np.array([np.sign(brush.light[0]) * 0.03, -0.03]), np.full(3, 13.0), np.full(3, 238.0)
    discs = ((0, 0.088, look.iris * 0.5), (0, 0.072, look.iris * 1.15), (0, 0.038, dark), (glint, 0.016, white * 1.05))
    for side in (-1, 1):
        x, light = side * (0.34 + 0.175 * look.eyes * t), brush.tone(turn(np.array([[0.34 * side, -0.2]]))) + 0.12
        brush.paint(turn(band(x, upper - 0.03 - 0.025 * arch, upper)), look.skin * 0.76 * light)
        brush.paint(turn(band(x, upper, lower)), white * light)
        for offset, radius, colour in discs:
            disc = CIRCLE * radius + look.gaze + offset + np.array([0.34 * side, -0.215])
            free = (np.interp(disc[:, 0], x[::side], lid[::side]) for lid in (upper, lower))
            disc[:, 1] = np.clip(disc[:, 1], *free)  # as far as the lids leave it free
            brush.paint(turn(disc), colour * light)
        brush.paint(turn(band(x, upper - 0.012 - 0.018 * arch, upper + 0.008)), lash * light)
        x = side * (0.13 - 0.045 * e.draw + (0.47 + 0.03 * e.draw) * up)
        brush.paint(turn(band(x, brow - half, brow + half)), hair * light)


def draw_mouth(brush: Brush, look: Look) -> None:
    """Lips, what an open mouth shows (dark, tongue, teeth) or the line of a closed one, from the back to the front."""
    e, t = brush.face.expression, np.abs(np.linspace(-1, 1, 25))
    line, opening = 0.56 - 0.02 * e.sneer - 0.15 * e.corner * (t**1.8 - 0.4), (1 - t ** (2 + 4 * e.draw)) ** 0.6
    top, bottom = line - e.rise * opening, line + e.drop * opening
    bow = 0.055 * e.lips * (1 - t**2.2) * (1 - 0.22 * np.exp(-((t / 0.13) ** 2)))
    gap, enamel = bottom - top, np.array([244, 240, 230])
    layers = [(top - bow, bottom, look.lips * 0.86), (top, bottom + 0.08 * e.lips * (1 - t**2.4), look.lips * 1.04)]
    if e.rise + e.drop > 0.012:
        layers += [(top, bottom, np.array([78, 22, 24])), (bottom - 0.45 * gap, bottom, np.array([150, 71, 71]))]
        layers += [(top, top + e.teeth * gap, enamel)] if e.teeth > 0.08 else []
        layers += [(bottom + e.teeth * gap, bottom, enamel)] if e.teeth < -0.08 else []
        layers += [(top + 0.48 * gap, top + 0.52 * gap, enamel * 0.45)] if e.teeth > 0.8 else []
    else:
        layers += [(line - 0.011, line + 0.011, mix(look.lips, (60, 16, 18), 0.65))]
    light = brush.tone(brush.face.turn(np.array([[0, 0.55]]))) + 0.05
    for upper, lower, colour in layers:
        brush.paint(brush.face.turn(band(np.linspace(-e.width, e.width, 25), upper, lower)), colour * light)
