"""One recurrent state per face, carried from frame to frame: what was seen before counts, at the same cost a frame."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from facerwkv.core.errors import InputError
from facerwkv.data.transforms import normalise
from facerwkv.inference.predictor import Crop, Predictor
from facerwkv.inference.results import Result
from facerwkv.media.tracks import Tracker
from facerwkv.mixers import MIXERS
from facerwkv.models.facerwkv import FaceRWKV


class Temporal:
    """Classifies what `Predictor.open_frames` gives, frame by frame, with a state for every track of `tracker`.

    A face's first frame is answered as an image would be. A later one's tokens follow those of the frames before it:
    every block goes on from its state, while the pool reads this frame's tokens alone. A state has the same size after
    any number of frames, and goes when its track is forgotten. InputError for a model without a recurrent form.
    """

    def __init__(self, predictor: Predictor, tracker: Tracker):
        self.predictor, self.tracker = predictor, tracker
        self.model = _recurrent(predictor).to(predictor.device).eval()
        self.states: dict[int | None, dict[str, Any]] = {}

    def __call__(self, result: Result, crops: Sequence[Crop]) -> Result:
        numbers = iter(self.tracker(result.time or 0.0, [crop.box for crop in crops if crop.box]))
        logits = [self._next(next(numbers) if crop.box else None, crop) for crop in crops]
        alive = {None, *self.tracker.alive}  # None: the whole image
        self.states = {track: state for track, state in self.states.items() if track in alive}
        if logits:
            result.faces.extend(self.predictor.faces(crops, torch.stack(logits)))
        return result

    @torch.inference_mode()
    def _next(self, track: int | None, crop: Crop) -> Tensor:
        """The logits (C,) of a track's next frame."""
        pixels = torch.from_numpy(crop.image)[None].to(self.predictor.device)
        tokens, _ = self.model.embed(normalise(pixels, self.predictor.checkpoint.transform))
        logits, state = self.model.stream(tokens, self.states.get(track))
        self.states[track] = state | {"sum": 0.0, "tokens": 0}
        return logits[0].float().cpu()


def _recurrent(predictor: Predictor) -> FaceRWKV:
    model = predictor.checkpoint.model
    if isinstance(model, FaceRWKV) and model.recurrent and MIXERS[model.config.mixer].endless:
        return model
    raise InputError(
        f"{predictor.checkpoint.title} carries no state from frame to frame. Leave temporal out, or train a model that "
        f"does: mixer {', '.join(name for name, mixer in MIXERS.items() if mixer.endless)}, scan forward, shift token, "
        "and pool last or mean, such as facerwkv4_small."
    )
