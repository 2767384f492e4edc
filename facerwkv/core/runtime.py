"""onnxruntime: one door to the package, and one way of opening a graph in it."""

import importlib
import os
from collections.abc import Sequence
from typing import Any

from facerwkv.core.errors import InputError

EXTRA = "pip install 'facerwkv[export]'"
ON_CPU: tuple[tuple[str, dict[str, str]], ...] = (("CPUExecutionProvider", {}),)


def onnxruntime(wanted_by: Any) -> Any:
    """The package, with its telemetry off, which otherwise reports every session. InputError without it."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # it is read when the package is imported
    try:
        return importlib.import_module("onnxruntime")
    except ImportError as error:
        raise InputError(f"{wanted_by} needs onnxruntime, which is not installed: {EXTRA}") from error


def open_graph(
    graph: bytes, wanted_by: Any, threads: int, providers: Sequence[tuple[str, dict[str, str]]] = ON_CPU
) -> Any:
    """onnxruntime's session for the bytes of an ONNX file, computing on this many threads.

    InputError without onnxruntime. For a graph that it cannot run, onnxruntime's own errors, which have no common
    ancestor.
    """
    runtime = onnxruntime(wanted_by)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors alone: they are raised anyway
    return runtime.InferenceSession(graph, options, providers=list(providers))
