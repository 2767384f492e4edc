"""What a person looks like, and what of a person shows no expression: hair, clothes, glasses."""

from dataclasses import dataclass, replace

import numpy as np

from facerwkv.data.toy.brush import Brush, Colour, bezier, ellipse, mix, shade, vary

# fmt: off
SKINS = ((246, 214, 190), (238, 198, 168), (226, 180, 144), (208, 156, 118), (180, 126, 90), (146, 98, 68),
         (116, 76, 54))
HAIRS = ((40, 30, 26), (62, 42, 30), (98, 66, 42), (142, 98, 58), (206, 168, 106), (156, 74, 38), (152, 150, 148))
# fmt: on
IRISES = ((84, 54, 34), (110, 76, 42), (92, 112, 66), (88, 120, 152), (104, 112, 118))
BEARDS = ("none", "stubble", "moustache", "full")
COLLARS = {"round": 1.55, "vee": 2.3, "shirt": 2.0, "stripes": 1.6}  # and how low they reach
HAIRLINES = {  # from the left temple over the forehead to the right one
    "crop": ((-0.8, -0.2), (-0.7, -0.6), (-0.5, -0.84), (0.0, -0.93), (0.5, -0.84), (0.7, -0.6), (0.8, -0.2)),
    "parted": ((-0.8, -0.1), (-0.73, -0.52), (-0.4, -0.97), (0.1, -0.84), (0.5, -0.68), (0.72, -0.45), (0.8, -0.1)),
    "fringe": ((-0.8, -0.05), (-0.72, -0.5), (-0.45, -0.65), (0.0, -0.69), (0.45, -0.65), (0.72, -0.5), (0.8, -0.05)),
    "long": ((-0.84, 0.5), (-0.7, -0.4), (-0.42, -0.82), (0.0, -0.96), (0.42, -0.82), (0.7, -0.4), (0.84, 0.5)),
    "bob": ((-0.84, 0.4), (-0.68, -0.3), (-0.5, -0.66), (0.0, -0.72), (0.5, -0.66), (0.68, -0.3), (0.84, 0.4)),
    "bun": ((-0.8, -0.2), (-0.7, -0.56), (-0.42, -0.9), (0.0, -0.98), (0.42, -0.9), (0.7, -0.56), (0.8, -0.2)),
    "curls": ((-0.82, -0.2), (-0.68, -0.6), (-0.42, -0.82), (0.0, -0.86), (0.42, -0.82), (0.68, -0.6), (0.82, -0.2)),
    "receding": ((-0.8, -0.05), (-0.73, -0.5), (-0.56, -0.95), (0.0, -1.0), (0.56, -0.95), (0.73, -0.5), (0.8, -0.05)),
    "cap": ((-0.84, -0.46), (-0.7, -0.62), (-0.4, -0.7), (0.0, -0.72), (0.4, -0.7), (0.7, -0.62), (0.84, -0.46)),
    "bald": (),
    "scarf": (),
}


@dataclass(frozen=True)
class Look:
    """A person: colours are RGB 0..255, sizes are factors around 1."""

    skin: Colour
    hair: Colour
    iris: Colour
    lips: Colour
    clothes: Colour
    trim: Colour  # of the collar, the cap, the headscarf
    style: str
    collar: str
    beard: str
    glasses: bool
    eyes: float
    brows: float
    nose: float
    mouth: float  # lowered by, in face coordinates
    gaze: tuple[float, float]
    parting: float  # from the left, -1, to the right, 1
    seed: int  # of curls, strands and stubble


def draw_look(rng: np.random.Generator) -> Look:
    """A person at random."""
    skin = vary(rng, SKINS[rng.integers(len(SKINS))], 0.06, 3)
    style = tuple(HAIRLINES)[rng.integers(len(HAIRLINES))]
    hair = vary(rng, HAIRS[rng.integers(len(HAIRS))], 0.12, 3)
    iris = vary(rng, IRISES[rng.integers(len(IRISES))], 0.1, 5)
    lips = mix(skin, (172, 58, 62), rng.uniform(0.35, 0.75))
    clothes, trim = vary(rng, (128, 128, 128), 0.3, 52), vary(rng, (150, 150, 150), 0.25, 52)
    collar = tuple(COLLARS)[rng.integers(len(COLLARS))]
    beards = (0.96, 0.04, 0, 0) if style in ("long", "bob", "bun", "scarf") else (0.58, 0.16, 0.12, 0.14)
    beard, glasses = str(rng.choice(BEARDS, p=beards)), bool(rng.random() < 0.18)
    lowest, highest = (0.92, 0.8, 0.85, -0.03, -0.05, -0.015, -1), (1.12, 1.3, 1.2, 0.03, 0.05, 0.015, 1)
    eyes, brows, nose, mouth, *gaze, parting = rng.uniform(lowest, highest).tolist()
    colours, seed = (skin, hair, iris, lips, clothes, trim), int(rng.integers(1 << 31))
    return Look(*colours, style, collar, beard, glasses, eyes, brows, nose, mouth, tuple(gaze), parting, seed)


def draw_body(head: Brush, look: Look) -> None:
    """Neck, shoulders and clothes; they keep a third of the head's roll, turned about the neck."""
    neck = np.array([0.0, 0.75])
    turned = replace(head.face, roll=head.face.roll * 0.3).matrix()[:, :2] / head.face.unit
    linear = turned * np.hypot(head.affine[0, 0], head.affine[1, 0])
    shift = head.affine[:, :2] @ neck + head.affine[:, 2] - linear @ neck
    brush = replace(head, affine=np.column_stack([linear, shift]))
    dim, dark = 0.55 + 0.35 * brush.light.ambient, shade(look.clothes, 0.72)
    half = np.array([[0.43, 0.4], [0.45, 1.15], [0.7, 1.35], [0.3, 1.9]])
    brush.fill(np.concatenate([half, half[::-1] * [-1, 1]]), shade(look.skin, dim))
    under_chin = np.concatenate([[[-0.43, 0.5], [0.43, 0.5]], bezier((0.44, 1.02), (0, 1.32), (-0.44, 1.02))])
    brush.fill(under_chin, shade(look.skin, 0.78 * dim))
    collar = bezier((-0.48, 1.2), (0, COLLARS[look.collar]), (0.48, 1.2))
    left, right = bezier((-0.48, 1.2), (-1.75, 1.36), (-1.9, 2.3)), bezier((1.9, 2.3), (1.75, 1.36), (0.48, 1.2))
    arms = np.array([[-2.3, 5.0], [-2.2, 14.0], [2.2, 14.0], [2.3, 5.0]])
    brush.fill(np.concatenate([left, arms, right, collar[::-1]]), look.clothes)
    for y in np.arange(1.95, 8, 0.42) if look.collar == "stripes" else ():
        wide = 1.72 + 0.2 * min(max(y - 2.0, 0.0), 2.4)
        brush.stroke(bezier((-wide, y), (0, y + 0.18), (wide, y)), look.trim, 0.12)
    side = 1.0 if brush.light.direction[0] < 0 else -1.0
    rim = bezier((0.62 * side, 1.215), (1.72 * side, 1.42), (1.9 * side, 2.3))
    inner = np.array([[2.3, 5.0], [2.2, 14.0], [1.95, 14.0], [2.0, 5.0], [1.66, 2.4]]) * [side, 1]
    brush.fill(np.concatenate([rim, inner]), dark)
    for x in (-1.2, 1.2):
        brush.stroke(bezier((1.06 * x, 2.15), (1.0 * x, 2.8), (1.2 * x, 14)), dark, 0.03)
    if look.collar == "shirt":
        brush.stroke(np.array([[0, 1.6], [0, 14]]), dark, 0.03)
        for x in (-1, 1):
            brush.fill(np.array([[0.4 * x, 1.06], [0.62 * x, 1.26], [0.34 * x, 1.78], [0.0, 1.56]]), look.trim)
    else:
        brush.stroke(collar, look.trim if look.collar != "vee" else dark, 0.07)


def draw_hair_behind(brush: Brush, look: Look) -> None:
    """The hair, or the headscarf, that the head and the shoulders cover."""
    wide = np.array([brush.face.width, 1.0])
    dark = shade(look.hair, 0.62)
    if look.style in ("long", "bob"):
        end = 1.65 if look.style == "long" else 0.95
        crown = ellipse(0, -0.3, 1.0, 1.02)[16:]
        fall = np.array([[1.02, 0.0], [1.08, end], [0.9, end + 0.1], [-0.9, end + 0.1], [-1.08, end], [-1.02, 0.0]])
        brush.fill(np.concatenate([crown, fall]) * wide, dark)
    elif look.style == "bun":
        brush.fill(ellipse(0.15 * look.parting, -1.36, 0.36, 0.32), dark)
    elif look.style == "curls":
        for x, y, radius in _curls(look):
            brush.fill(ellipse(x, y, radius, radius, 16) * wide, dark)
    elif look.style == "scarf":
        drape = np.array([[-0.9, 0.2], [0.9, 0.2], [1.05, 1.35], [0.4, 1.75], [-0.4, 1.75], [-1.05, 1.35]])
        brush.fill(drape * wide, shade(look.trim, 0.7))


def draw_hair(brush: Brush, look: Look) -> None:
    """The hair, cap or headscarf on the head."""
    light, wide = min(brush.light.ambient + 0.45, 1.0), np.array([brush.face.width, 1.0])
    if look.style == "scarf":
        inner, outer = brush.face.outline(top=0.86) * [0.92, 1.0], brush.face.outline(top=1.28) * [1.2, 1.07]
        brush.fill(outer, shade(look.trim, light), inner)
        brush.stroke(np.concatenate([inner, inner[:1]]), shade(look.trim, 0.7 * light), 0.03)
    if look.style in ("scarf", "bald"):
        return
    colour, rng = shade(look.trim if look.style == "cap" else look.hair, light), np.random.default_rng(look.seed)
    line, crown = _hairline(brush, look)
    brush.fill(np.concatenate([line, crown[::-1]]), colour)
    if look.style == "cap":
        shift = 0.25 * np.sin(brush.face.yaw)
        upper = bezier((-0.84, -0.52), (shift, -0.92), (0.84, -0.52))
        lower = bezier((0.84, -0.48), (shift, -0.5), (-0.84, -0.48))
        brush.fill(np.concatenate([upper, lower]) * wide, shade(colour, 0.68))
    elif look.style == "curls":
        rng = np.random.default_rng(look.seed + 1)
        for x, y, radius in _curls(look):
            curl = ellipse(0.93 * x, 0.93 * y - 0.1, 0.8 * radius, 0.8 * radius, 14)
            brush.fill(curl * wide, shade(colour, rng.uniform(0.84, 1.1)))
    else:  # strands, combed from the parting to the hairline
        root = 15 + 7 * look.parting
        for spot in rng.uniform(2, 27, 22):
            middle, start, end = round((spot + root) / 2), round(0.1 * spot + 0.9 * root), round(spot)
            over = 0.7 * crown[middle] + 0.3 * line[middle]
            tip = line[end] + (crown[end] - line[end]) * rng.uniform(0.05, 0.4)
            tone = shade(colour, float(rng.choice((0.8, 0.88, 1.1, 1.18))))
            brush.stroke(bezier(0.97 * crown[start], over, tip), tone, 0.018)


def _hairline(brush: Brush, look: Look) -> tuple[np.ndarray, np.ndarray]:
    """The lower and the upper edge of the hair from left to right, (30, 2) each, turned face coordinates."""
    line = np.array(HAIRLINES[look.style])
    if look.parting < 0:
        line = line[::-1] * [-1, 1]
    steps = np.linspace(0, len(line) - 1, 30)
    dense = np.stack([np.interp(steps, np.arange(len(line)), axis) for axis in line.T], axis=1)
    padded = np.pad(dense, ((2, 2), (0, 0)), mode="edge")
    soft = np.sum([padded[i : i + 30] for i in range(5)], axis=0) / 5
    soft[:, 0] += 0.1 * np.sin(brush.face.yaw) * (1 - np.abs(soft[:, 0]))
    volume = 0.85 if look.style in ("crop", "receding", "cap", "bun") else 0.93
    end = 0.1 if look.style == "cap" else -0.04
    angle = np.linspace((1 + end) * np.pi, (2 - end) * np.pi, 30)
    crown = np.stack([volume * np.cos(angle), -0.2 + (volume + 0.16) * np.sin(angle)], axis=1)
    return soft * [brush.face.width, 1.0], crown * [brush.face.width, 1.0]


def _curls(look: Look) -> list[tuple[float, float, float]]:
    """Centre and radius of every curl."""
    rng = np.random.default_rng(look.seed)
    angles = np.linspace(0.97 * np.pi, 2.03 * np.pi, 15) + rng.normal(0, 0.05, 15)
    return [(0.82 * np.cos(a), -0.3 + 0.95 * np.sin(a), rng.uniform(0.2, 0.32)) for a in angles]


def draw_glasses(brush: Brush, look: Look) -> None:
    """A thin dark frame."""
    frame = mix(look.hair, (34, 34, 38), 0.7)
    t = np.linspace(0, 2 * np.pi, 29)
    rounded = np.stack([np.sign(v) * np.abs(v) ** 0.7 for v in (np.cos(t), np.sin(t))], axis=1)
    for side in (-1, 1):
        lens = rounded * [0.24, 0.19] + [0.345 * side, -0.18]
        brush.stroke(brush.face.turn(lens, 0.06), frame, 0.024)
        brush.stroke(brush.face.turn(np.array([[0.58 * side, -0.22], [0.8 * side, -0.18]])), frame, 0.024)
    brush.stroke(brush.face.turn(bezier((-0.11, -0.2), (0, -0.25), (0.11, -0.2)), 0.1), frame, 0.026)
