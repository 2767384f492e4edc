"""The head's skin: light, the relief of a face, the folds of the expression, blush and beard.

They are soft, so they are painted on a small map in turned face coordinates, which is then laid over the head.
"""

import cv2
import numpy as np

from facerwkv.data.toy.brush import Brush, bezier, ellipse
from facerwkv.data.toy.face import Expression, Face
from facerwkv.data.toy.features import mouth_line
from facerwkv.data.toy.person import Look

MAP = 144  # cells across; the map covers -1.5..1.5
_AXIS = (np.arange(MAP, dtype=np.float32) + 0.5) * np.float32(3 / MAP) - np.float32(1.5)
_SIDES = (-1.0, 1.0)


def draw_head(brush: Brush, look: Look) -> None:
    """The head and the ears."""
    face = brush.face
    ears = [ellipse(0.76 * side * face.width - 0.2 * face.yaw + 0.05 * side, 0.0, 0.12, 0.23) for side in _SIDES]
    shapes = [brush.pixels(shape) for shape in (face.outline(), *ears)]
    height, width = brush.canvas.shape[:2]
    left, top = np.maximum(np.min([shape.min(0) for shape in shapes], axis=0) // 16 - 1, 0).tolist()
    right, bottom = np.minimum(np.max([shape.max(0) for shape in shapes], axis=0) // 16 + 2, (width, height)).tolist()
    patch = brush.canvas[top:bottom, left:right]
    mask = np.zeros(patch.shape[:2], np.uint8)
    for shape in shapes:
        cv2.fillPoly(mask, [shape - np.array([left * 16, top * 16], np.int32)], 255, cv2.LINE_8, 4)
    to_patch = brush.affine @ np.array([[3 / MAP, 0, -1.5], [0, 3 / MAP, -1.5], [0, 0, 1]])
    to_patch[:, 2] -= left, top
    skin = cv2.warpAffine(_skin(brush, look), to_patch, (right - left, bottom - top), borderMode=cv2.BORDER_REPLICATE)
    cv2.copyTo(skin, mask, patch)


def _skin(brush: Brush, look: Look) -> np.ndarray:
    """The colours of the map, uint8 (144, 144, 3)."""
    face, light = brush.face, brush.light
    tone = light.on_head(_AXIS[None], _AXIS[:, None], face.width).astype(np.float32)
    mouth = mouth_line(brush, look)
    tone *= 1 + _blobs(face, _relief(face.expression, look, light.direction[0], mouth)) - _folds(face, mouth)
    cheeks = [(0.42 * side, 0.28 - 0.06 * face.expression.cheek, 0.2, 0.16, 1.0) for side in _SIDES]
    blush = _blobs(face, [*cheeks, (0.0, 0.18, 0.12, 0.1, 0.6)])[..., None]
    colour = tone[..., None] * np.array(look.skin, np.float32) * (1 - blush * np.array([0, 0.13, 0.12], np.float32))
    if look.beard != "none":
        cover = _beard(face, look)[..., None]
        colour += cover * (tone[..., None] * np.array(look.hair, np.float32) - colour)
    return np.clip(colour, 0, 255).astype(np.uint8)


def _blobs(face: Face, blobs: list[tuple[float, float, float, float, float]]) -> np.ndarray:
    """The sum of soft spots (x, y, width, height, strength) of the frontal face, (144, 144)."""
    numbers = np.array(blobs, np.float32)
    centres = face.turn(numbers[:, :2]).astype(np.float32)
    across = np.exp(-0.5 * ((_AXIS - centres[:, :1]) / numbers[:, 2:3]) ** 2)
    down = np.exp(-0.5 * ((_AXIS - centres[:, 1:]) / numbers[:, 3:4]) ** 2) * numbers[:, 4:]
    return down.T @ across


def _relief(e: Expression, look: Look, lx: float, mouth: float) -> list[tuple[float, float, float, float, float]]:
    """The lighter and darker spots of a face whose light comes from `lx` (-1 left, 1 right)."""
    pairs = [
        spot
        for side in _SIDES
        for spot in (
            (0.34 * side, -0.2, 0.17, 0.12, -0.24),
            (0.2 * side, -0.12, 0.06, 0.1, -0.1 + 0.08 * lx * side),
            (0.13 * side * look.nose, 0.1, 0.05, 0.16, -0.16 + 0.2 * lx * side),
            (0.42 * side, 0.2 - 0.08 * e.cheek, 0.16, 0.12, 0.07 + 0.07 * e.cheek),
        )
    ]
    return [
        *pairs,
        (0.0, 0.0, 0.05, 0.25, 0.12),
        (0.0, 0.2, 0.07, 0.06, 0.12),
        (0.0, 0.34, 0.14, 0.035, -0.26),
        (0.0, mouth + 0.19 + e.drop, 0.15, 0.05, -0.16),
        (0.0, 0.86 + e.jaw, 0.2, 0.09, 0.07),
        (0.0, -0.75, 0.4, 0.2, 0.06),
    ]


def _folds(face: Face, mouth: float) -> np.ndarray:
    """How much darker the folds of the expression make the skin, (144, 144)."""
    folds = np.zeros((MAP, MAP), np.uint8)
    for depth, line in _fold_lines(face.expression, mouth):
        if depth > 0.05:
            cv2.polylines(folds, [_cells(face, line)], False, min(depth, 1.0) * 255, 1, cv2.LINE_AA, 4)
    return cv2.GaussianBlur(folds.astype(np.float32), (5, 5), 0.8) * (0.8 / 255)


def _fold_lines(e: Expression, mouth: float) -> list[tuple[float, np.ndarray]]:
    """Depth and course of every fold: beside nose and mouth, between the brows, on the nose, at the eyes, forehead."""
    corner = mouth - 0.09 * e.corner
    lines: list[tuple[float, np.ndarray]] = []
    for s in _SIDES:
        beside = bezier((0.17 * s, 0.22 - 0.06 * e.wrinkle), (0.36 * s, 0.3), ((e.width + 0.1) * s, corner + 0.04))
        below = bezier(
            (e.width * s, corner), ((e.width + 0.05) * s, corner + 0.06), ((e.width + 0.04) * s, corner + 0.14)
        )
        lines += [
            (0.18 + 0.5 * max(e.corner, 0.0) + 0.55 * e.wrinkle, beside),
            (-0.3 * e.corner, below),
            (0.5 * e.brow_draw, bezier((0.06 * s, -0.32), (0.045 * s, -0.42), (0.07 * s, -0.52))),
            (0.8 * e.wrinkle, bezier((0.02 * s, -0.17), (0.09 * s, -0.16), (0.15 * s, -0.1))),
            (0.7 * e.wrinkle, bezier((0.03 * s, -0.07), (0.1 * s, -0.06), (0.16 * s, 0.02))),
            (0.35 * e.cheek, bezier((0.56 * s, -0.17), (0.62 * s, -0.16), (0.68 * s, -0.22))),
            (0.35 * e.cheek, bezier((0.56 * s, -0.13), (0.62 * s, -0.1), (0.68 * s, -0.12))),
        ]
    bow = -0.03 if e.brow_outer > 0.06 else -0.09
    raised = min(max(e.brow_inner, 0.0) / 0.14, 1.2)
    lines += [(0.45 * raised, bezier((-0.38, y + 0.03), (0, y + bow), (0.38, y + 0.03))) for y in (-0.66, -0.76, -0.86)]
    return lines


def _beard(face: Face, look: Look) -> np.ndarray:
    """How much hair covers the skin, 0..1, (144, 144)."""
    lip = np.array([[-0.3, 0.54], [-0.2, 0.42], [0, 0.44], [0.2, 0.42], [0.3, 0.54], [0, 0.5]])
    lip[:, 1] += look.mouth
    half = np.array([[0, 0.74], [0.3, 0.72], [0.36, 0.5], [0.62, 0.3], [0.76, 0.0], [0.9, 0.6], [0.5, 1.2]])
    chin = np.concatenate([half, half[::-1] * [-1, 1]])
    cover = np.zeros((MAP, MAP), np.float32)
    for part in (lip,) if look.beard == "moustache" else (lip, chin):
        cv2.fillPoly(cover, [_cells(face, part)], 1.0, cv2.LINE_8, 4)
    grain = np.random.default_rng(look.seed).random((MAP, MAP), np.float32)
    return cv2.GaussianBlur(cover, (9, 9), 2.0) * (0.8 + 0.2 * grain) * (0.35 if look.beard == "stubble" else 0.9)


def _cells(face: Face, points: np.ndarray) -> np.ndarray:
    """Points of the frontal face as cv2's fixed-point cells of the map."""
    return np.round((face.turn(points) + 1.5) * (MAP / 3 * 16)).astype(np.int32)
