"""Which patches decided: how much each patch of a face speaks for a label, in units of the label's logit.

"gradient" is the gradient times the input, summed over a patch. "occlusion" is what the logit loses when a patch shows
nothing but the mean colour of the transform, in whole numbers; it alone needs no PyTorch. "tokens" is what each token
hands on through the last time mix, whose output is linear in the tokens' values: the value times its gradient, exact
and not an approximation there. None of them says what a person feels, or why.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from facerwkv.core.errors import InputError
from facerwkv.core.files import atomic
from facerwkv.core.packages import has_pytorch, pytorch
from facerwkv.inference.options import Options
from facerwkv.inference.predictor import Predictor, Source
from facerwkv.media.container import Watch
from facerwkv.media.draw import draw_patches
from facerwkv.media.geometry import Box, cells
from facerwkv.models.onnx import OnnxModel

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

    method: a name in METHODS; None for gradient, and for occlusion where there is no PyTorch to take one. label:
    whose logit is explained; None for each face's likeliest. `options`, or single ones as keywords, are those of
    `predict`; `max_pixels` goes before theirs. `watch` is called before each part of the work; what it raises ends it.
    InputError for names that are not known, an image that cannot be read or has more than `max_faces`, and a model that
    the method does not fit.
    """
    checkpoint, options = predictor.checkpoint, Options.of(options, changes, "image")
    exported = isinstance(predictor.model, OnnxModel) and not (predictor.model.folder and has_pytorch())
    method = method or ("occlusion" if exported else "gradient")
    if method not in METHODS:
        raise InputError(f"There is no method {method!r}; choose one of {', '.join(METHODS)}.")
    if label is not None and label not in checkpoint.labels:
        raise InputError(f"{checkpoint.title} knows no label {label!r}; it has {', '.join(checkpoint.labels)}.")
    if exported and method != "occlusion" and predictor.model.folder is None:
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
    explanations = []
    for crop in opened.crops:
        watch()
        probs = predictor.probabilities(predictor.model(crop.image[None]))[0]
        number = int(probs.argmax()) if label is None else checkpoint.labels.index(label)
        scores = METHODS[method](predictor, crop.image, number, watch)
        name = checkpoint.labels[number]
        explanations.append(Explanation(name, float(probs[number]), method, scores, crop.image, crop.box))
    return explanations


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


def occlusion(predictor: Predictor, image: np.ndarray, number: int, watch: Watch = _unwatched) -> np.ndarray:
    """uint8 (h, w, c) → what logit `number` loses when a patch shows the mean colour, for all patches (Hp, Wp)."""
    model, (mean, _) = predictor.model, predictor.checkpoint.transform.normalisation
    colour, places = np.rint(np.array(mean) * 255).clip(0, 255), cells(model.patches, image.shape[:2])
    hidden = np.repeat(image[None], len(places), 0)
    for one, place in zip(hidden, places, strict=True):
        one[place] = colour
    logits = []
    for start in range(0, len(hidden), BATCH):
        watch()
        logits.append(model(hidden[start : start + BATCH])[:, number])
    return (model(image[None])[0, number] - np.concatenate(logits)).reshape(model.patches)


def _by_gradients(method: str, predictor: Predictor, image: np.ndarray, number: int, watch: Watch) -> np.ndarray:
    pytorch(f"The method {method}, unlike occlusion,")
    import torch

    from facerwkv.data.normalise import normalise
    from facerwkv.models import evidence

    network = predictor.unfolded()
    x = normalise(torch.from_numpy(image)[None].to(next(network.parameters()).device), predictor.checkpoint.transform)
    return getattr(evidence, method)(network, x, number).detach().float().cpu().numpy()


def methods_for(predictor: Predictor) -> list[str]:
    """Those of METHODS that fit a model; for one in onnxruntime as far as that is known without loading PyTorch."""
    in_pytorch = not isinstance(predictor.model, OnnxModel)
    tried, fitting = METHODS if in_pytorch else ["occlusion"], []
    for method in tried:
        with suppress(InputError):
            if explain(predictor, np.zeros((64, 64, 3), np.uint8), method, mode="scene"):
                fitting.append(method)
    reachable = not in_pytorch and has_pytorch() and predictor.model.folder
    return list(METHODS) if fitting and reachable else fitting


METHODS: dict[str, Callable[[Predictor, np.ndarray, int, Watch], np.ndarray]] = {
    "gradient": partial(_by_gradients, "gradient"),
    "occlusion": occlusion,
    "tokens": partial(_by_gradients, "tokens"),
}
