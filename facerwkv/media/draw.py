"""Faces, and what they were taken for, drawn on their image."""

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw

from facerwkv.media.fonts import Writer
from facerwkv.media.geometry import Box, intersection

# Dark enough for white text on them. In the order of the labels; with more classes than colours it starts again.
COLOURS = ("#c0392b", "#4f7a1e", "#7d3c98", "#a86400", "#566573", "#1f6fa8", "#b5125b", "#7b5b4c")
UNSURE = "#aab2bd"
INK, PAPER = "#ffffff", (18, 20, 24, 205)
FOR, AGAINST = (214, 47, 39), (33, 102, 172)
SMALLEST_SIDE = 480
MOST_ROWS = 3
CROWD = 5

Line = tuple[str, float | None, str]  # text, probability, colour


def draw_faces(
    rgb: np.ndarray,
    faces: Sequence[tuple[Sequence[float] | None, Mapping[str, float]]],
    numbers: Sequence[int | None] = (),
    unsure: Sequence[bool] = (),
    boxes_only: bool = False,
) -> Image.Image:
    """A copy of the image, uint8 (H, W, 3) RGB, with each face framed and its likeliest labels as bars.

    A face is its box (x1, y1, x2, y2 in pixels; None for the whole image) and its probabilities by name. `numbers`
    are the faces' own; without them, several are counted from 1. `unsure` are the faces whose label is in doubt: they
    are framed in grey. In a crowd, of CROWD faces or more, a label that would hide a face is left out, and with
    `boxes_only` every one is. An image whose longer side is under 480 pixels is enlarged to that, to keep the text
    readable.
    """
    scale = max(1.0, SMALLEST_SIDE / max(rgb.shape[:2]))
    image = Image.fromarray(rgb)
    image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    font = Writer(max(13, round(max(image.size) / 55)))
    brush = ImageDraw.Draw(image, "RGBA")
    frames: list[Box | None] = []
    for box, _ in faces:
        x1, y1, x2, y2 = (side * scale for side in box or (0, 0, 0, 0))
        frames.append((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)) if box else None)
    unsure = unsure or [False] * len(faces)
    ranked = [sorted(probs, key=lambda name, probs=probs: -probs[name])[:MOST_ROWS] for _, probs in faces]  # type: ignore[misc]
    colours = [{name: COLOURS[i % len(COLOURS)] for i, name in enumerate(probs)} for _, probs in faces]
    for frame, names, colour, doubt in zip(frames, ranked, colours, unsure, strict=True):
        if frame:
            brush.rectangle(frame, outline=UNSURE if doubt else colour[names[0]], width=max(2, round(font.size / 8)))
    panels: list[Box] = []
    numbers = numbers or (range(1, len(faces) + 1) if len(faces) > 1 else [None] * len(faces))
    for i, (frame, names, number) in enumerate(zip(frames, ranked, numbers, strict=True) if not boxes_only else ()):
        if frame and frame[3] - frame[1] < len(names) * round(1.4 * font.size):  # one line beside a very low face
            names = names[:1]
        prefix = ("" if number is None else f"{number}  ") + ("unsure: " if unsure[i] else "")
        rows: list[Line] = [(prefix * (name is names[0]) + name, faces[i][1][name], colours[i][name]) for name in names]
        others = [other for other in frames if other and other is not frame]
        for shown in (rows, rows[:1]):
            panel, hidden = _beside(_size(shown, font), frame, others, panels, image.size)
            if not hidden or (len(faces) < CROWD and shown == rows):
                panels.append(panel)
                _paint(brush, panel, shown, font)
                break
    if not faces and not boxes_only:
        rows = [("no face", None, COLOURS[4])]
        _paint(brush, (0, 0, *_size(rows, font)), rows, font)
    return image


def draw_patches(image: np.ndarray, scores: np.ndarray, title: str = "") -> Image.Image:
    """An image, uint8 (h, w, c) with 1 or 3 channels, under a grid of patches (Hp, Wp): red above 0, blue below.

    The strongest patch is the least transparent. Enlarged so that its longer side has 480 pixels or more.
    """
    rgb = np.broadcast_to(image, (*image.shape[:2], 3))
    scale = max(1, -(-SMALLEST_SIDE // max(rgb.shape[:2])))
    drawn = Image.fromarray(np.ascontiguousarray(rgb)).resize((rgb.shape[1] * scale, rgb.shape[0] * scale))
    strength = np.abs(scores) / max(float(np.abs(scores).max()), 1e-12)
    patches = np.where(scores[..., None] >= 0, *(np.array(colour, np.uint8) for colour in (FOR, AGAINST)))
    tiles = np.concatenate([patches, (170 * strength[..., None]).astype(np.uint8)], -1)
    layer = Image.fromarray(tiles).resize(drawn.size, Image.Resampling.NEAREST)
    drawn = Image.alpha_composite(drawn.convert("RGBA"), layer).convert("RGB")
    if title:
        font = Writer(max(13, round(max(drawn.size) / 30)))
        rows: list[Line] = [(title, None, COLOURS[0])]
        _paint(ImageDraw.Draw(drawn, "RGBA"), (0, 0, *_size(rows, font)), rows, font)
    return drawn


def _size(rows: Sequence[Line], font: Writer) -> tuple[float, float]:
    """Width and height of a panel: wide enough for the longest name and a percentage."""
    longest = max(font.length(text) for text, _, _ in rows)
    return longest + 4.2 * font.size, len(rows) * round(1.4 * font.size)


def _beside(
    size: tuple[float, float], frame: Box | None, others: list[Box], panels: list[Box], limits: tuple[int, int]
) -> tuple[Box, float]:
    """Where a panel goes: the position beside its face that hides the least of the faces and of the other panels, and
    how much that is."""
    width, height = size
    if frame is None:
        return (0, limits[1] - height, width, limits[1]), 0
    x1, y1, x2, y2 = frame
    corners = [(x1, y2), (x1, y1 - height), (x2 - width, y2), (x2 - width, y1 - height), (x2, y1), (x1 - width, y1)]
    corners += [(x2, y2 - height), (x1 - width, y2 - height), (x1, y2 - height)]
    inside = np.maximum(0, np.minimum(corners, np.subtract(limits, size)))
    spots = np.concatenate([inside, inside + size], 1)
    obstacles = np.array([frame, *others, *panels])
    weights = np.array([1] + [2] * len(others) + [4] * len(panels))
    hidden = (intersection(spots, obstacles) * weights).sum(1)
    left, top, right, bottom = spots[hidden.argmin()].tolist()
    return (left, top, right, bottom), float(hidden.min())


def _paint(brush: ImageDraw.ImageDraw, spot: Box, rows: Sequence[Line], font: Writer) -> None:
    """A panel of lines: the name, the percentage, and a bar behind them as long as the probability."""
    x1, y1, x2, y2 = spot
    brush.rectangle(spot, fill=PAPER)
    margin, height = 0.35 * font.size, (y2 - y1) / len(rows)
    for i, (text, probability, colour) in enumerate(rows):
        top, middle = y1 + i * height, y1 + (i + 0.5) * height
        if probability is not None:
            brush.rectangle((x1, top + 1, x1 + probability * (x2 - x1), top + height - 2), fill=colour)
            font.draw(brush, (x2 - margin, middle), f"{probability:.0%}", INK, "rm")
        font.draw(brush, (x1 + margin, middle), text, INK, "lm")
