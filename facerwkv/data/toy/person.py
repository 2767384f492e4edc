"""What a person looks like, and what of a person shows no expression: hair and clothes."""

from collections import namedtuple
from dataclasses import replace

import numpy as np

from facerwkv.data.toy.face import Brush, curve, mix

COLOURS = (  # of skin, hair, iris, clothes and trim: the choices, and the spreads of their brightness and hue
    (((246, 214, 190), (226, 180, 144), (208, 156, 118), (180, 126, 90), (146, 98, 68), (116, 76, 54)), 0.06, 3),
    (((40, 30, 26), (62, 42, 30), (98, 66, 42), (142, 98, 58), (206, 168, 106), (156, 74, 38), (152,) * 3), 0.12, 3),
    (((84, 54, 34), (110, 76, 42), (92, 112, 66), (88, 120, 152), (104, 112, 118)), 0.1, 5),
    (((128,) * 3,), 0.3, 52), (((150,) * 3,), 0.25, 52),
)  # fmt: skip
COLLARS = {"round": 1.55, "vee": 2.3, "stripes": 1.6}  # and how low they reach
_FALL = (0.0, -1.4), (1.1, -1.4), (0.95, 0.0)
HAIR = {  # Bezier's points: left half of the hairline, none without hair; right half of what hangs behind the head
    "crop": (((-0.8, -0.2), (-0.75, -0.75), (-0.5, -0.95), (0.0, -0.93)), ()),
    "parted": (((-0.8, -0.1), (-0.78, -0.6), (-0.4, -1.05), (0.0, -0.84)), ()),
    "fringe": (((-0.8, -0.05), (-0.76, -0.7), (-0.45, -0.69), (0.0, -0.69)), ()),
    "long": (((-0.84, 0.5), (-0.66, -0.7), (-0.44, -1.0), (0.0, -0.96)), (*_FALL, (1.2, 2.0), (0.8, 1.9), (0.4, 0.6))),
    "bob": (((-0.84, 0.4), (-0.66, -0.7), (-0.5, -0.72), (0.0, -0.72)), (*_FALL, (1.2, 1.3), (0.8, 1.1), (0.4, 0.6))),
    "bun": (((-0.8, -0.2), (-0.72, -0.75), (-0.42, -1.0), (0.0, -0.98)), ((0, -1.7), (0.6, -1.7), (0.5, -1), (0, -1))),
    "curls": (((-0.82, -0.2), (-0.7, -0.75), (-0.42, -0.9), (0.0, -0.86)), ()),
    "receding": (((-0.8, -0.05), (-0.76, -0.6), (-0.58, -1.1), (0.0, -1.0)), ()),
    "bald": ((), ()),
    "cap": (((-0.84, -0.46), (-0.7, -0.68), (-0.4, -0.72), (0.0, -0.72)), ()),
    "scarf": (((-0.8, 0.3), (-0.76, -0.8), (-0.4, -0.84), (0, -0.82)), (*_FALL, (0.7, 0.9), (1.8, 1.9), (0, 2.0))),
}
# Colours are RGB arrays, 0..255, sizes are factors around 1; the cover is hair or, of a cap or a scarf, cloth.
Look = namedtuple("Look", "skin hair iris clothes trim lips cover style collar beard glasses seed eyes brows nose gaze")


def draw_look(rng: np.random.Generator) -> Look:
    """A person at random."""
    colours = []
    for choices, brightness, hue in COLOURS:
        colour = np.array(choices[rng.integers(len(choices))]) * rng.normal(1, brightness) + rng.normal(0, hue, 3)
        colours.append(np.clip(colour, 10, 250))
    lips = mix(colours[0], (172, 58, 62), rng.uniform(0.35, 0.75))
    style, collar = (tuple(table)[rng.integers(len(table))] for table in (HAIR, COLLARS))
    cover = colours[4 if style in ("cap", "scarf") else 1]
    beard = rng.choice((0.0, 0.4, 1.3), 2, p=(1, 0, 0) if HAIR[style][1] else (0.7, 0.15, 0.15))  # on lip and jaw
    glasses, seed, gaze = rng.random() < 0.18, rng.integers(1 << 31), rng.uniform(-1, 1, 2) * [0.05, 0.015]
    sizes = rng.uniform((0.92, 0.8, 0.85), (1.12, 1.3, 1.2))
    return Look._make([*colours, lips, cover, style, collar, beard, glasses, seed, *sizes, gaze])


def mirrored(half: np.ndarray) -> np.ndarray:
    """A symmetric line or outline, given one half up to the middle."""
    return np.concatenate([half, half[::-1] * [-1, 1]])


def draw_body(head: Brush, look: Look) -> None:
    """Neck, shoulders and clothes; they keep a third of the head's roll."""
    upright = replace(head.face, roll=head.face.roll * 0.3)
    brush = replace(head, affine=upright.matrix(np.hypot(*head.affine[0, :2]) / head.face.unit))
    skin, dark = look.skin * (0.55 + 0.35 * brush.ambient), look.clothes * 0.72
    brush.paint(mirrored(np.array([[0.43, 0.4], [0.45, 1.15], [0.7, 1.35], [0.3, 1.9]])), skin)
    brush.paint(mirrored(curve((0.43, 0.5), (0.44, 1.02), (0, 1.2))), skin * 0.78)  # the shadow of the chin
    side = np.concatenate([curve((0.48, 1.2), (1.75, 1.36), (1.9, 2.3)), [[2.3, 5.0], [2.2, 14.0]]])
    collar = curve((-0.48, 1.2), (0, COLLARS[look.collar]), (0.48, 1.2))
    brush.paint(np.concatenate([mirrored(side), collar]), look.clothes)
    for y in np.arange(2.5, 8, 0.42) if look.collar == "stripes" else ():
        brush.paint(curve((-1.9, y), (0, y + 0.18), (1.9, y)), look.trim, 0.12)
    brush.paint(np.concatenate([side[1:], side[:0:-1] * [0.87, 1] + [0, 0.03]]) * [-np.sign(brush.light[0]), 1], dark)
    brush.paint(collar, dark if look.collar == "vee" else look.trim, 0.07)


def draw_hair(brush: Brush, look: Look) -> None:
    """The hair, cap or headscarf on the head: between the hairline and the crown."""
    if not HAIR[look.style][0]:
        return
    line, rng, wide = mirrored(curve(*HAIR[look.style][0])), np.random.default_rng(look.seed), [brush.face.width, 1.0]
    colour = look.cover * min(brush.ambient + 0.45, 1.0)
    line[:, 0] += 0.1 * np.sin(brush.face.yaw) * (1 - np.abs(line[:, 0]))
    line[:, 1] += line[:, 0] * (0.16 * (-1) ** look.seed if look.style == "parted" else 0)
    start = np.arcsin((min(line[0, 1], -0.1) + 0.2) / -1.07)
    angles = np.linspace(np.pi + start, 2 * np.pi - start, len(line))
    height = 1 + (0.1 + 0.06 * np.sin(angles * 14 + look.seed) if look.style == "curls" else 0)
    crown = np.stack([0.9 * height * np.cos(angles), 1.07 * height * np.sin(angles) - 0.2], axis=1)
    brush.paint(np.concatenate([line, crown[::-1]]) * wide, colour)
    root = rng.integers(8, len(line) - 8)  # the parting, from which strands are combed to the hairline
    for end in rng.integers(2, len(line) - 2, 12):
        middle, tip = (end + root) // 2, mix(line[end], crown[end], rng.uniform(0.05, 0.4))
        strand = curve(0.97 * crown[root], mix(line[middle], crown[middle], 0.7), tip)
        brush.paint(strand * wide, colour * rng.choice((0.8, 0.88, 1.1, 1.18)), 0.018)
