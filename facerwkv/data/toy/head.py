"""The head: its skin, and the brows, eyes, nose and mouth that show the expression.

The skin's light, relief, folds and beard are soft, so they are painted on a small map in turned face coordinates, which
is then laid over the head; the features are strokes.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from facerwkv.data.toy.brush import Brush, band, bezier, ellipse, mix, shade
from facerwkv.data.toy.face import Face
from facerwkv.data.toy.person import Look

MAP = 144  # cells across; the map covers -1.5..1.5
_AXIS = (np.arange(MAP, dtype=np.float32) + 0.5) * np.float32(3 / MAP) - np.float32(1.5)


def draw_head(brush: Brush, look: Look) -> None:
    """The head and the ears."""
    face = brush.face
    ears = [ellipse(0.76 * s * face.width - 0.2 * face.yaw + 0.05 * s, 0.0, 0.12, 0.23) for s in (-1, 1)]
    shapes = [brush.pixels(shape) for shape in (face.outline(), *ears)]
    corners = np.concatenate(shapes) // 16
    left, top = np.maximum(corners.min(0) - 1, 0).tolist()
    right, bottom = np.minimum(corners.max(0) + 2, brush.canvas.shape[1::-1]).tolist()
    patch = brush.canvas[top:bottom, left:right]
    mask = np.zeros(patch.shape[:2], np.uint8)
    for shape in shapes:
        cv2.fillPoly(mask, [shape], 255, cv2.LINE_8, 4, (-16 * left, -16 * top))
    to_patch = brush.affine @ np.array([[3 / MAP, 0, -1.5], [0, 3 / MAP, -1.5], [0, 0, 1]])
    to_patch[:, 2] -= left, top
    skin = cv2.warpAffine(_skin(brush, look), to_patch, (right - left, bottom - top), borderMode=cv2.BORDER_REPLICATE)
    cv2.copyTo(skin, mask, patch)


def _skin(brush: Brush, look: Look) -> np.ndarray:
    """The colours of the map, uint8 (144, 144, 3): soft spots (x, y, width, height, strength), folds, blush, beard."""
    face, e, lx, mouth = brush.face, brush.face.expression, brush.light.direction[0], mouth_line(brush, look)
    relief, cheeks = [], []
    for s in (-1.0, 1.0):
        relief += [
            (0.34 * s, -0.2, 0.17, 0.12, -0.24),
            (0.2 * s, -0.12, 0.06, 0.1, -0.1 + 0.08 * lx * s),
            (0.13 * s * look.nose, 0.1, 0.05, 0.16, -0.16 + 0.2 * lx * s),
            (0.42 * s, 0.2 - 0.08 * e.cheek, 0.16, 0.12, 0.07 + 0.07 * e.cheek),
        ]
        cheeks.append((0.42 * s, 0.28 - 0.06 * e.cheek, 0.2, 0.16, 1.0))
    relief += [
        (0.0, 0.0, 0.05, 0.25, 0.12),
        (0.0, 0.2, 0.07, 0.06, 0.12),
        (0.0, 0.34, 0.14, 0.035, -0.26),
        (0.0, mouth + 0.19 + e.drop, 0.15, 0.05, -0.16),
        (0.0, 0.86 + e.jaw, 0.2, 0.09, 0.07),
        (0.0, -0.75, 0.4, 0.2, 0.06),
    ]
    tone = brush.light.on_head(_AXIS[None], _AXIS[:, None], face.width).astype(np.float32)
    tone *= 1 + _blobs(face, relief) - _folds(face, mouth)
    blush = _blobs(face, [*cheeks, (0.0, 0.18, 0.12, 0.1, 0.6)])[..., None]
    colour = tone[..., None] * np.array(look.skin, np.float32) * (1 - blush * np.array([0, 0.13, 0.12], np.float32))
    if look.beard != "none":
        cover = _beard(face, look)[..., None]
        colour += cover * (tone[..., None] * np.array(look.hair, np.float32) - colour)
    return np.clip(colour, 0, 255).astype(np.uint8)


def _blobs(face: Face, spots: Sequence[tuple[float, ...]]) -> np.ndarray:
    """The sum of soft spots of the frontal face, (144, 144)."""
    numbers = np.array(spots, np.float32)
    centres = face.turn(numbers[:, :2]).astype(np.float32)
    across = np.exp(-0.5 * ((_AXIS - centres[:, :1]) / numbers[:, 2:3]) ** 2)
    down = np.exp(-0.5 * ((_AXIS - centres[:, 1:]) / numbers[:, 3:4]) ** 2) * numbers[:, 4:]
    return down.T @ across


def _folds(face: Face, mouth: float) -> np.ndarray:
    """How much darker the folds make the skin, (144, 144): beside nose and mouth, between the brows, on the nose, at
    the eyes, on the forehead."""
    e = face.expression
    corner = mouth - 0.09 * e.corner
    lines: list[tuple[float, tuple[tuple[float, float], ...]]] = []
    for s in (-1, 1):
        beside = (0.17 * s, 0.22 - 0.06 * e.wrinkle), (0.36 * s, 0.3), ((e.width + 0.1) * s, corner + 0.04)
        ends = (e.width * s, corner), ((e.width + 0.05) * s, corner + 0.06), ((e.width + 0.04) * s, corner + 0.14)
        lines += [
            (0.18 + 0.5 * max(e.corner, 0.0) + 0.55 * e.wrinkle, beside),
            (-0.3 * e.corner, ends),
            (0.5 * e.brow_draw, ((0.06 * s, -0.32), (0.045 * s, -0.42), (0.07 * s, -0.52))),
            (0.8 * e.wrinkle, ((0.02 * s, -0.17), (0.09 * s, -0.16), (0.15 * s, -0.1))),
            (0.7 * e.wrinkle, ((0.03 * s, -0.07), (0.1 * s, -0.06), (0.16 * s, 0.02))),
            (0.35 * e.cheek, ((0.56 * s, -0.17), (0.62 * s, -0.16), (0.68 * s, -0.22))),
            (0.35 * e.cheek, ((0.56 * s, -0.13), (0.62 * s, -0.1), (0.68 * s, -0.12))),
        ]
    bow, raised = -0.03 if e.brow_outer > 0.06 else -0.09, min(max(e.brow_inner, 0.0) / 0.14, 1.2)
    lines += [(0.45 * raised, ((-0.38, y + 0.03), (0, y + bow), (0.38, y + 0.03))) for y in (-0.66, -0.76, -0.86)]
    folds = np.zeros((MAP, MAP), np.uint8)
    for depth, (start, control, end) in lines:
        if depth > 0.05:
            cells = _cells(face, bezier(start, control, end))
            cv2.polylines(folds, [cells], False, min(depth, 1.0) * 255, 1, cv2.LINE_AA, 4)
    return cv2.GaussianBlur(folds.astype(np.float32), (5, 5), 0.8) * (0.8 / 255)


def _beard(face: Face, look: Look) -> np.ndarray:
    """How much hair covers the skin, 0..1, (144, 144)."""
    lip = np.array([[-0.3, 0.54], [-0.2, 0.42], [0, 0.44], [0.2, 0.42], [0.3, 0.54], [0, 0.5]])
    lip[:, 1] += look.mouth
    half = np.array([[0, 0.74], [0.3, 0.72], [0.36, 0.5], [0.62, 0.3], [0.76, 0.0], [0.9, 0.6], [0.5, 1.2]])
    cover = np.zeros((MAP, MAP), np.float32)
    for outline in (lip, np.concatenate([half, half[::-1] * [-1, 1]]))[: 1 if look.beard == "moustache" else 2]:
        cv2.fillPoly(cover, [_cells(face, outline)], 1.0, cv2.LINE_8, 4)
    grain = np.random.default_rng(look.seed).random((MAP, MAP), np.float32)
    return cv2.GaussianBlur(cover, (9, 9), 2.0) * (0.8 + 0.2 * grain) * (0.35 if look.beard == "stubble" else 0.9)


def _cells(face: Face, points: np.ndarray) -> np.ndarray:
    """Points of the frontal face as cv2's fixed-point cells of the map."""
    return np.round((face.turn(points) + 1.5) * (MAP / 3 * 16)).astype(np.int32)


def draw_eye(brush: Brush, look: Look, side: int) -> None:
    """The eye on the image's left (side -1) or right (1): lids, white, iris and pupil, lashes, the bag below."""
    e, turn = brush.face.expression, brush.face.turn
    light = min(brush.tone(0.34 * side, -0.2) + 0.12, 1.05)
    t = np.linspace(-1, 1, 17)  # from the nose to the temple
    arch = (1 - t**2) ** 0.7
    x = side * (0.34 + 0.175 * look.eyes * t)
    upper = -0.2 - 0.02 * t + 0.05 * e.droop * (t + 0.3) - 0.088 * look.eyes * e.lid * arch
    low = 0.068 * look.eyes * (1 - 0.6 * e.squint) + 0.012 * (e.lid - 1)
    lower = np.maximum(-0.2 - 0.02 * t + 0.02 * e.droop * t + low * arch, upper + 0.012)
    brush.fill(turn(band(x, upper - 0.03 - 0.025 * arch, upper)), shade(look.skin, 0.76 * light))
    brush.fill(turn(band(x, upper, lower)), shade((240, 236, 232), light))
    u, v, glint = 0.34 * side + look.gaze[0], -0.215 + look.gaze[1], 0.03 if brush.light.direction[0] > 0 else -0.03
    for disc, colour in (
        (ellipse(u, v, 0.088, 0.088, 24), shade(look.iris, 0.5 * light)),
        (ellipse(u, v, 0.072, 0.072, 24), shade(look.iris, 1.15 * light)),
        (ellipse(u, v, 0.038, 0.038, 24), (14, 12, 12)),
        (ellipse(u + glint, v - 0.03, 0.016, 0.016, 24), (250, 250, 250)),
    ):
        free = (np.interp(disc[:, 0], x[::side], lid[::side]) for lid in (upper, lower))
        disc[:, 1] = np.clip(disc[:, 1], *free)  # as far as the lids leave it free
        brush.fill(turn(disc), colour)
    lash = shade(mix(look.skin, (20, 14, 12), 0.88), light)
    brush.fill(turn(band(x, upper - 0.012 - 0.018 * arch, upper + 0.008)), lash)
    brush.stroke(turn(np.stack([x, lower], 1)), shade(look.skin, 0.55 * light), 0.014)
    if e.squint > 0.3:
        bag = np.stack([0.96 * x + 0.0136 * side, lower + 0.035 + 0.03 * arch], axis=1)
        brush.stroke(turn(bag), shade(look.skin, (0.86 - 0.15 * e.squint) * light), 0.016)


def draw_brow(brush: Brush, look: Look, side: int) -> None:
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
    e, turn, light = brush.face.expression, brush.face.turn, brush.tone(0, 0.25)
    y, wide = 0.3 - 0.05 * e.wrinkle, 0.135 * look.nose * (1 + 0.12 * e.wrinkle)
    dark, soft = shade(look.skin, 0.42 * light), shade(look.skin, 0.66 * light)
    for side in (-1, 1):
        brush.fill(turn(ellipse(side * 0.068 * look.nose, y - 0.015, 0.038, 0.019, 14), 0.1), dark)
        wing = bezier((0.8 * side * wide, y - 0.13), (1.35 * side * wide, y - 0.06), (0.75 * side * wide, y))
        brush.stroke(turn(wing, 0.08), soft, 0.018)
    brush.stroke(turn(bezier((-0.05, y + 0.005), (0, y + 0.025), (0.05, y + 0.005)), 0.1), soft, 0.018)


def mouth_line(brush: Brush, look: Look) -> float:
    """The height at which the lips meet when the mouth is straight."""
    return 0.56 + look.mouth - 0.02 * brush.face.expression.wrinkle


def draw_mouth(brush: Brush, look: Look) -> None:
    """Lips, what an open mouth shows (dark, tongue, teeth) or the line of a closed one, and the corners."""
    e, turn, light = brush.face.expression, brush.face.turn, brush.tone(0, 0.55) + 0.05
    t = np.abs(np.linspace(-1, 1, 25))
    line = mouth_line(brush, look) - 0.15 * e.corner * (t**1.8 - 0.4)
    opening = (1 - t ** (2 + 4 * e.square)) ** 0.6
    x, upper, lower = e.width * np.linspace(-1, 1, 25), line - e.rise * opening, line + e.drop * opening
    bow = 0.055 * e.lips * (1 - t**2.2) * (1 - 0.22 * np.exp(-((t / 0.13) ** 2)))
    brush.fill(turn(band(x, upper - bow, lower)), shade(look.lips, 0.86 * light))
    brush.fill(turn(band(x, upper, lower + 0.08 * e.lips * (1 - t**2.4))), shade(look.lips, 1.04 * light))
    if e.rise + e.drop > 0.012:
        u, top, bottom = x[1:-1], upper[1:-1], lower[1:-1]
        gap, enamel = bottom - top, shade((244, 240, 230), light)
        brush.fill(turn(band(u, top, bottom)), shade((78, 22, 24), light))
        if e.rise + e.drop > 0.1:
            brush.fill(turn(band(u, bottom - 0.5 * gap, bottom)), shade((176, 84, 84), 0.85 * light))
        if e.upper_teeth > 0.08:
            brush.fill(turn(band(u, top, top + e.upper_teeth * gap)), enamel)
        if e.lower_teeth > 0.08:
            brush.fill(turn(band(u, bottom - e.lower_teeth * gap, bottom)), shade(enamel, 0.94))
        if e.upper_teeth + e.lower_teeth > 0.9:
            brush.stroke(turn(np.stack([u, top + e.upper_teeth * gap], 1)), shade((110, 60, 56), light), 0.01)
    else:
        brush.stroke(turn(np.stack([x, line], 1)), shade(mix(look.lips, (60, 16, 18), 0.65), light), 0.022)
    for end in (0, -1):
        corner = ellipse(1.01 * x[end], line[end], 0.022, 0.016, 10)
        brush.fill(turn(corner), shade(mix(look.skin, look.lips, 0.4), 0.55 * light))
