"""Images and frames → results: read, find the faces, classify them in batches."""

import functools
import logging
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_args, overload

import numpy as np

from facerwkv.core.devices import cores, has_gpu, threads
from facerwkv.core.errors import InputError
from facerwkv.core.files import first_time
from facerwkv.core.packages import has_pytorch, pytorch
from facerwkv.core.processes import PerProcess
from facerwkv.core.threads import map_ahead
from facerwkv.data.transforms import EvalTransform
from facerwkv.data.views import COUNTS, views
from facerwkv.inference.batcher import Batcher, in_batches, in_threads
from facerwkv.inference.options import Mode, Options
from facerwkv.inference.results import Crop, Face, Opened, Result, Results, raising
from facerwkv.media.container import UnreadableVideo, Watch
from facerwkv.media.faces import FaceBox, FaceDetector
from facerwkv.media.frames import Frame
from facerwkv.media.geometry import by_rows, whole_pixels
from facerwkv.media.images import ImageSource, NamedImage, UnreadableImage, is_array, name_of
from facerwkv.media.search import Detector, search
from facerwkv.media.sources import each_image, is_group, is_one, why_no_image
from facerwkv.media.upright import roll_of, upright
from facerwkv.models.folder import DEFAULT, EXPORTED, GRAPH, Checkpoint, find
from facerwkv.models.onnx import OnnxModel, Runtime, read_onnx, read_packed

Engine = Literal["torch", "torch-bfloat16", "onnx", "openvino"]
IN_TORCH = {"torch": "float32", "torch-bfloat16": "bfloat16"}
"""The engines that are PyTorch, and the precision of their products."""
Source = ImageSource | NamedImage
"""An image, as `open_image` reads it, or one with its name; a path may be a folder's or a pattern."""

OPENED = 8
"""Images that are opened at once, at most: a large one is 300 MB."""

logger = logging.getLogger("facerwkv")
_warn_once = functools.cache(logger.warning)
_warning = threading.Lock()


def load(
    name_or_folder: str | Path | None = None,
    device: str = "auto",
    detector_model: str | Path | None = None,
    engine: Engine | None = None,
    name: str | None = None,
    detector: Detector | None = None,
) -> "Predictor":
    """A trained model, ready to predict: a shipped one by name (None: facerwkv_fer), a folder, or "hf-hub:ORG/NAME".

    `engine` "onnx" is onnxruntime, which needs no PyTorch: None takes it for FILE.onnx, which `facerwkv export` wrote,
    and for shipped and packed models, unless PyTorch is here and `device` is a GPU, or "auto" (the first available of
    cuda, mps and cpu) finds one. "openvino" runs the same files, "torch" every other checkpoint, "torch-bfloat16" with
    products of 16 bits. `detector_model` is YuNet's ONNX file; `detector` finds the faces instead:
    FaceDetector(threshold=..., max_side=..., min_face=...), or what `Predictor` takes. `name` is what messages call the
    model. If the model may be used for research only, a notice is logged once per process, and once per machine where
    that can be kept. InputError if there is no such checkpoint, device or file, or a package is missing.
    """
    source = name_or_folder or DEFAULT
    exported = Path(source).suffix.lower() == EXPORTED and Path(source).name != GRAPH
    if engine not in (None, *get_args(Engine)):
        raise InputError(f"engine is {engine!r}; choose one of {', '.join(get_args(Engine))}.")
    if exported and engine in IN_TORCH:
        raise InputError(f"{source} runs in onnxruntime. Leave the engine out, or give the model's checkpoint.")
    runtime: Runtime = "openvino" if engine == "openvino" else "onnx"
    if detector_model and detector:
        raise InputError("Give detector_model or detector, not both: FaceDetector(FILE) is a detector of that model.")
    folder = Path() if exported else find(source)
    if exported:
        checkpoint = read_onnx(source, device, runtime)
    elif (engine := engine or chosen_engine(folder, device)) in IN_TORCH:
        pytorch(f"The device {device}" if device not in ("auto", "cpu") else f"The engine {engine}, for {source},")
        from facerwkv.models.checkpoint import load_folder

        checkpoint = load_folder(folder)
    else:
        checkpoint = read_packed(folder, device, runtime)
    found = FaceDetector(detector_model) if detector_model else detector
    predictor = Predictor(checkpoint, device, found, name, IN_TORCH.get(engine or "", "float32"))
    if text := checkpoint.notice:
        with _warning:
            if first_time(text):
                _warn_once(text)
    return predictor


def chosen_engine(folder: Path, device: str = "auto") -> Engine:
    """What runs the checkpoint in a folder where nothing else is asked for."""
    if device not in ("auto", "cpu"):
        return "torch"
    if not has_pytorch() or ((folder / GRAPH).is_file() and not (device == "auto" and has_gpu())):
        return "onnx"
    return "torch"


_kept = functools.lru_cache(maxsize=4)(load)


def predict(source: Any, options: Options | None = None, *, model: str | Path | None = None, **changes: Any) -> Any:
    """The result of one image, or of several a list of them, by the model that `load` gives for a name or a folder.

    A model is loaded once and kept. Everything else is as in `Predictor.predict`.
    """
    return _kept(model).predict(source, options, **changes)


class Predictor:
    """A checkpoint that names the expressions in images. Any number of threads may use one at once.

    `model` takes images, uint8 (B, h, w, c), and gives logits, float32 (B, C): an OnnxModel, or a TorchModel.
    `unfolded()` is a copy of the checkpoint's own network in PyTorch, for gradients and states.

    `detector` finds the faces: any callable from an image, uint8 (H, W, 3) RGB, to boxes (x1, y1, x2, y2 in pixels, or
    FaceBox); without one, YuNet. `name` is what messages call the model, by default its own name. InputError if
    `device` is not there.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        device: str = "auto",
        detector: Detector | None = None,
        name: str | None = None,
        precision: str = "float32",
    ):
        self.checkpoint, self.name = checkpoint, name or checkpoint.name
        self.model: Any = checkpoint.model
        if not isinstance(self.model, OnnxModel):  # that one's device was chosen when it was read
            from facerwkv.models.engine import TorchModel

            self.model = TorchModel(checkpoint, device, precision)
        self.unfolded = PerProcess(functools.partial(_unfolded, checkpoint, device))
        self._cores = min(cores(), OPENED)
        if not (detector is None or callable(detector)):
            raise InputError(f"detector is {detector!r}; give a function from an image to boxes, or FaceDetector(...).")
        self._detector = detector or (FaceDetector() if checkpoint.transform.sees_faces else None)
        both = checkpoint.transform.crop == "both"
        crops = {mode: {"crop": "both", "no_box": "whole"} if both else {"crop": mode} for mode in ("scene", "face")}
        self._transforms = {
            mode: EvalTransform(checkpoint.transform.model_copy(update=crop)) for mode, crop in crops.items()
        }

    @property
    def labels(self) -> tuple[str, ...]:
        return self.checkpoint.labels

    def __repr__(self) -> str:
        weights = getattr(self.model, "weights", 0)
        size = f", {weights / 1e6:.1f} M parameters" if weights else ""
        return f"{self.name} ({len(self.labels)} labels{size}) on {self.model.runs_on}"

    @overload
    def predict(
        self, source: Source, options: Options | None = None, *, name: str | None = None, **changes: Any
    ) -> Result: ...
    @overload
    def predict(
        self, source: Iterable[Source], options: Options | None = None, *, name: None = None, **changes: Any
    ) -> Results: ...
    def predict(
        self, source: Any, options: Options | None = None, *, name: str | None = None, **changes: Any
    ) -> Result | Results:
        """The result of one image, or a list of the results of several: of an iterable of images, a folder, a pattern.

        See `predict_iter`. `name` is what the result and messages call one image. InputError if one image cannot be
        read, or has no face where `on_no_face` is "error"; for several, or with `errors="result"`, such a result says
        why.
        """
        options = Options.of(options, changes, "image")
        if not is_one(source):
            return Results(self.predict_iter(source, options), self.labels)
        if name:
            source = NamedImage(name, source.data if isinstance(source, NamedImage) else source)
        results = Results(self.predict_iter([source], options), self.labels)
        single = not is_group(source) or (len(results) == 1 and results[0].source == os.fsdecode(source))
        if single and options.errors != "result":
            list(raising(results))
        return results[0] if single else results

    __call__ = predict

    @classmethod
    def from_pretrained(cls, name_or_folder: str | Path, **options: Any) -> "Predictor":
        """`load` under the name that it has elsewhere: "hf-hub:ORG/NAME", a folder, or a shipped model's name."""
        return load(name_or_folder, **options)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """`Checkpoint.push_to_hub`: upload the model with its card to huggingface.co; its address."""
        return self.checkpoint.push_to_hub(repo_id, **options)

    def embed(self, source: Any, options: Options | None = None, **changes: Any) -> Any:
        """What the classifier reads of each face, for search and clustering: `facerwkv.inference.embed.embed`."""
        from facerwkv.inference.embed import embed

        return embed(self, source, options, **changes)

    def predict_iter(
        self, sources: Iterable[Source], options: Options | None = None, **changes: Any
    ) -> Iterator[Result]:
        """Results in the order of the sources: paths, folders, patterns, encoded bytes, open files, PIL images, arrays,
        tensors (of four dimensions: a batch), NamedImages.

        `options`, or single ones as keywords, are those of `Options`. Faces of several images share a batch; fewer than
        `batch_size` images wait for theirs to fill. An image that cannot be read gives a result that says why, or
        InputError with `errors="raise"`.
        """
        options = options if options and not changes else Options.of(options, changes, "image")
        results = in_threads(self, each_image(sources), options, self._at_once(options.mode))
        return raising(results) if options.errors == "raise" else results

    def predict_frames(
        self,
        frames: Iterable[tuple[float, np.ndarray] | tuple[float, np.ndarray, int] | Frame],
        name: str = "frames",
        options: Options | None = None,
        ahead: int | None = None,
        watch: Watch | None = None,
        **changes: Any,
    ) -> Iterator[Result]:
        """Results of a video's frames in their order, with `time` and `frame`; options as in `predict_iter`.

        A frame is its time in seconds, its image, an RGB array as `open_image` takes it, and maybe its number; they
        are counted from 0 otherwise. `name` is the results' source. Fewer than `ahead` frames wait for a batch to fill
        (None: `batch_size`), and fewer where they are large. `watch` is called before faces are classified. A video
        that ends too early gives a last result that says why.
        """
        options = Options.of(options, changes)

        def classify(crops: list[Crop], each: list[Options]) -> list[Face]:
            if watch:
                watch()
            return self.classify(crops, each)

        opened = self.open_frames(frames, name, options, ahead)
        results = in_batches(opened, Batcher(classify, options.batch_size), ahead)
        return raising(results) if options.errors == "raise" else results

    def open_frames(
        self, frames: Iterable[tuple], name: str, options: Options, ahead: int | None = None
    ) -> Iterator[Opened]:
        """Each frame, searched for faces; as in `predict_frames`."""
        options = Options.of(options, {"channels": "rgb"}) if options.channels != "rgb" else options
        threads = min(self._at_once(options.mode), ahead or options.batch_size)
        near: list[Sequence[float]] | None = None
        if options.search_every > 1:
            threads = 1  # each frame needs the one before

        def open_frame(numbered: tuple[int, tuple]) -> Opened:
            nonlocal near
            frame = Frame.of(numbered[1], numbered[0])
            moment: Any = {"time": frame.time, "frame": frame.number, "duration": frame.duration or None}
            around = near if numbered[0] % options.search_every else None
            found = self.open(NamedImage(name, frame.rgb), options, near=around, **moment)
            near = [crop.box for crop in found.crops if crop.box]
            return found

        def opened() -> Iterator[Opened]:
            time, number = 0.0, -1
            try:
                for each in map_ahead(open_frame, enumerate(frames), threads):
                    time, number = each.fields["time"], each.fields["frame"]
                    yield each
            except UnreadableVideo as error:
                fields = {"source": name, "status": "unreadable", "message": str(error)}
                yield Opened(fields | {"time": time, "frame": number + 1}, [], options)

        return opened()

    def open(
        self,
        source: Source,
        options: Options,
        index: int = 0,
        max_pixels: int | None = None,
        near: Sequence[Sequence[float]] | None = None,
        **moment: Any,
    ) -> Opened:
        """An image, read and searched for faces: what the model will be shown.

        `index` is its number among others, for those without a name; `moment` its result's `time`, `frame`, `duration`.
        With `near`, faces are searched around these boxes alone, if the detector can.
        """
        threads()  # else PyTorch's first products in a new thread take all cores, whatever was set
        detector, crops = self._detector_for(options.mode), []
        own = os.fsdecode(source) if isinstance(source, str | os.PathLike) else name_of(source, index)
        name, data = source if isinstance(source, NamedImage) else (own, source)
        if near is not None and isinstance(detector, FaceDetector):
            detector = functools.partial(detector.near, places=near)
        needed = max(self.checkpoint.transform.image_size) if options.reduced else 0
        try:
            found = search(data, detector, needed, options.channels, name, max_pixels or options.max_pixels)
        except UnreadableImage as error:
            message = why_no_image(data, name, str(error))
            return Opened({"source": name, "status": "unreadable", "message": message, **moment}, [], options)
        rgb, (width, height), scale, faces, corners = found
        for i in by_rows(corners):
            score = faces[i].score if isinstance(faces[i], FaceBox) else None
            box = whole_pixels(corners[i], width, height)
            if min(box[2] - box[0], box[3] - box[1]) >= max(1, options.min_face):
                place: Any = tuple(edge / scale for edge in box) if scale > 1 else box
                aligned = detector and options.align == "roll" and self.checkpoint.transform.crop != "both"
                degrees = roll_of(detector, rgb, faces[i], place) if aligned else 0.0  # type: ignore[arg-type]
                shown = upright(rgb, place, degrees) if degrees else (rgb, place)
                crops.append(Crop(box, score, self._transforms["face"](*shown)))
        if not crops and (detector is None or options.on_no_face == "scene"):
            crops = [Crop(None, None, self._transforms["scene"](rgb))]
        image = rgb if moment and is_array(data) else data  # a frame is also looked at to follow its faces
        fields = {"source": name, "size": (width, height), "image": image, "channels": options.channels, **moment}
        fields["status"] = "ok" if crops else "no_face"
        if not crops and options.on_no_face == "error":
            fields["message"] = f"{name}: no face was found. Choose scene to classify it whole."
        return Opened(fields, crops, options)

    def _detector_for(self, mode: Mode) -> Detector | None:
        """None where the whole image is shown."""
        transform = self.checkpoint.transform
        if transform.crop == "both" and mode == "scene":
            raise InputError(
                f"{self.name} looks at a face and at what is around it; it cannot classify a whole image. "
                "Choose mode auto or face."
            )
        if mode == "scene" or (mode == "auto" and transform.crop == "scene"):
            return None
        self._detector = self._detector or FaceDetector()
        return self._detector

    def _at_once(self, mode: Mode) -> int:
        """How many images are opened at once: a detector of the user's may serve one thread alone."""
        detector = self._detector_for(mode)
        return self._cores if detector is None or isinstance(detector, FaceDetector) else 1

    def classify(self, crops: Sequence[Crop], options: Sequence[Options], beside: bool = False) -> list[Face]:
        """A face for each crop, each with its own options; `beside` other calls, on one core if the model can."""
        images = np.stack([crop.image for crop in crops])
        model = self.model.beside if beside else self.model
        logits = model(images)
        for tta in {each.tta for each in options} - {"none"}:
            chosen = [i for i, each in enumerate(options) if each.tta == tta]
            others = (model(view) for view in islice(views(images[chosen], tta), 1, None))
            logits[chosen] = sum(others, logits[chosen]) / COUNTS[tta]
        return self.faces(crops, logits, options)

    def faces(self, crops: Sequence[Crop], logits: np.ndarray, options: Sequence[Options]) -> list[Face]:
        """What logits, float32 (N, C), mean for N crops. InputError where they are not finite."""
        labels, faces = self.checkpoint.labels, []
        for crop, row, asked in zip(crops, self.probabilities(logits).tolist(), options, strict=True):
            probs = dict(zip(labels, row, strict=True))
            label = max(probs, key=probs.__getitem__)
            faces.append(Face(label, probs[label], probs, crop.box, crop.detection, threshold=asked.threshold))
        return faces

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Logits, float32 (N, C) → probabilities, float32 (N, C). InputError where they are not finite."""
        if not np.isfinite(logits).all():
            raise InputError(f"{self.name} answers with NaN or infinity: its weights are broken; train it again.")
        scaled = logits / np.float32(self.checkpoint.temperature)
        weights = np.exp(scaled - scaled.max(-1, keepdims=True))
        return weights / weights.sum(-1, keepdims=True)


def _unfolded(checkpoint: Checkpoint, device: str) -> Any:
    pytorch("What looks into a network")
    from facerwkv.models.engine import unfolded

    return unfolded(checkpoint, device)
