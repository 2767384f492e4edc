"""Which patches decided: how much each patch of a face speaks for a label, in units of the label's logit.

"gradient" is the gradient times the input, summed over a patch. "occlusion" is what the logit loses when a patch shows
nothing but the mean colour of the transform. "tokens" is what each token hands on through the last time mix, whose
output is linear in the tokens' values: the value times its gradient, exact and not an approximation there. None of them
says what a person feels, or why.
"""

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from facerwkv.core.errors import InputError
from facerwkv.core.files import atomic
from facerwkv.data.normalise import normalise
from facerwkv.data.transforms import TransformConfig
from facerwkv.inference.options import Options
from facerwkv.inference.predictor import Predictor, Source
from facerwkv.media.container import Watch
from facerwkv.media.draw import draw_patches
from facerwkv.media.geometry import Box
from facerwkv.models.onnx import OnnxModel

OTHERS = (8, 8)  # the grid for models that have no patches
BATCH = 32
COLUMNS, MOST_TILES = 6, 36


@dataclass(frozen=True, eq=False)
class Explanation:
    """How much each patch of a face is evidence for `label` (above 0) or against it (below 0).

    scores: float32 (Hp, Wp), in units of the logit. image: uint8 (h, w, c), RGB or grey, what the model was shown.
    prob: the label's probability, 0..1. box: x1, y1, x2, y2 in pixels, None for a whole image.
    """

    label: str
    prob: float
    method: str
    scores: np.ndarray
    image: np.ndarray
    box: Box | None

    def draw(self) -> Image.Image:
        """What the model was shown, the patches for the label in red, those against it in blue."""
        return draw_patches(self.image, self.scores, f"{self.label} {self.prob:.0%}")

    def to_dict(self) -> dict[str, Any]:
        """Native numbers, as `explain --json` prints them; scores are rows of patches from the top."""
        return {
            "label": self.label,
            "prob": self.prob,
            "method": self.method,
            "box": self.box,
            "scores": self.scores.tolist(),
        }


def _unwatched() -> None:
    pass


def explain(
    predictor: Predictor,
    source: Source,
    method: str | None = None,
    label: str | None = None,
    options: Options | None = None,
    *,
    max_pixels: int | None = None,
    max_faces: int | None = None,
    watch: Watch = _unwatched,
    **changes: Any,
) -> list[Explanation]:
    """An explanation for each face of an image, as `predict` finds them; [] where there is none.

    method: a name in METHODS; None for gradient, and for occlusion of an exported model, which has no gradients. label:
    whose logit is explained; None for each face's likeliest. `options`, or single ones as keywords, are those of
    `predict`; `max_pixels` goes before theirs. `watch` is called before each part of the work; what it raises ends it.
    InputError for names that are not known, an image that cannot be read or has more than `max_faces`, and a model that
    the method does not fit.
    """
    checkpoint, options = predictor.checkpoint, Options.of(options, changes, "image")
    exported = isinstance(checkpoint.model, OnnxModel)
    method = method or ("occlusion" if exported else "gradient")
    if method not in METHODS:
        raise InputError(f"There is no method {method!r}; choose one of {', '.join(METHODS)}.")
    if label is not None and label not in checkpoint.labels:
        raise InputError(f"{checkpoint.title} knows no label {label!r}; it has {', '.join(checkpoint.labels)}.")
    if exported and method != "occlusion":
        raise InputError(
            f"An exported {checkpoint.title} has no gradients and no tokens: choose occlusion, or its checkpoint."
        )
    if checkpoint.transform.crop == "both":
        raise InputError(f"{checkpoint.title} looks at two images at once; explain a model that looks at one.")
    opened = predictor.open(source, options, max_pixels=max_pixels)
    if message := opened.fields.get("message"):
        raise InputError(message)
    if max_faces is not None and len(opened.crops) > max_faces:
        name = opened.fields["source"]
        raise InputError(f"{name} has {len(opened.crops)} faces; {max_faces} are explained at most. Cut out a part.")
    model: Any = FromPixels(checkpoint.model, checkpoint.transform) if exported else predictor.unfolded()
    explanations = []
    for crop in opened.crops:
        watch()
        x = normalise(torch.from_numpy(crop.image)[None].to(predictor.device), checkpoint.transform)
        with torch.no_grad():
            probs = (model(x)[0].float() / checkpoint.temperature).softmax(-1)
        number = int(probs.argmax()) if label is None else checkpoint.labels.index(label)
        scores = METHODS[method](model, x, number, watch).detach().float().cpu().numpy()
        name = checkpoint.labels[number]
        explanations.append(Explanation(name, float(probs[number]), method, scores, crop.image, crop.box))
    return explanations


class FromPixels(nn.Module):
    """Normalised images (B, c, h, w) → logits of a model that takes pixels, uint8 (B, h, w, c)."""

    def __init__(self, model: nn.Module, transform: TransformConfig):
        super().__init__()
        self.model = model
        self.mean, self.std = (torch.tensor(values).view(1, -1, 1, 1) for values in transform.normalisation)

    def forward(self, x: Tensor) -> Tensor:
        pixels = ((x.cpu() * self.std + self.mean) * 255).round().clamp(0, 255).to(torch.uint8)
        return self.model(pixels.permute(0, 2, 3, 1).contiguous())


def deliver(found: Mapping[str, Sequence[Explanation]], out: Path, as_json: bool) -> None:
    """Draw the explanations of all sources into the file `out`; print what they are, as JSON or for a person."""
    pairs = [(source, explanation) for source, explanations in found.items() for explanation in explanations]
    kind = Image.registered_extensions().get(out.suffix.lower())
    if kind not in ("PNG", "JPEG", "WEBP"):
        raise InputError(f"Cannot draw into {out}: end its name in .png, .jpg or .webp.")
    if pairs:
        board = sheet([explanation.draw() for _, explanation in pairs[:MOST_TILES]])
        with atomic(out) as partial:
            board.save(partial, kind)
    if as_json:
        print(json.dumps([{"source": source, **explanation.to_dict()} for source, explanation in pairs]))
        return
    for source in (source for source, explanations in found.items() if not explanations):
        print(f"{source}: no face was found. --mode scene explains the whole image.")
    for number, (source, explanation) in enumerate(pairs, 1):
        row, column = np.unravel_index(explanation.scores.argmax(), explanation.scores.shape)
        patch = f"row {row + 1}, column {column + 1} of {len(explanation.scores)} x {explanation.scores.shape[1]}"
        where = f"{source}  " if len(found) > 1 else ""
        print(f"{number}  {where}{explanation.label} {explanation.prob:.0%}: most for it, the patch in {patch}")
    if pairs:
        fit = f"the first {MOST_TILES} of {len(pairs)} faces: " if len(pairs) > MOST_TILES else ""
        print(f"Wrote {out}: {fit}red patches speak for the label, blue ones against it.")


def sheet(images: Sequence[Image.Image]) -> Image.Image:
    """Drawings in rows of at most COLUMNS."""
    width, height = (max(getattr(image, side) for image in images) for side in ("width", "height"))
    columns = min(COLUMNS, len(images))
    board = Image.new("RGB", (columns * width, -(-len(images) // columns) * height))
    for i, image in enumerate(images):
        board.paste(image, (i % columns * width, i // columns * height))
    return board


def patch_grid(model: Any, size: tuple[int, int]) -> tuple[int, int]:
    """The patches (Hp, Wp) that a model cuts images of this height and width into; 8 x 8 where it cuts none."""
    stem: Any = getattr(model, "stem", None)
    return stem.grid(*size) if hasattr(stem, "grid") else OTHERS


def gradient(model: nn.Module, x: Tensor, number: int, watch: Watch = _unwatched) -> Tensor:
    """x (1, c, h, w) → gradient times input of logit `number`, summed over the patches (Hp, Wp)."""
    x = x.detach().requires_grad_()
    (slope,) = torch.autograd.grad(model(x)[0, number], x)
    pixels, (grid, cells) = (x * slope).sum(1)[0], _cells(model, x)
    return torch.stack([pixels[cell].sum() for cell in cells]).unflatten(0, grid)


@torch.no_grad()
def occlusion(model: nn.Module, x: Tensor, number: int, watch: Watch = _unwatched) -> Tensor:
    """x (1, c, h, w) → what logit `number` loses when a patch shows the mean colour, for all patches (Hp, Wp)."""
    grid, cells = _cells(model, x)
    hidden = x.repeat(len(cells), 1, 1, 1)
    for image, (rows, columns) in zip(hidden, cells, strict=True):
        image[:, rows, columns] = 0
    logits = []
    for images in hidden.split(BATCH):
        watch()
        logits.append(model(images)[:, number])
    return (model(x)[0, number] - torch.cat(logits)).unflatten(0, grid)


def tokens(model: Any, x: Tensor, number: int, watch: Watch = _unwatched) -> Tensor:
    """x (1, c, h, w) → each token's value in the last time mix times its gradient of logit `number` (Hp, Wp).

    They add up to the time mix's output, before its gate, times that output's gradient: nothing is left over.
    """
    mix: Any = model.blocks[-1].time_mix if hasattr(model, "blocks") and hasattr(model, "stem") else None
    if not hasattr(mix, "hook_value"):
        raise InputError(
            "Tokens hand on values in RWKV blocks and in attention; this model has none. Choose gradient or occlusion."
        )
    watched = Watched()
    path = ("blocks", str(len(model.blocks) - 1), "time_mix", "hook_value")
    (slope,) = torch.autograd.grad(_with(model, path, watched)(x)[0, number], watched.value)
    return (watched.value * slope).flatten(2).sum(-1)[0].unflatten(0, patch_grid(model, (x.shape[-2], x.shape[-1])))


class Watched(nn.Module):
    """Hands on what it is called with, and keeps it as `value`, where gradients end."""

    value: Tensor

    def forward(self, value: Tensor) -> Tensor:
        self.value = value.detach().requires_grad_()
        return self.value


def _with(module: nn.Module, path: Sequence[str], part: nn.Module) -> nn.Module:
    """A module that shares everything with this one but the part at `path`: a hook would be in other threads' way."""
    twin, (name, *below) = copy.copy(module), path
    own = _with(module.get_submodule(name), below, part) if below else part
    twin.__dict__["_modules"] = module._modules | {name: own}
    return twin


METHODS: dict[str, Callable[[Any, Tensor, int, Watch], Tensor]] = {
    "gradient": gradient,
    "occlusion": occlusion,
    "tokens": tokens,
}


def _cells(model: Any, x: Tensor) -> tuple[tuple[int, int], list[tuple[slice, slice]]]:
    """The grid of patches (Hp, Wp), and rows and columns of the pixels of each, in raster order."""
    grid = patch_grid(model, (x.shape[-2], x.shape[-1]))
    rows, columns = (
        [slice(*pair) for pair in pairwise(np.linspace(0, side, cells + 1).round().astype(int).tolist())]
        for side, cells in zip(x.shape[-2:], grid, strict=True)
    )
    return grid, [(row, column) for row in rows for column in columns]
