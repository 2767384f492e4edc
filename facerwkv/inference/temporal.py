"""One recurrent state per face, carried from frame to frame: earlier frames count, at the same cost per frame."""

from typing import Any

import numpy as np

from facerwkv.core.errors import InputError
from facerwkv.core.packages import pytorch
from facerwkv.inference.predictor import Predictor
from facerwkv.inference.results import Opened, Result
from facerwkv.media.tracks import Tracker
from facerwkv.mixers import MIXERS


class Temporal:
    """Classifies what `Predictor.open_frames` gives, frame by frame, with a state for each track of `tracker`.

    A face's first frame is answered as an image would be. A later one's tokens follow those of the frames before it:
    each block continues from its state, while the pool reads this frame's tokens alone. A state has the same size after
    any number of frames, and goes when its track is forgotten. InputError for a model without a recurrent form.
    """

    def __init__(self, predictor: Predictor, tracker: Tracker):
        pytorch("temporal")
        from facerwkv.models.facerwkv import FaceRWKV

        model = predictor.unfolded()
        if not (isinstance(model, FaceRWKV) and model.recurrent and MIXERS[model.config.mixer].endless):
            mixers = ", ".join(name for name, mixer in MIXERS.items() if mixer.endless)
            raise InputError(
                f"{predictor.name} carries no state from frame to frame. Leave temporal out, or train a model that "
                f"does: mixer {mixers}, scan forward, shift token, and pool last or mean, such as facerwkv4_small."
            )
        self.predictor, self.tracker, self.model = predictor, tracker, model
        self.states: dict[int | None, dict[str, Any]] = {}

    def __call__(self, opened: Opened) -> Result:
        crops, logits = opened.crops, []
        time, rgb = opened.fields.get("time") or 0.0, opened.fields.get("image")
        numbers = iter(self.tracker(time, [crop.box for crop in crops if crop.box], rgb))
        if self.tracker.cut:
            self.states.clear()
        for crop in crops:
            track = next(numbers) if crop.box else None
            row, self.states[track] = self._step(crop.image, self.states.get(track))
            logits.append(row)
        alive = {None, *self.tracker.alive}  # None: the whole image
        self.states = {track: state for track, state in self.states.items() if track in alive}
        options = [opened.options] * len(crops)
        return opened.result(self.predictor.faces(crops, np.stack(logits), options) if logits else ())

    def _step(self, image: np.ndarray, state: dict[str, Any] | None) -> tuple[np.ndarray, dict[str, Any]]:
        """Image uint8 (h, w, c) and the state before it → logits (C,) and the state after it."""
        import torch

        from facerwkv.data.normalise import normalise

        with torch.inference_mode():
            pixels = torch.from_numpy(image)[None].to(next(self.model.parameters()).device)
            tokens, _ = self.model.embed(normalise(pixels, self.predictor.checkpoint.transform))
            row, state = self.model.stream(tokens, state)
            return row[0].float().cpu().numpy(), state | {"sum": torch.zeros_like(state["sum"]), "tokens": 0}
