"""An exported model: one ONNX file with the graph and all that prediction must know of it.

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
import torch
from pydantic import Field
from torch import Tensor, nn

from facerwkv.core.errors import InputError, first_line, shown
from facerwkv.core.files import parse_json
from facerwkv.core.processes import PerProcess
from facerwkv.core.runtime import onnxruntime, open_graph
from facerwkv.core.settings import Text
from facerwkv.models.card import known_licence
from facerwkv.models.checkpoint import AGAIN, Checkpoint, Described
from facerwkv.models.openvino import OpenVinoSession

INPUT, OUTPUT = "images", "logits"
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


class OnnxModel(nn.Module):
    """Images, uint8 (B, h, w, c), any B → logits, float32 (B, C), by a session; no gradients.

    InputError for images of another shape or type than the graph's.
    """

    def __init__(self, session: Session):
        super().__init__()
        self.session = session
        self.shape, self.runs_on = tuple(session.ends[0][2]), session.runs_on

    def forward(self, images: Tensor) -> Tensor:
        if images.dtype != torch.uint8 or tuple(images.shape[1:]) != self.shape:
            given, wanted = (" x ".join(map(str, shape)) for shape in (images.shape[1:], self.shape))
            raise InputError(
                f"This ONNX graph takes uint8 images of {wanted}, not {images.dtype} of {given}; export the model "
                "with an image_size of that kind, or resize the images."
            )
        return torch.from_numpy(self.session(images.cpu().numpy()))


def read_onnx(path: str | Path, device: str = "auto", runtime: Runtime = "onnx") -> Checkpoint:
    """A file that `facerwkv export` wrote, its model an OnnxModel: that takes images as they are, not normalised.

    `device` is "auto" (cuda or cpu, the first that onnxruntime has), "cpu", "cuda", "cuda:1" or "mps"; for OpenVINO see
    OpenVinoSession. InputError without the runtime or the device, and for a file that is missing, damaged or not an
    exported model.
    """
    path = Path(os.path.expanduser(path))
    graph = _read(path)
    kind: Any = OpenVinoSession if runtime == "openvino" else OnnxRuntimeSession
    session: Session = kind(graph, path, device)
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
    transform, labels = described.transform, described.labels
    wanted = [("tensor(uint8)", INPUT, [*transform.image_size, transform.channels])]
    wanted += [("tensor(float)", OUTPUT, [len(labels)])]
    if session.ends != wanted:
        raise InputError(
            f"{path} is damaged: its graph has {session.ends}, its metadata say {shown(wanted)}. Export it again."
        )
    return Checkpoint(
        OnnxModel(session), described.model, labels, transform, described.temperature, dict(described.card)
    )


class OnnxRuntimeSession:
    """A graph from the bytes of an ONNX file, in onnxruntime. `path` is for messages, `device` as in `read_onnx`.

    InputError without onnxruntime or the device, and for a graph that it cannot run.
    """

    def __init__(self, graph: bytes, path: Path, device: str):
        self._session = PerProcess(partial(_opened, graph, path, device))
        session = self._session()
        ends = (*session.get_inputs(), *session.get_outputs())
        self.ends = [(end.type, end.name, list(end.shape[1:])) for end in ends]
        self.metadata = session.get_modelmeta().custom_metadata_map
        self.runs_on = f"onnxruntime's {session.get_providers()[0]}"

    def __call__(self, images: np.ndarray) -> np.ndarray:
        (logits,) = self._session().run([OUTPUT], {INPUT: images})
        return logits


def _opened(graph: bytes, path: Path, device: str) -> Any:
    """onnxruntime's session for a graph."""
    providers = _providers(device, onnxruntime(path).get_available_providers())
    try:
        session = open_graph(graph, path, torch.get_num_threads(), providers)
    except Exception as error:  # onnxruntime's have no common ancestor
        raise InputError(
            f"{path} cannot be run by onnxruntime ({first_line(error)}). It is damaged: export it again."
        ) from error
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
