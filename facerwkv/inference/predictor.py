"""Images and frames → results: read, find the faces, classify them in batches."""

import dataclasses
import functools
import glob
import logging
import math
import os
import re
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypedDict, Unpack, get_args, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from facerwkv.core.devices import choose_device
from facerwkv.core.errors import InputError
from facerwkv.data.transforms import EvalTransform
from facerwkv.inference.results import Face, Result, Source
from facerwkv.media.faces import FaceBox, FaceDetector
from facerwkv.media.frames import UnreadableVideo
from facerwkv.media.images import Channels, UnreadableImage, endings, open_image
from facerwkv.models.checkpoint import DEFAULT, EXPORTED, Checkpoint, load_checkpoint
from facerwkv.models.fold import fold
from facerwkv.models.onnx import OnnxModel, Runtime, read_onnx

Mode = Literal["auto", "scene", "face"]
OnNoFace = Literal["empty", "scene", "error"]
Engine = Literal["torch", "onnx", "openvino"]
Detector = Callable[[np.ndarray], Sequence[FaceBox | Sequence[float]]]
CHOICES = {
    "mode": get_args(Mode),
    "on_no_face": get_args(OnNoFace),
    "channels": get_args(Channels),
    "engine": get_args(Engine),
}

Box = tuple[int, int, int, int]

HELD = 256 * 2**20
"""Bytes of frames that wait together for a batch."""

logger = logging.getLogger("facerwkv")


def load(
    name_or_folder: str | Path | None = None,
    device: str = "auto",
    detector_model: str | Path | None = None,
    engine: Engine | None = None,
) -> "Predictor":
    """A trained model, ready to predict: a shipped one by name (None: facerwkv_fer), a folder, or "hf-hub:ORG/NAME".

    A file that `facerwkv export` wrote, FILE.onnx, runs in onnxruntime, or in OpenVINO where that is the `engine`:
    "onnx" and "openvino" take nothing else, "torch" takes all but that, None takes both. `device` is "auto" (cuda, mps
    or cpu, the first that is there) or a device's name, `detector_model` YuNet's ONNX file. When the model may be used
    for research only, logging says so, once per process. InputError if there is no such checkpoint, device or file.
    """
    checkpoint = _read(name_or_folder or DEFAULT, device, engine)
    predictor = Predictor(checkpoint, device, FaceDetector(detector_model) if detector_model else None)
    if text := notice(checkpoint):
        _say_once(text)
    return predictor


def _read(source: str | Path, device: str, engine: Engine | None) -> Checkpoint:
    exported = Path(source).suffix.lower() == EXPORTED
    _check({"engine": engine or "torch"})
    if exported and engine == "torch":
        raise InputError(f"{source} runs in onnxruntime. Leave the engine out, or give the model's checkpoint.")
    if not exported and engine in get_args(Runtime):
        raise InputError(
            f"The engine {engine} runs an exported file, not {source}. Write one: facerwkv export --model {source} "
            "--out FILE.onnx. Then give that: --model FILE.onnx."
        )
    if not exported:
        return load_checkpoint(source)
    return read_onnx(source, device, "openvino" if engine == "openvino" else "onnx")


def notice(checkpoint: Checkpoint) -> str | None:
    """What a user must know of the licence of a model's weights, or None."""
    licence = str(checkpoint.card.get("licence") or "")
    if not re.search("research|non-?commercial", licence, re.IGNORECASE):
        return None
    return f"{checkpoint.title} may be used for research only: its licence is {licence!r}."


@functools.cache
def _say_once(text: str) -> None:
    logger.warning(text)


class Options(TypedDict, total=False):
    """The keywords of `predict`; `predict_iter` says what they mean."""

    mode: Mode
    on_no_face: OnNoFace
    channels: Channels
    batch_size: int


class Crop(NamedTuple):
    """A face, or a whole image, as the model takes it: uint8 (h, w, c)."""

    box: Box | None
    detection: float | None
    image: np.ndarray


class Predictor:
    """A checkpoint that names the expressions in images. `model` is its inference form (`fold`).

    `detector` finds the faces: any callable from an image, uint8 (H, W, 3) RGB, to boxes (x1, y1, x2, y2 in pixels, or
    FaceBox); without one, YuNet. InputError if `device` is not there.
    """

    def __init__(self, checkpoint: Checkpoint, device: str = "auto", detector: Detector | None = None):
        self.checkpoint = checkpoint
        self.device, self.model = torch.device("cpu"), checkpoint.model
        if not isinstance(checkpoint.model, OnnxModel):  # that one's device was chosen when it was read
            self.device = choose_device(device)
            self.model = fold(checkpoint.model, checkpoint.transform).to(self.device)
        self._detector = detector
        both = checkpoint.transform.crop == "both"
        crops = {mode: {"crop": "both", "no_box": "whole"} if both else {"crop": mode} for mode in ("scene", "face")}
        self._transforms = {
            mode: EvalTransform(checkpoint.transform.model_copy(update=crop)) for mode, crop in crops.items()
        }

    @property
    def labels(self) -> tuple[str, ...]:
        return self.checkpoint.labels

    def __repr__(self) -> str:
        if isinstance(self.model, OnnxModel):
            return f"{self.checkpoint.name} ({len(self.labels)} labels) on {self.model.runs_on}"
        millions = sum(weight.numel() for weight in self.checkpoint.model.parameters()) / 1e6
        return f"{self.checkpoint.name} ({len(self.labels)} labels, {millions:.1f} M parameters) on {self.device}"

    @overload
    def predict(self, source: Source, **options: Unpack[Options]) -> Result: ...  # type: ignore[overload-overlap]
    @overload
    def predict(self, source: Iterable[Source], **options: Unpack[Options]) -> list[Result]: ...
    def predict(self, source: Any, **options: Unpack[Options]) -> Result | list[Result]:
        """The result of one image, or a list of the results of several; options as in `predict_iter`.

        InputError if one image has no face and `on_no_face` is "error".
        """
        if not isinstance(source, Source):
            return list(self.predict_iter(source, **options))
        result = next(self.predict_iter([source], **options))
        if result.status == "no_face" and result.failed:
            raise InputError(result.message)
        return result

    def predict_iter(
        self,
        sources: Iterable[Source],
        mode: Mode = "auto",
        on_no_face: OnNoFace = "empty",
        channels: Channels = "rgb",
        batch_size: int = 32,
    ) -> Iterator[Result]:
        """Results in the order of the sources: paths, encoded bytes, PIL images, arrays uint8 (H, W, 3).

        `mode` is "scene" (the whole image), "face" (every face) or "auto" (what the model was trained on). An image
        without a face gives no faces ("empty"), is classified whole ("scene"), or counts as failed ("error").
        `channels` is the colour order of arrays. Faces of several images share a batch; fewer than `batch_size`
        images wait for theirs to fill. An image that cannot be read gives a result that says why.
        """
        _check({"mode": mode, "on_no_face": on_no_face, "channels": channels})
        _check_batch(batch_size)
        detector = self._detector_for(mode)
        opened = (self._open(source, i, detector, on_no_face, channels) for i, source in enumerate(sources))
        return self._in_batches(opened, batch_size)

    def predict_frames(
        self,
        frames: Iterable[tuple[float, np.ndarray] | tuple[float, np.ndarray, int]],
        name: str = "frames",
        mode: Mode = "auto",
        on_no_face: OnNoFace = "empty",
        batch_size: int = 32,
        ahead: int | None = None,
    ) -> Iterator[Result]:
        """Results of a video's frames in their order, with `time` and `frame`; options as in `predict_iter`.

        A frame is its time in seconds, its image, uint8 (H, W, 3) RGB, and maybe its number; otherwise they are
        counted from 0. `name` is the results' source. Fewer than `ahead` frames wait for a batch to fill (None:
        `batch_size`), and fewer where they are large. A video that ends too early gives a last result that says why.
        """
        _check_batch(batch_size)
        return self._in_batches(self.open_frames(frames, name, mode, on_no_face), batch_size, ahead)

    def open_frames(
        self, frames: Iterable[tuple], name: str = "frames", mode: Mode = "auto", on_no_face: OnNoFace = "empty"
    ) -> Iterator[tuple[Result, list[Crop]]]:
        """What the model would be shown of every frame, and the results without faces; as in `predict_frames`."""
        _check({"mode": mode, "on_no_face": on_no_face})
        return self._open_frames(frames, name, self._detector_for(mode), on_no_face)

    def _open_frames(
        self, frames: Iterable[tuple], name: str, detector: Detector | None, on_no_face: OnNoFace
    ) -> Iterator[tuple[Result, list[Crop]]]:
        time, number = 0.0, -1
        try:
            for count, frame in enumerate(frames):
                time, rgb, number = (*frame, count)[:3]
                size = rgb.shape[1::-1]
                result = functools.partial(Result, name, size=size, image=rgb, time=time, frame=number)
                yield self._look(result, rgb, detector, on_no_face)
        except UnreadableVideo as error:
            yield Result(name, "unreadable", message=str(error), time=time, frame=number + 1), []

    def crops(
        self, source: Source, mode: Mode = "auto", on_no_face: OnNoFace = "empty", channels: Channels = "rgb"
    ) -> tuple[Result, list[Crop]]:
        """What the model would be shown of an image, and the result without faces; options as in `predict_iter`."""
        _check({"mode": mode, "on_no_face": on_no_face, "channels": channels})
        return self._open(source, 0, self._detector_for(mode), on_no_face, channels)

    def _detector_for(self, mode: Mode) -> Detector | None:
        if not self._looks_for_faces(mode):
            return None
        self._detector = self._detector or FaceDetector()
        return self._detector

    def _looks_for_faces(self, mode: Mode) -> bool:
        transform = self.checkpoint.transform
        if transform.crop == "both" and mode == "scene":
            raise InputError(
                f"{self.checkpoint.name} looks at a face and at what is around it; it cannot classify a whole image. "
                "Choose mode auto or face."
            )
        return transform.sees_faces if mode == "auto" else mode == "face"

    def _open(
        self, source: Source, index: int, detector: Detector | None, on_no_face: OnNoFace, channels: Channels
    ) -> tuple[Result, list[Crop]]:
        """A result without faces yet, and the crops to classify for it; without a detector, the whole image."""
        name = _name(source, index)
        try:
            rgb = open_image(source, channels, name)
        except UnreadableImage as error:
            empty = isinstance(source, str | Path) and os.path.isdir(source) and next(_images(name)) == name
            return Result(
                name, "unreadable", message=f"{name} is a folder without images." if empty else str(error)
            ), []
        result = functools.partial(Result, name, size=rgb.shape[1::-1], image=source, channels=channels)
        return self._look(result, rgb, detector, on_no_face)

    def _look(
        self, result: Callable[..., Result], rgb: np.ndarray, detector: Detector | None, on_no_face: OnNoFace
    ) -> tuple[Result, list[Crop]]:
        places = _places(detector(rgb), *rgb.shape[:2]) if detector else []
        if places:
            return result("ok"), [Crop(box, score, self._transforms["face"](rgb, box)) for box, score in places]
        if detector is None or on_no_face == "scene":
            return result("ok"), [Crop(None, None, self._transforms["scene"](rgb))]
        found = result("no_face")
        if on_no_face == "error":
            message = f"{found.source}: no face was found. Choose scene to classify it whole."
            found = dataclasses.replace(found, message=message)
        return found, []

    def _in_batches(
        self, opened: Iterable[tuple[Result, list[Crop]]], batch_size: int, ahead: int | None = None
    ) -> Iterator[Result]:
        """Fill in the faces; a result leaves when it and all before it are complete."""
        waiting: deque[tuple[Result, int]] = deque()
        queue: list[tuple[Result, Crop]] = []
        for result, crops in opened:
            waiting.append((result, len(crops)))
            queue += [(result, crop) for crop in crops]
            most = min(ahead or batch_size, _held(result))
            while queue and (len(queue) >= batch_size or len(waiting) >= most):
                self.classify(queue[:batch_size])
                del queue[:batch_size]
            while waiting and len(waiting[0][0].faces) == waiting[0][1]:
                yield waiting.popleft()[0]
        self.classify(queue)
        yield from (result for result, _ in waiting)

    def classify(self, queue: Sequence[tuple[Result, Crop]]) -> None:
        """Add a face to its result for every crop."""
        if not queue:
            return
        batch = torch.from_numpy(np.stack([crop.image for _, crop in queue])).to(self.device)
        with torch.inference_mode():
            logits = self.model(batch).float().cpu()
        for (result, _), face in zip(queue, self.faces([crop for _, crop in queue], logits), strict=True):
            result.faces.append(face)

    def faces(self, crops: Sequence[Crop], logits: Tensor) -> list[Face]:
        """What logits, float32 (N, C), say of N crops. InputError where they are not finite."""
        if not torch.isfinite(logits).all():
            raise InputError(
                f"{self.checkpoint.name} answers with NaN or infinity: its weights are broken; train it again."
            )
        found = []
        for crop, row in zip(crops, (logits / self.checkpoint.temperature).softmax(-1).tolist(), strict=True):
            probs = dict(zip(self.labels, row, strict=True))
            label = max(probs, key=probs.__getitem__)
            found.append(Face(label, probs[label], probs, crop.box, crop.detection))
        return found


def expand_sources(arguments: Iterable[str], stdin: Iterable[str] = ()) -> Iterator[str]:
    """The images that a command line means, one by one.

    A folder means the images in it and below, in natural order (2 before 10), hidden ones left out; a pattern (*, ?,
    [...], **) what fits it; "-" the list on `stdin`, a name a line or NUL between names. What means nothing comes out
    as it is, for prediction to report.
    """
    for argument in arguments:
        if argument == "-":
            listed = (name for line in stdin for name in line.rstrip("\r\n").split("\0"))
            yield from expand_sources(name for name in listed if name.strip() not in ("", "-"))
        elif glob.has_magic(argument) and not os.path.lexists(argument):
            found = sorted(glob.iglob(argument, recursive=True), key=_natural)
            yield from (image for path in found for image in _images(path)) if found else [argument]
        else:
            yield from _images(argument)


def _images(path: str) -> Iterator[str]:
    """The images below a folder; a file, and a folder without images, as it is."""
    found = False
    for folder, folders, names in os.walk(path):
        folders[:] = sorted((name for name in folders if not name.startswith(".")), key=_natural)
        for name in sorted(names, key=_natural):
            if os.path.splitext(name)[1].lower() in endings() and not name.startswith("."):
                found = True
                yield os.path.join(folder, name)
    if not found:
        yield path


def _natural(name: str) -> list[tuple[int, str]]:
    """A sorting key in which 2 comes before 10."""
    return [(int(part), "") if part.isdecimal() else (-1, part.lower()) for part in re.split(r"(\d+)", name)]


def _places(found: Iterable[FaceBox | Sequence[float]], height: int, width: int) -> list[tuple[Box, float | None]]:
    """A detector's boxes in whole pixels, clipped to the image, with their scores where it gives any."""
    places: list[tuple[Box, float | None]] = []
    for face in found:
        x1, y1, x2, y2 = (face.x1, face.y1, face.x2, face.y2) if isinstance(face, FaceBox) else face[:4]
        box = max(0, math.floor(x1)), max(0, math.floor(y1)), min(width, math.ceil(x2)), min(height, math.ceil(y2))
        if box[0] < box[2] and box[1] < box[3]:
            places.append((box, face.score if isinstance(face, FaceBox) else None))
    return places


def _name(source: Source, index: int) -> str:
    """What a source is called in its result: its path, or its kind and its place among the sources."""
    if isinstance(source, str | Path):
        return str(source)
    if isinstance(source, Image.Image):
        return getattr(source, "filename", "") or f"image {index}"
    return f"{'bytes' if isinstance(source, bytes) else 'array'} {index}"


def _held(result: Result) -> int:
    """How many results like this one may wait: those that hold their pixels, up to HELD bytes of them."""
    return max(1, HELD // max(1, result.image.nbytes)) if isinstance(result.image, np.ndarray) else sys.maxsize


def _check_batch(batch_size: int) -> None:
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; it must be 1 or more.")


def _check(choices: dict[str, str]) -> None:
    for option, value in choices.items():
        if value not in CHOICES[option]:
            raise InputError(f"{option} is {value!r}; choose one of {', '.join(CHOICES[option])}.")
