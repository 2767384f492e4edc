"""onnxruntime: one door to the package, and one way of opening a graph in it."""

import importlib
import os
from collections.abc import Sequence
from typing import Any

from facerwkv.core.errors import InputError, first_line

OLDEST = (1, 22)
INSTALL = "pip install --upgrade onnxruntime"
UNKNOWN_OPERATOR = ("is not a registered function", "Could not find an implementation", "No Op registered", "opset")
"""In what onnxruntime says of a graph that is newer than itself."""
ON_CPU: tuple[tuple[str, dict[str, str]], ...] = (("CPUExecutionProvider", {}),)


def onnxruntime(wanted_by: Any) -> Any:
    """The package, with its telemetry off, which otherwise reports every session.

    InputError where it is not installed, cannot be imported, or is too old.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # it is read when the package is imported
    try:
        runtime = importlib.import_module("onnxruntime")
        version = str(runtime.__version__)
    except ModuleNotFoundError as error:
        raise InputError(f"{wanted_by} needs onnxruntime, which is not installed: {INSTALL}") from error
    except (ImportError, OSError, AttributeError) as error:
        reason = f"is installed but cannot be imported ({first_line(error)})"
        raise InputError(f"{wanted_by} needs onnxruntime, which {reason}: {INSTALL} --force-reinstall") from error
    if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise InputError(f"{wanted_by} needs onnxruntime {oldest} or later, and {version} is installed: {INSTALL}")
    return runtime


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
