"""The C kernels, if a compiler was there at install time; if not, `library()` is None and `problem()` says why."""

import ctypes
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from facerwkv.core.errors import InputError
from facerwkv.kernels.calls import Inputs, constant, gradients_again
from facerwkv.kernels.native.loading import PLAIN_IS_FASTER, Library, loaded

_LIBRARY = torch.library.Library("facerwkv", "FRAGMENT")
PLAIN = {Tensor, torch.nn.Parameter}


@constant
def library() -> Library | None:
    """The compiled kernels at this processor's level, or None."""
    found = loaded()
    return found if isinstance(found, Library) else None


def problem() -> str | None:
    """Why there are no compiled kernels, and what to do; None when there are."""
    found = loaded()
    return None if isinstance(found, Library) else str(found)


@constant
def missing(name: str) -> str | None:
    """Why there is no C kernel called `name`, and what to do; None when there is one."""
    if hasattr(library(), f"{name}_forward"):
        return None
    return problem() or f"The C kernels were built before there was a {name}: install facerwkv again."


@constant
def pays(name: str) -> bool:
    """Whether the C kernel called `name` is faster here than PyTorch's forms; where there is none, it is not."""
    here = library()
    return here is not None and here.level not in PLAIN_IS_FASTER.get(name, ())


def transformed() -> bool:
    """Whether forward-mode derivatives or one of torch.func's transforms may be under way, as far as eager code knows.

    Only plain operations of PyTorch have all of these: the references take them. Forward mode is PyTorch's state for
    all threads: while one is in it, the others compute by the references too.
    """
    if torch.compiler.is_compiling():
        return False
    return forward_ad._current_level >= 0 or torch._C._are_functorch_transforms_active()


def refusal(name: str, *inputs: Tensor, dtype: torch.dtype | None = None, shapes: bool = False) -> str | None:
    """Why the C kernel called `name` cannot take the inputs, as a sentence; None when it can.

    It computes in float32. dtype: what the caller will convert them to; shapes: whether inputs on the meta device will
    do, for which an operator says what shape comes out.
    """
    if reason := missing(name):
        return reason
    for x in inputs:
        if (dtype or x.dtype) != torch.float32 or not (x.is_cpu or (shapes and x.is_meta)):
            return f"The native {name} runs on the CPU in float32, not on {x.device} in {dtype or x.dtype}."
    if transformed():
        return f"The native {name} has no forward-mode derivative, nor torch.func's transforms."
    return None


def require(refused: str | None, instead: str) -> None:
    """InputError with a `refusal`, if there is one, and the implementation to use instead."""
    if refused:
        raise InputError(f"{refused} Or use implementation={instead!r}.")


def operator(name: str, shapes: str, schema: str | None = None) -> Callable[[Callable], Any]:
    """Registers a function on CPU tensors as torch's operator facerwkv::NAME; `call` runs it.

    shapes: those of its tensors, a line for `Inputs`, checked when torch's dispatcher runs it: the public calls check
    themselves. schema: its signature in torch's words; None reads it off the annotations.
    """
    inputs = Inputs(f"facerwkv::{name}", shapes, (torch.float32,))

    def register(function: Callable) -> Any:
        def checked(*given: Any) -> Any:
            inputs.check(*(x for x in given if not isinstance(x, int)))
            return function(*given)

        signature = schema or torch.library.infer_schema(function, mutates_args=())
        # Not torch.library.custom_op: to run one with gradients imports torch._dynamo, 1.7 s.
        _LIBRARY.define(name + signature, tags=torch.Tag.pt2_compliant_tag)
        _LIBRARY.impl(name, checked, "CPU")
        made: Any = getattr(torch.ops.facerwkv, name).default
        made.function = function
        made.register_fake = partial(torch.library.register_fake, made, lib=_LIBRARY)
        made.register_autograd = partial(torch.library.register_autograd, made, lib=_LIBRARY)
        return made

    return register


def differentiate(forward: Any, backward: Any, form: Callable[..., Any]) -> None:
    """Make operator `backward`, which takes the inputs and then the gradients of the outputs, `forward`'s derivative.

    What `backward` returns is shaped like `forward`'s inputs. form: the same in PyTorch's operations, for gradients
    that are differentiated again.
    """

    def gradients(ctx: Any, *grads: Tensor) -> Any:
        if torch.is_grad_enabled():
            return gradients_again(form, ctx.saved_tensors, grads)
        return backward(*ctx.saved_tensors, *grads)

    forward.register_autograd(gradients, setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs))


def call(made: Any, *inputs: Tensor | None) -> Any:
    """Run an operator; where nothing watches, without torch's dispatcher: it takes 50 µs."""
    return made(*inputs) if watched(*inputs) else made.function(*inputs)


def watched(*inputs: Tensor | None, autograd: bool = True) -> bool:
    """Whether a compiler, another tracer or (where it counts here) autograd must see what is done with the inputs.

    So must what has no memory on the CPU, or memory that holds something else than the numbers.
    """
    if torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() or transformed():
        return True
    if autograd and torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs):
        return True
    for x in inputs:
        if x is not None and (type(x) not in PLAIN or not x.is_cpu or x.is_neg() or x._is_zerotensor()):
            return True
    return False


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
