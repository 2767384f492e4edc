"""The C kernels, if a compiler was there at install time; if not, `library()` is None and `problem()` says why."""

import ctypes
from collections.abc import Callable, Iterable
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from facerwkv.core.errors import InputError

FOLDER = Path(__file__).parent
PLAIN = {Tensor, torch.nn.Parameter}
CPU = ("cpu",)
SHAPED = ("cpu", "meta")  # on the latter an operator only says what shape comes out


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


@torch.compiler.assume_constant_result
def missing(name: str) -> str | None:
    """Why there is no C kernel called `name`, and what to do; None when there is one."""
    if hasattr(library(), f"{name}_forward"):
        return None
    return problem() or f"The C kernels were built before there was a {name}: install facerwkv again."


def refusal(name: str, *inputs: Tensor, devices: tuple[str, ...] = CPU, cast: bool = False) -> str | None:
    """Why the C kernel called `name` cannot take the inputs, as a sentence; None when it can.

    It computes in float32. With `cast` the caller converts what loses nothing by it: half precision passes.
    """
    if reason := missing(name):
        return reason
    for x in inputs:
        exact = torch.promote_types(x.dtype, torch.float32) if cast else x.dtype
        if x.device.type not in devices or exact != torch.float32:
            return f"The native {name} runs on the CPU in float32, not on {x.device} in {x.dtype}."
    return None


def require(refused: str | None, instead: str) -> None:
    """InputError with a `refusal`, if there is one, and the implementation to use instead."""
    if refused:
        raise InputError(f"{refused} Or use implementation={instead!r}.")


def operator(name: str, schema: str | None = None) -> Callable[[Callable], Any]:
    """Registers a function on CPU tensors as torch's operator facerwkv::NAME; `call` runs it.

    schema: its signature in torch's words; None reads it off the annotations.
    """

    def register(function: Callable) -> Any:
        options: Any = {"mutates_args": (), "device_types": "cpu", "schema": schema}
        made: Any = torch.library.custom_op(f"facerwkv::{name}", function, **options)
        made.function = function
        return made

    return register


def differentiate(forward: Any, backward: Any) -> None:
    """Make operator `backward`, which takes the inputs and then the gradients of the outputs, `forward`'s derivative.

    What `backward` returns is shaped like `forward`'s inputs.
    """
    forward.register_autograd(
        lambda ctx, *grads: backward(*ctx.saved_tensors, *grads),
        setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs),
    )


def call(made: Any, *inputs: Tensor) -> Any:
    """Run an operator; where nothing watches, without torch's dispatcher: it takes 50 µs."""
    return made(*inputs) if watched(*inputs) else made.function(*inputs)


def watched(*inputs: Tensor, autograd: bool = True) -> bool:
    """Whether a compiler, another tracer or (where it counts here) autograd must see what is done with the inputs.

    So must what has no memory on the CPU.
    """
    if autograd and torch.is_grad_enabled() and any(x.requires_grad for x in inputs):
        return True
    if torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack():
        return True
    plain = all(type(x) in PLAIN and x.device.type == "cpu" for x in inputs)
    return not plain or torch._C._are_functorch_transforms_active()


def run(function: str, sizes: Iterable[int], tensors: Iterable[Tensor]) -> int:
    """Call a C function with sizes and with tensors by their address; what it returns means nothing if it is void.

    The tensors must be contiguous, or their strides be among the sizes.
    """
    held = list(tensors)  # none may be freed before the call
    addresses = (ctypes.c_void_p(tensor.data_ptr()) for tensor in held)
    return getattr(library(), function)(*map(ctypes.c_long, sizes), *addresses)


def run_checked(function: str, sizes: Iterable[int], *tensors: Tensor) -> None:
    """`run` for a C function that returns whether it lacked memory: MemoryError then. Inputs may have any strides."""
    if run(function, sizes, (tensor.contiguous() for tensor in tensors)):  # outputs are, so they stay themselves
        raise MemoryError(f"{function} ran out of memory.")


def like(*inputs: Tensor) -> tuple[Tensor, ...]:
    """Empty contiguous tensors of the inputs' shapes."""
    return tuple(torch.empty_like(x, memory_format=torch.contiguous_format) for x in inputs)
