"""A model for onnxruntime or OpenVINO, without PyTorch: an exported file, or a checkpoint's folder that was packed.

An exported model is one ONNX file with the graph and all that prediction must know of it. A packed folder (folder.py)
has the graph alone beside the weights and the description that PyTorch's form reads; both become one file in memory.

The graph takes "images", uint8 (batch, h, w, channels) with values 0..255 as the evaluation transform gives them:
RGB, or grey, or the scene's channels and then the face's. Normalisation is part of the graph, and the batch may have
any size. It gives "logits", float32 (batch, labels). The file's metadata are the fields of `Description`, each as JSON
under its own name; any ONNX runtime can read them. Nothing is unpickled, and a graph whose weights lie in other files
is not read.
"""

import json
import os
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import numpy as np
from pydantic import Field
from safetensors.numpy import load

from facerwkv.core import packages
from facerwkv.core.devices import threads
from facerwkv.core.errors import InputError, first_line, shown
from facerwkv.core.files import parse_json
from facerwkv.core.processes import PerProcess
from facerwkv.core.runtime import INSTALL, ON_CPU, UNKNOWN_OPERATOR, onnxruntime, open_graph
from facerwkv.core.settings import Text
from facerwkv.models.card import known_licence
from facerwkv.models.folder import (
    AGAIN,
    GRAPH,
    Checkpoint,
    Described,
    Stored,
    made_for,
    read,
    require_finite,
    require_hash,
    without_paths,
)
from facerwkv.models.openvino import OpenVinoSession
from facerwkv.models.protobuf import joined
from facerwkv.models.zoo import CONFIG

INPUT, OUTPUT = "images", "logits"
MADE_FOR = "facerwkv_made_for"  # among the metadata of a graph without weights: `made_for`
PATCHES = "facerwkv_patches"  # among the metadata: the grid (Hp, Wp) that the network cuts images into
OTHERS = (8, 8)  # of models that cut none
LARGEST = 2**31  # bytes: a protocol buffer cannot be larger
PROVIDERS = {"cuda": "CUDAExecutionProvider", "mps": "CoreMLExecutionProvider", "cpu": "CPUExecutionProvider"}
AUTOMATIC = ("cuda", "cpu")  # CoreML computes in half precision, so it must be asked for

Runtime = Literal["onnx", "openvino"]
"""onnxruntime or OpenVINO."""


class Description(Described):
    """What the metadata of an exported file say. The transform's mean and std are part of the graph."""

    facerwkv: Annotated[int, Field(ge=1, le=1)] = 1
    """The format's number."""
    licence: Text | None
    """Of the weights."""
    input: dict[str, Any]
    """For readers who do not know TransformConfig: name, dtype, shape, range and colours."""

    @classmethod
    def of(cls, checkpoint: Checkpoint, card: dict[str, Any]) -> "Description":
        """That of a checkpoint; `card` is the part of its card that others may see."""
        transform = checkpoint.transform
        colours = "RGB" if transform.in_chans == 3 else "grey"
        if transform.crop == "both":
            colours = f"{colours} of the scene, then {colours} of the face"
        shape = ["batch", *transform.image_size, transform.channels]
        values = {
            "model": checkpoint.name,
            "labels": checkpoint.labels,
            "transform": transform.model_dump(),
            "temperature": checkpoint.temperature,
            "licence": known_licence(card),
            "card": card,
            "input": {"name": INPUT, "dtype": "uint8", "shape": shape, "range": [0, 255], "colours": colours},
        }
        return cls.parse(values, checkpoint.title)

    def metadata(self) -> dict[str, str]:
        """Field → JSON."""
        return {name: json.dumps(value) for name, value in self.model_dump(mode="json").items()}


class Session(Protocol):
    """A graph in a runtime: images uint8 (B, h, w, c) → logits float32 (B, C).

    `ends` are type, name and shape without the batch of every input and output, `metadata` the file's own, `runs_on`
    says what computes. Any number of threads may call one; a pickle, a copy and a forked process open the graph anew.
    """

    ends: list[tuple[str, str, list[int | str]]]
    metadata: dict[str, str]
    runs_on: str

    def __call__(self, images: np.ndarray) -> np.ndarray: ...


class OnnxModel:
    """Images, uint8 (B, h, w, c), any B → logits, float32 (B, C), by a session; no gradients.

    `folder` is the checkpoint's that it was read from, where PyTorch finds the same model; an exported file has none.
    InputError for images of another shape or type than the graph's.
    """

    def __init__(self, session: Session, folder: Path | None = None):
        self.session, self.folder = session, folder
        self.shape, self.runs_on = tuple(session.ends[0][2]), session.runs_on
        self.patches = _patches(session.metadata.get(PATCHES, ""), self.shape)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return self.session(self._checked(images))

    def beside(self, images: np.ndarray) -> np.ndarray:
        """The same on one thread, for calls that run beside others."""
        return getattr(self.session, "beside", self.session)(self._checked(images))

    def _checked(self, images: np.ndarray) -> np.ndarray:
        if images.dtype != np.uint8 or images.shape[1:] != self.shape:
            given, wanted = (" x ".join(map(str, shape)) for shape in (images.shape[1:], self.shape))
            raise InputError(
                f"This ONNX graph takes uint8 images of {wanted}, not {images.dtype} of {given}; export the model "
                "with an image_size of that kind, or resize the images."
            )
        return np.ascontiguousarray(images)


def _patches(text: str, shape: tuple[int | str, ...]) -> tuple[int, int]:
    """A grid that divides images of a shape, as the metadata have it, or OTHERS."""
    found = [int(number) for number in text.split("x") if number.isdigit()]
    fits = len(found) == 2 and all(
        count > 0 and isinstance(side, int) and side % count == 0 for side, count in zip(shape, found, strict=False)
    )
    return (found[0], found[1]) if fits else OTHERS


def read_onnx(path: str | Path, device: str = "auto", runtime: Runtime = "onnx") -> Checkpoint:
    """A file that `facerwkv export` wrote, its model an OnnxModel: that takes images as they are, not normalised.

    `device` is "auto" (cuda or cpu, the first that onnxruntime has), "cpu", "cuda", "cuda:1" or "mps"; for OpenVINO see
    OpenVinoSession. InputError without the runtime or the device, and for a file that is missing, damaged or not an
    exported model.
    """
    path = Path(os.path.expanduser(path))
    session = open_session(_read(path), path, device, runtime)
    if missing := Description.model_fields.keys() - session.metadata.keys():
        raise InputError(
            f"{path} is an ONNX file, but none that `facerwkv export` wrote: its metadata lack "
            f"{', '.join(sorted(missing))}. Export the model from its checkpoint."
        )
    values = {}
    try:
        for name in Description.model_fields:
            values[name] = parse_json(session.metadata[name])
        described = Description.parse(values, "metadata", strict=True)
    except InputError as error:
        raise InputError(f"{path}: {error} {AGAIN}") from error
    except ValueError as error:
        raise InputError(f"{path}: metadata.{name} is not JSON: {error}. {AGAIN}") from error
    return _checkpoint(session, described, path)


def read_packed(folder: Path, device: str = "auto", runtime: Runtime = "onnx") -> Checkpoint:
    """A checkpoint's folder, which `find` gave, as it was packed: its model is an OnnxModel.

    `device` is as for `read_onnx`. InputError for a folder without a graph, and for one that is damaged.
    """
    path = folder / GRAPH
    if not path.is_file():
        raise InputError(
            f"{folder} was not packed for onnxruntime, so it needs PyTorch: {packages.INSTALL}. Or export it where "
            f"PyTorch is, and give the file: facerwkv export --model {folder} --out FILE.onnx"
        )
    stored, weights = read_arrays(folder)
    try:
        model = joined(path.read_bytes(), weights)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is damaged ({first_line(error)}). {AGAIN}") from error
    session = open_session(model, path, device, runtime)
    if session.metadata.get(MADE_FOR) != made_for(stored):
        raise InputError(f"{path} was made for another {CONFIG} than the one beside it: pack the model again.")
    return _checkpoint(session, stored, path, folder)


def read_arrays(folder: Path) -> tuple[Stored, dict[str, np.ndarray]]:
    """What a checkpoint's config.json says, and its weights."""
    try:
        stored, file, weights = read(folder, load)
    except (KeyError, TypeError) as error:  # of numbers that numpy does not know, bfloat16 say
        raise InputError(f"Only PyTorch reads the weights in {folder} ({error}): {packages.INSTALL}") from error
    require_hash(
        stored, file, ((name, f"torch.{one.dtype}", one.shape, one.tobytes()) for name, one in weights.items())
    )
    require_finite(((name, bool(np.isfinite(array).all())) for name, array in weights.items()), f"{file}")
    return stored, weights


def whole_file(checkpoint: Checkpoint) -> bytes:
    """What `read_packed` read, as one ONNX file, the same as `facerwkv export` writes."""
    folder = checkpoint.model.folder
    if folder is None:
        raise InputError(f"{checkpoint.title} is an exported model already: copy its file.")
    description = Description.of(checkpoint, without_paths(checkpoint.card))
    return joined((folder / GRAPH).read_bytes(), read_arrays(folder)[1], description.metadata())


def open_session(model: bytes, path: Path, device: str = "cpu", runtime: Runtime = "onnx") -> Session:
    """A session for the bytes of an ONNX file."""
    kind: Any = OpenVinoSession if runtime == "openvino" else OnnxRuntimeSession
    return kind(model, path, device)


def _checkpoint(session: Session, described: Described, path: Path, folder: Path | None = None) -> Checkpoint:
    """InputError where the graph's ends are not what is said of it."""
    transform, labels = described.transform, described.labels
    wanted = [("tensor(uint8)", INPUT, [*transform.image_size, transform.channels])]
    wanted += [("tensor(float)", OUTPUT, [len(labels)])]
    if session.ends != wanted:
        raise InputError(
            f"{path} is damaged: its graph has {session.ends}, its description says {shown(wanted)}. Export or "
            "pack it again."
        )
    model = OnnxModel(session, folder)
    return Checkpoint(model, described.model, labels, transform, described.temperature, dict(described.card))


class OnnxRuntimeSession:
    """A graph from the bytes of an ONNX file, in onnxruntime. `path` is for messages, `device` as in `read_onnx`.

    InputError without onnxruntime or the device, and for a graph that it cannot run.
    """

    def __init__(self, graph: bytes, path: Path, device: str):
        self._session = PerProcess(partial(_opened, graph, path, device))
        self._beside = PerProcess(partial(_opened, graph, path, device, 1))
        session = self._session()
        ends = (*session.get_inputs(), *session.get_outputs())
        self.ends = [(end.type, end.name, list(end.shape[1:])) for end in ends]
        self.metadata = session.get_modelmeta().custom_metadata_map
        self.runs_on = f"onnxruntime's {session.get_providers()[0]}"

    def __call__(self, images: np.ndarray) -> np.ndarray:
        (logits,) = self._session().run([OUTPUT], {INPUT: images})
        return logits

    def beside(self, images: np.ndarray) -> np.ndarray:
        """On one thread: onnxruntime's others would spin beside those that do something else."""
        on_one = threads() > 1 and self.runs_on.endswith(ON_CPU[0][0])
        (logits,) = (self._beside if on_one else self._session)().run([OUTPUT], {INPUT: images})
        return logits


def _opened(graph: bytes, path: Path, device: str, count: int | None = None) -> Any:
    """onnxruntime's session for a graph, on `count` threads."""
    runtime = onnxruntime(path)
    providers = _providers(device, runtime.get_available_providers())
    try:
        session = open_graph(graph, path, count or threads(), providers)
    except Exception as error:  # onnxruntime's have no common ancestor
        newer = any(words in str(error) for words in UNKNOWN_OPERATOR)
        step = f"It needs a later version: {INSTALL}" if newer else "It is damaged: export or pack it again."
        reason = first_line(error)
        raise InputError(f"{path} cannot be run by onnxruntime {runtime.__version__} ({reason}). {step}") from error
    if device != "auto" and session.get_providers()[0] != providers[0][0]:
        raise InputError(f"onnxruntime has {providers[0][0]} but cannot start it; choose --device cpu.")
    return session


def _read(path: Path) -> bytes:
    """The file's bytes: a session made of bytes has no folder to look for further files in."""
    if not os.path.isfile(path):
        raise InputError(f"There is no file {path}. Write it: facerwkv export --model NAME --out {path}")
    if path.stat().st_size >= LARGEST:
        raise InputError(f"{path} is larger than {LARGEST >> 30} GiB, so it is no exported model; export it again.")
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error


def _providers(device: str, there: list[str]) -> list[tuple[str, dict[str, str]]]:
    """The execution providers to try in this order, each with its options."""
    if device == "auto":
        return [(PROVIDERS[kind], {}) for kind in AUTOMATIC if PROVIDERS[kind] in there]
    kind, _, number = device.partition(":")
    if PROVIDERS.get(kind) not in there:
        known = ", ".join(name for name, provider in PROVIDERS.items() if provider in there)
        raise InputError(f"onnxruntime has no device {device!r} here. Choose auto or one of: {known}.")
    return [(PROVIDERS[kind], {"device_id": number} if number else {})]
