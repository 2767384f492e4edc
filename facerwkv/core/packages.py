"""PyTorch and what else the extra "train" brings, which prediction does without: one sentence where it is missing."""

import importlib
import sys
from importlib.util import find_spec
from typing import Any

from facerwkv.core.errors import InputError, first_line

TRAIN = {"huggingface_hub", "jinja2", "lightning", "matplotlib", "onnx", "onnxscript", "tensorboard", "timm", "torch"}
TRAIN |= {"torchmetrics", "torchvision", "yaml"}
"""What the extra "train" installs, as it is imported."""
INSTALL = 'pip install "facerwkv[train]"'


def pytorch(wanted_by: str) -> Any:
    """PyTorch. InputError, which says what to type, where it is not installed or cannot be imported."""
    try:
        return importlib.import_module("torch")
    except (ImportError, OSError) as error:
        raise InputError(f"{wanted_by} needs {lacking(error) or f'PyTorch: {first_line(error)}'}") from error


def imported_pytorch() -> Any:
    """PyTorch, where this process has imported it to its end; another thread may be at it. Else None."""
    torch = sys.modules.get("torch")
    return None if getattr(getattr(torch, "__spec__", None), "_initializing", False) else torch


def has_pytorch() -> bool:
    """Whether PyTorch is installed; it may be broken."""
    return find_spec("torch") is not None


def lacking(error: BaseException) -> str | None:
    """What failed to be imported, and what to type; None where the error has nothing to do with "train"."""
    name = (getattr(error, "name", None) or "").partition(".")[0]
    if isinstance(error, ModuleNotFoundError) and name in TRAIN:
        return f"the packages for training, and {name} is not installed: {INSTALL}"
    if isinstance(error, ImportError | OSError) and _while_importing_torch(error):
        reason = f"is installed but cannot be imported ({first_line(error)})"
        return f"PyTorch, which {reason}: pip install --force-reinstall torch"
    return None


def _while_importing_torch(error: BaseException) -> bool:
    frame = error.__traceback__
    while frame and frame.tb_frame.f_globals.get("__name__") != "torch":
        frame = frame.tb_next
    return frame is not None and "torch" not in sys.modules
