"""The surroundings: a table of what lies about in each place, and one routine that strews it."""

import cv2
import numpy as np

from facerwkv.data.toy.face import mix

GREY, GREEN, DARK, SKY = (128, 124, 120), (64, 112, 46), (40, 36, 34), (200, 220, 243)
# Tint and its share in the ground; least and greatest sharpness (1 = every pixel); layers from the back. A layer is:
# kind; how many; two bounds of x, y (a box's corner, a disc's centre), width, height (a disc's half axes) in pixels of
# 400 x 600 (H x W); tint and its share; width and height of panes in a box (0 = none).
PLACES: dict[str, tuple] = {
    "studio": (GREY, 0.1, (0.05, 0.1), (("disc", (20, 50), (0, 0, 20, 15), (600, 400, 120, 80), GREY, 0.2, (0, 0)),)),
    "lights": (DARK, 0.7, (0.3, 0.6), (("disc", (15, 40), (0, 0, 8, 8), (600, 400, 36, 36), SKY, 0.2, (0, 0)),)),
    "wallpaper": (GREY, 0, (0.3, 0.6), (("box", (1, 2), (-40, -40, 700, 500), (0, 0, 701, 501), GREY, 0.2, (36, 36)),)),
    "room": (GREY, 0.1, (0.3, 0.6), (
        ("box", (1, 2), (-10, 250, 700, 200), (-9, 360, 701, 201), DARK, 0.4, (0, 0)),
        ("box", (2, 5), (-30, 10, 60, 60), (560, 150, 170, 150), SKY, 0.4, (40, 44)),
        ("box", (1, 4), (-40, 170, 70, 300), (560, 330, 200, 301), DARK, 0.2, (300, 34)))),
    "street": (SKY, 0.7, (0.3, 0.6), (
        ("box", (9, 14), (-60, 20, 60, 400), (600, 200, 150, 401), GREY, 0.4, (24, 28)),
        ("box", (1, 2), (-10, 340, 700, 200), (-9, 350, 701, 201), DARK, 0.6, (0, 0)))),
    "garden": (SKY, 0.8, (0.3, 0.6), (
        ("disc", (3, 6), (0, 330, 140, 90), (600, 400, 400, 190), SKY, 0.5, (0, 0)),
        ("disc", (2, 5), (0, 440, 200, 90), (600, 500, 400, 190), GREEN, 0.6, (0, 0)),
        ("disc", (10, 40), (0, 200, 8, 7), (600, 400, 44, 40), GREEN, 0.7, (0, 0)))),
}  # fmt: skip


def draw_place(name: str, rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """The place out of focus, in colours around one hue: uint8 (height, width, 3) RGB."""
    tint, share, sharpness, layers = PLACES[name]
    hues = (rng.uniform(0, 180) + rng.normal(0, 14, 5)) % 180
    hsv = np.stack([hues, rng.uniform(20, 150, 5), rng.uniform(70, 235, 5)], axis=-1).astype(np.uint8)
    colours = cv2.cvtColor(hsv[None], cv2.COLOR_HSV2RGB)[0].astype(float)
    ground = mix(colours[:2], tint, share).astype(np.uint8)
    image = cv2.resize(ground[:, None], (600, 400))
    for kind, count, lowest, highest, tint, share, pane in layers:
        for x, y, w, h in rng.uniform(lowest, highest, (rng.integers(*count), 4)).astype(int).tolist():
            colour = mix(colours[rng.integers(5)], tint, share) * rng.uniform(0.75, 1.1)
            glass = mix(colour, (250, 240, 205) if rng.random() < 0.5 else (40, 46, 56), rng.uniform(0.2, 0.7))
            if kind == "disc":
                cv2.ellipse(image, (x, y), (w, h), 0, 0, 360, colour.tolist(), -1)
                continue
            cv2.rectangle(image, (x, y), (x + w, y + h), colour.tolist(), -1)
            across, down = np.minimum(np.array(pane) * rng.uniform(0.7, 1.3, 2), (w - 8, h)).astype(int).tolist()
            for v in range(y + 8, min(y + h, 400) - down // 2, down) if across else ():
                for u in range(x + 8, min(x + w, 600) - across // 2, across):
                    cv2.rectangle(image, (u, v), (u + across * 2 // 3, v + down * 2 // 3), glass.tolist(), -1)
    sharp = rng.uniform(*sharpness)
    small = cv2.resize(image, None, fx=sharp, fy=sharp, interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (width, height))
