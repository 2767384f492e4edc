"""An exported model's graph in OpenVINO, as models/onnx.py asks for it. Nothing is sent to OpenVINO's makers."""

import ctypes
import importlib
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from facerwkv.core.devices import threads
from facerwkv.core.errors import InputError
from facerwkv.core.processes import PerProcess
from facerwkv.models.protobuf import METADATA, fields

EXTRA = 'pip install "facerwkv[openvino]"'
TELEMETRY = "openvino_telemetry"
FRAMEWORK = "framework"  # where OpenVINO keeps the metadata of an ONNX file
_importing = threading.Lock()
TYPES = {"u8": "tensor(uint8)", "f32": "tensor(float)"}  # as onnxruntime calls them


class OpenVinoSession:
    """A graph from the bytes of an ONNX file. `path` is for messages.

    `device` is "auto" (the CPU), or one that OpenVINO lists: "cpu", "gpu", "gpu:1". It computes in float32. InputError
    without OpenVINO or the device, and for a graph that it cannot run or whose weights lie in other files.
    """

    def __init__(self, graph: bytes, path: Path, device: str = "auto"):
        target = "CPU" if device == "auto" else device.upper().replace(":", ".")
        self._opened = PerProcess(partial(_opened, graph, path, target))
        model = self._opened()[0]
        known = model.get_rt_info()[FRAMEWORK] if FRAMEWORK in model.rt_info else {}
        self.metadata = {name: model.get_rt_info([FRAMEWORK, name]).value for name in known}
        self.ends: list[tuple[str, str, list[int | str]]] = []
        for port in (*model.inputs, *model.outputs):
            kind, shape = port.element_type.get_type_name(), port.partial_shape
            sides = [] if shape.rank.is_dynamic else list(shape)[1:]
            lengths = [str(side) if side.is_dynamic else side.get_length() for side in sides]
            self.ends.append((TYPES.get(kind, kind), min(port.names, default=""), lengths))
        self.runs_on = f"OpenVINO's {target}"

    def __call__(self, images: np.ndarray) -> np.ndarray:
        request = self._opened()[1].create_infer_request()  # its own, so that threads may share the session
        return request.infer([images])[0]


class _Stack(ctypes.Structure):
    """stack_t: where a thread handles signals."""

    _fields_ = (("memory", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextmanager
def _own_signal_stack() -> Iterator[None]:
    """Keep the thread's memory for signals: OpenVINO puts its own there, and frees it, so a later signal was fatal."""
    libc, before = ctypes.CDLL(None) if sys.platform == "linux" else None, _Stack()
    if libc:
        libc.sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        if libc:
            libc.sigaltstack(ctypes.byref(before), None)


@_own_signal_stack()
def _opened(graph: bytes, path: Path, target: str) -> tuple[Any, Any]:
    """OpenVINO's model for a graph, and the same compiled for a device."""
    core = openvino(path).Core()
    if target not in core.available_devices:
        known = ", ".join(name.lower().replace(".", ":") for name in core.available_devices)
        device = target.lower().replace(".", ":")
        raise InputError(f"OpenVINO has no device {device!r} here. Choose auto or one of: {known}.")
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
    settings |= {"INFERENCE_NUM_THREADS": threads()} if target == "CPU" else {}
    try:
        # a tensor may name the "location" of its values, where OpenVINO would look; a node of that name counts
        if any(graph.find(b"location", *ends) >= 0 for number, *ends in fields(graph) if number != METADATA):
            raise ValueError("its weights lie in other files, which are not read")
        model = core.read_model(graph)
        return model, core.compile_model(model, target, settings)
    except Exception as error:  # OpenVINO's have no common ancestor
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise InputError(f"{path} cannot be run by OpenVINO ({reason}). It is damaged: export it again.") from error


def openvino(wanted_by: Any) -> Any:
    """The package, imported without its telemetry, which otherwise reports every import. InputError without it."""
    with _importing:
        known = sys.modules.get(TELEMETRY)
        sys.modules[TELEMETRY] = None  # type: ignore[assignment]  # then OpenVINO takes a stub that sends nothing
        try:
            return importlib.import_module("openvino")
        except ImportError as error:
            raise InputError(f"{wanted_by} needs OpenVINO, which is not installed: {EXTRA}") from error
        finally:
            if known is None:
                del sys.modules[TELEMETRY]
            else:
                sys.modules[TELEMETRY] = known
