"""The surroundings: each function paints an RGB uint8 image of any size that shows 400 x 600 (H x W) once resized."""

from collections.abc import Callable

import cv2
import numpy as np

from facerwkv.data.toy.brush import Colour, mix, shade

Palette = list[Colour]


def palette(rng: np.random.Generator, hue: float) -> Palette:
    """Five colours around one hue (OpenCV's 0..180), from muted to strong."""
    hues = (hue + rng.normal(0, 14, 5)) % 180
    hsv = np.stack([hues, rng.uniform(20, 150, 5), rng.uniform(70, 235, 5)], axis=-1).astype(np.uint8)
    return [tuple(colour) for colour in cv2.cvtColor(hsv[None], cv2.COLOR_HSV2RGB)[0].astype(float).tolist()]


def _gradient(rng: np.random.Generator, first: Colour, second: Colour, scale: int = 4) -> np.ndarray:
    angle = rng.uniform(0, 2 * np.pi)
    x, y = np.linspace(-1, 1, 24)[None, :, None], np.linspace(-1, 1, 16)[:, None, None]
    share = np.clip(0.5 + 0.35 * (x * np.cos(angle) + y * np.sin(angle)), 0, 1)
    colours = (1 - share) * np.array(first) + share * np.array(second)
    return cv2.resize(colours.astype(np.uint8), (150 * scale, 100 * scale))


def studio(rng: np.random.Generator, colours: Palette) -> np.ndarray:
    """A backdrop with soft clouds of colour."""
    clouds = np.zeros((100, 150), np.float32)
    for cells in (3, 7, 17):
        coarse = rng.normal(0, 60 / cells**0.7, (cells, cells * 3 // 2)).astype(np.float32)
        clouds += cv2.resize(coarse, (150, 100), interpolation=cv2.INTER_CUBIC)
    image = _gradient(rng, colours[0], colours[1], 1) + clouds[..., None]
    return np.clip(image, 0, 255).astype(np.uint8)


def room(rng: np.random.Generator, colours: Palette) -> np.ndarray:
    """A wall with images or windows, a floor and furniture."""
    image = _gradient(rng, colours[0], shade(colours[0], 0.7))
    floor = int(rng.uniform(250, 360))
    cv2.rectangle(image, (0, floor), (600, 400), shade(colours[1], 0.6), -1)
    cv2.rectangle(image, (0, floor - 8), (600, floor), shade(colours[0], 1.2), -1)
    for _ in range(rng.integers(2, 5)):  # windows
        x, y, w, h = (int(v) for v in rng.uniform((-30, 10, 50, 50), (560, 180, 150, 140)))
        frame, glass = shade(colours[2], 0.5), mix(colours[3], (235, 240, 245), rng.uniform(0, 0.8))
        cv2.rectangle(image, (x, y), (x + w, y + h), frame, -1)
        cv2.rectangle(image, (x + 6, y + 6), (x + w - 6, y + h - 6), glass, -1)
        if rng.random() < 0.5:
            cv2.line(image, (x + w // 2, y), (x + w // 2, y + h), frame, 5)
            cv2.line(image, (x, y + h // 2), (x + w, y + h // 2), frame, 5)
    for _ in range(rng.integers(1, 4)):  # furniture
        x, y, width = (int(v) for v in rng.uniform((-40, floor - 90, 60), (560, floor + 40, 190)))
        colour = colours[rng.integers(5)]
        cv2.rectangle(image, (x, y), (x + width, 400), colour, -1)
        cv2.rectangle(image, (x - 5, y), (x + width + 5, y + 12), shade(colour, 0.7), -1)
        for shelf in range(y + 40, 400, 34):
            cv2.line(image, (x, shelf), (x + width, shelf), shade(colour, 0.8), 3)
    return cv2.GaussianBlur(image, (0, 0), rng.uniform(0.6, 2.5))


def street(rng: np.random.Generator, colours: Palette) -> np.ndarray:
    """Sky, houses with windows, and a road."""
    image = _gradient(rng, (190, 214, 240), colours[0])
    x = -20
    while x < 600:
        width, top, step = (int(v) for v in rng.uniform((60, 20, 22), (150, 200, 40)))
        wall = mix(colours[rng.integers(5)], (128, 124, 120), 0.4)
        glass = mix(wall, (250, 236, 180) if rng.random() < 0.4 else (40, 50, 64), 0.6)
        cv2.rectangle(image, (x, top), (x + width, 400), wall, -1)
        for v in range(top + 14, 330, step):
            for u in range(x + 10, x + width - 14, step):
                cv2.rectangle(image, (u, v), (u + step // 2, v + step // 2 + 4), glass, -1)
        x += width + int(rng.uniform(0, 14))
    cv2.rectangle(image, (0, 345), (600, 400), shade(colours[1], 0.5), -1)
    return cv2.GaussianBlur(image, (0, 0), rng.uniform(1.0, 3.0))


def lights(rng: np.random.Generator, colours: Palette) -> np.ndarray:
    """Discs of light out of focus in the dark."""
    image = _gradient(rng, shade(colours[0], 0.35), shade(colours[1], 0.55), 2)
    edge = 24  # room for the discs that the border cuts
    image = cv2.copyMakeBorder(image, edge, edge, edge, edge, cv2.BORDER_REPLICATE)
    for _ in range(rng.integers(14, 40)):
        x, y, radius = (int(v) for v in rng.uniform((edge, edge, 3), (edge + 300, edge + 200, edge - 2)))
        part = image[y - radius - 1 : y + radius + 2, x - radius - 1 : x + radius + 2]
        colour = shade(colours[rng.integers(5)], rng.uniform(0.2, 0.7))
        spot = cv2.circle(np.zeros_like(part), (radius + 1, radius + 1), radius, colour, -1, cv2.LINE_AA)
        part[:] = cv2.add(part, spot)
    return image[edge:-edge, edge:-edge]


def garden(rng: np.random.Generator, colours: Palette) -> np.ndarray:
    """Hills and bushes under a sky."""
    image = _gradient(rng, (205, 225, 245), (150, 190, 230))
    x = np.arange(0, 601, 20)
    for layer in range(3):
        wave = 30 * np.sin(x / rng.uniform(50, 150) + rng.uniform(0, 6)) + rng.normal(0, 4, len(x))
        hill = np.concatenate([np.stack([x, 150 + 60 * layer + wave], axis=1), [[600, 400], [0, 400]]])
        green = mix(mix(colours[layer], (70, 120, 50), 0.6), (200, 215, 230), 0.35 - 0.15 * layer)
        cv2.fillPoly(image, [hill.astype(np.int32)], green)
    for _ in range(rng.integers(10, 40)):
        u, v, radius = (int(v) for v in rng.uniform((0, 170, 5), (600, 400, 36)))
        leaf = mix(colours[rng.integers(5)], (60, 110, 44), rng.uniform(0.2, 1))
        cv2.circle(image, (u, v), radius, shade(leaf, rng.uniform(0.6, 1.1)), -1)
    return cv2.GaussianBlur(image, (0, 0), rng.uniform(1.0, 3.0))


def wallpaper(rng: np.random.Generator, colours: Palette) -> np.ndarray:
    """Stripes, tiles or dots."""
    x, y = np.arange(300, dtype=np.float32), np.arange(200, dtype=np.float32)[:, None]
    angle, period = rng.uniform(0, np.pi), rng.uniform(12, 60)
    turn, scale = np.array([np.cos(angle), np.sin(angle)], np.float32), np.float32(2 * np.pi / period)
    along = np.sin((x * turn[0] + y * turn[1]) * scale)
    across = np.sin((y * turn[0] - x * turn[1]) * scale)
    wave = (along, along * across, np.maximum(along, across))[rng.integers(3)]
    levels = (127.5 + 127.5 * np.tanh(4 * wave)).astype(np.uint8)
    ends = np.array([colours[0], mix(colours[0], colours[1], rng.uniform(0.2, 0.8))])
    share = np.linspace(0, 1, 256)[:, None]
    return ((1 - share) * ends[0] + share * ends[1]).astype(np.uint8)[levels]


PLACES: dict[str, Callable[[np.random.Generator, Palette], np.ndarray]] = {
    place.__name__: place for place in (studio, room, street, lights, garden, wallpaper)
}
