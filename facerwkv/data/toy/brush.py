"""Colours, curves, light, and a brush that draws in the coordinates of one face. Colours are RGB, 0..255."""

from dataclasses import dataclass

import cv2
import numpy as np

from facerwkv.data.toy.face import Face

Colour = tuple[float, ...]
Point = tuple[float, float] | np.ndarray
_T = np.linspace(0, 1, 12)[:, None]
_BERNSTEIN = np.concatenate([(1 - _T) ** 2, 2 * _T * (1 - _T), _T**2], axis=1)


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """`share` of the second colour in the first."""
    return tuple([a + (b - a) * share for a, b in zip(first, second, strict=True)])


def shade(colour: Colour, factor: float) -> Colour:
    """A colour made darker (below 1) or lighter."""
    return tuple([min(value * factor, 255.0) for value in colour])


def vary(rng: np.random.Generator, colour: Colour, brightness: float, hue: float) -> Colour:
    """A colour of about that brightness (a relative spread) and hue (a spread of each channel)."""
    return tuple(np.clip(np.array(colour) * rng.normal(1, brightness) + rng.normal(0, hue, 3), 10, 250).tolist())


def ellipse(x: float, y: float, a: float, b: float, n: int = 32) -> np.ndarray:
    """An ellipse as a polygon (n, 2)."""
    t = np.arange(n) * (2 * np.pi / n)
    return np.stack([x + a * np.cos(t), y + b * np.sin(t)], axis=1)


def bezier(start: Point, control: Point, end: Point) -> np.ndarray:
    """A quadratic Bezier curve as a line of 12 points."""
    return _BERNSTEIN @ np.array((start, control, end))


def band(x: np.ndarray, top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """The polygon between two curves over the same x."""
    return np.stack([np.r_[x, x[::-1]], np.r_[top, bottom[::-1]]], axis=1)


@dataclass(frozen=True)
class Light:
    """Where the light comes from (unit vector: x right, y down, z to the camera) and the share that is everywhere."""

    direction: tuple[float, float, float]
    ambient: float

    def on_head(self, x: np.ndarray, y: np.ndarray, width: float) -> np.ndarray:
        """Lambert's brightness, 0..1, of an ellipsoid head at turned face coordinates."""
        nx, ny = x / (0.86 * width), y / 1.3
        nz = np.sqrt(np.clip(1 - nx * nx - ny * ny, 0, 1))
        lx, ly, lz = self.direction
        return self.ambient + (1 - self.ambient) * np.clip(nx * lx + ny * ly + nz * lz, 0, 1)


@dataclass(frozen=True)
class Brush:
    """Fills and strokes on an RGB canvas; `affine` leads from face coordinates to its pixels."""

    canvas: np.ndarray
    face: Face
    light: Light
    affine: np.ndarray

    def pixels(self, points: np.ndarray) -> np.ndarray:
        """Face coordinates (N, 2) as cv2's fixed-point pixels with 4 fractional bits."""
        return np.round((points @ self.affine[:, :2].T + self.affine[:, 2]) * 16).astype(np.int32)

    def fill(self, outline: np.ndarray, colour: Colour, *holes: np.ndarray) -> None:
        """Fill a polygon but for its holes."""
        cv2.fillPoly(self.canvas, [self.pixels(points) for points in (outline, *holes)], colour, cv2.LINE_AA, 4)

    def stroke(self, line: np.ndarray, colour: Colour, width: float) -> None:
        """Draw a line of a width in face coordinates, at least one pixel."""
        thickness = max(1, round(width * float(np.hypot(self.affine[0, 0], self.affine[1, 0]))))
        cv2.polylines(self.canvas, [self.pixels(line)], False, colour, thickness, cv2.LINE_AA, 4)

    def tone(self, x: float, y: float) -> float:
        """The light at a point of the frontal face."""
        (u, v), *_ = self.face.turn(np.array([[x, y]]))
        return float(self.light.on_head(u, v, self.face.width))
