"""Faces → vectors: what a model's classifier reads of them, for search and clustering."""

from typing import Any

import numpy as np

from facerwkv.core.errors import InputError
from facerwkv.core.packages import pytorch
from facerwkv.inference.options import Options
from facerwkv.inference.predictor import Predictor
from facerwkv.inference.results import Opened
from facerwkv.media.sources import each_image, is_group, is_one
from facerwkv.models.onnx import OnnxModel


def embed(
    predictor: Predictor, source: Any, options: Options | None = None, **changes: Any
) -> np.ndarray | list[np.ndarray]:
    """The vectors of an image's faces, float32 (faces, D), in the order of `predict`; of several images a list of them.

    They are not normalised: divide by their lengths for cosines. Sources and options are those of `predict`; an image
    without a face gives (0, D), one that cannot be read InputError. InputError for an exported model.
    """
    options = Options.of(options, changes, "image")
    if isinstance(predictor.model, OnnxModel) and predictor.model.folder is None:
        raise InputError(f"An exported {predictor.name} gives logits only. Give embed the checkpoint it was made from.")
    torch = pytorch("embed")
    from facerwkv.data.normalise import normalise

    model: Any = predictor.unfolded()

    def vectors(opened: Opened) -> np.ndarray:
        if message := opened.fields.get("message"):
            raise InputError(message)
        if not opened.crops:
            return np.zeros((0, model.head_hidden_size), np.float32)
        with torch.inference_mode():
            images = torch.from_numpy(np.stack([crop.image for crop in opened.crops])).to(
                next(model.parameters()).device
            )
            x = normalise(images, predictor.checkpoint.transform)
            return model.forward_head(model.forward_features(x), pre_logits=True).float().cpu().numpy()

    found = [vectors(predictor.open(image, options, i)) for i, image in enumerate(each_image(source))]
    return found[0] if is_one(source) and not is_group(source) else found
