"""The C kernels, if a compiler was there at install time; if not, `library()` is None and `problem()` says why."""

import ctypes
from collections.abc import Callable
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import torch

FOLDER = Path(__file__).parent
PLAIN = {torch.Tensor, torch.nn.Parameter}
DEVICES = ("cpu", "meta")  # on the latter an operator only says what shape comes out


@torch.compiler.assume_constant_result
def library() -> ctypes.CDLL | None:
    """The compiled kernels, or None."""
    return _load()[0]


def problem() -> str | None:
    """Why there are no compiled kernels, and what to do; None when there are."""
    return _load()[1]


@cache
def _load() -> tuple[ctypes.CDLL | None, str | None]:
    again = "install a C compiler and then facerwkv again (pip install --force-reinstall --no-deps facerwkv)"
    built = [FOLDER / f"_native{suffix}" for suffix in EXTENSION_SUFFIXES]
    path = next((path for path in built if path.is_file()), None)
    if path is None:
        return None, f"The C kernels were not built, so slower PyTorch forms run: {again}."
    try:
        return ctypes.CDLL(str(path)), None
    except OSError as error:
        return None, f"The C kernels cannot be loaded ({error}), so slower PyTorch forms run: {again}."


def operator(name: str) -> Callable[[Callable], Any]:
    """Registers a function on CPU tensors as torch's operator facerwkv::NAME; `call` runs it."""

    def register(function: Callable) -> Any:
        made: Any = torch.library.custom_op(f"facerwkv::{name}", function, mutates_args=(), device_types="cpu")
        made.function = function
        return made

    return register


def call(made: Any, *inputs: torch.Tensor) -> Any:
    """Run an operator; where nothing watches, without torch's dispatcher: it takes 50 µs."""
    return made(*inputs) if watched(*inputs) else made.function(*inputs)


def watched(*inputs: torch.Tensor) -> bool:
    """Whether autograd, a compiler or another tracer must see what is done with the inputs."""
    return (torch.is_grad_enabled() and any(x.requires_grad for x in inputs)) or traced(*inputs)


def traced(*inputs: torch.Tensor) -> bool:
    """Whether a compiler or another tracer must see what is done with the inputs."""
    tracer = torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack()
    return bool(tracer or torch._C._are_functorch_transforms_active()) or not all(type(x) in PLAIN for x in inputs)


def pointer(tensor: torch.Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())
