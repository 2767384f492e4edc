"""What every public call shares: its inputs are checked, a form is chosen, and the one in C is run."""

import ctypes
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any, NoReturn, TypeVar

import torch
from torch import Tensor
from torch.autograd import forward_ad

from facerwkv.core.errors import InputError
from facerwkv.kernels.native.loading import PLAIN_IS_FASTER, Library, loaded

Form = TypeVar("Form", bound=Callable)
DENSE = torch.strided
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
PLAIN = {Tensor, torch.nn.Parameter}


class Inputs:
    """What a call takes, from a line like "w C, u C, k B T C, state B 3 C": the name and the shape of each tensor.

    A letter is one size wherever it occurs, a number is itself; a leading "..." is any dimensions, the same wherever
    they occur. A name that ends in "*" broadcasts: it may have fewer dimensions, or sizes of 1. One that ends in "?"
    may be None.
    """

    def __init__(self, call: str, line: str, dtypes: tuple[torch.dtype, ...] = FLOATS, **others: torch.dtype):
        self.call, self.line, self.tensors = call, line, []
        for name, *words in map(str.split, line.split(",")):
            known = (others[name],) if name in others else dtypes
            dims: tuple[Any, ...] = tuple(int(word) if word.isdigit() else word for word in words)
            self.tensors.append((name.rstrip("*?"), dims, known, name[-1] if name[-1] in "*?" else ""))
        self.fixed = {dim: dim for _, dims, _, _ in self.tensors for dim in dims if isinstance(dim, int)}

    def check(self, first: Tensor, *others: Tensor | None) -> torch.dtype:
        """The dtype to compute in: float64 where an input has it, else float32.

        InputError unless they are dense tensors of these shapes and dtypes on one device. Reads nothing but what
        describes them.
        """
        given, sizes, exact = (first, *others), self.fixed.copy(), torch.float32
        for (name, dims, dtypes, mark), x in zip(self.tensors, given, strict=True):
            if x is None and mark == "?":
                continue
            if not isinstance(x, Tensor) or x.dtype not in dtypes or x.layout != DENSE or x.is_nested:
                self._refuse_kind(name, dtypes, x)
            if x.device != first.device:
                devices = f"{self.tensors[0][0]} on {first.device}, {name} on {x.device}"
                raise InputError(f"{self.call} takes tensors on one device, not {devices}.")
            if x.dtype == torch.float64:
                exact = torch.float64
            shape: tuple[Any, ...] = x.shape
            if dims[0] == "..." and (rest := len(shape) - len(dims) + 1) >= 0:
                shape = (shape[:rest], *shape[rest:])
            if len(shape) != len(dims):
                if mark != "*" or len(shape) > len(dims):
                    self._refuse_shapes(given, f"{name} has {x.ndim} dimensions")
                dims = dims[len(dims) - len(shape) :]
            for dim, size in zip(dims, shape, strict=True):
                if sizes.setdefault(dim, size) != size and not (mark == "*" and size == 1):
                    self._refuse_shapes(given, self._difference(dim, sizes[dim], name, size))
        return exact

    def _difference(self, dim: Any, known: Any, name: str, size: Any) -> str:
        if dim in self.fixed:
            return f"{name} has {size} where {dim} belongs"
        holder = next(other for other, dims, _, _ in self.tensors if dim in dims)
        known, size = (tuple(x) if isinstance(x, tuple) else x for x in (known, size))
        return f"{dim} is {known} in {holder} and {size} in {name}"

    def _refuse_kind(self, name: str, dtypes: tuple[torch.dtype, ...], x: Any) -> NoReturn:
        wanted, kind = ", ".join(str(dtype).removeprefix("torch.") for dtype in dtypes), type(x).__name__
        if isinstance(x, Tensor):
            kind = "nested" if x.is_nested else str(x.dtype if x.layout == DENSE else x.layout)
        raise InputError(f"{self.call} takes {name} as a dense tensor in {wanted}, not as {kind}.")

    def _refuse_shapes(self, given: Sequence[Tensor | None], reason: str) -> NoReturn:
        """InputError with the shapes that belong and those that came: "k and v (B, T, C), not (2, 3, 5), (2, 3, 4)"."""
        wanted: dict[tuple, list[str]] = {}
        for (name, dims, _, _), x in zip(self.tensors, given, strict=True):
            if x is not None:
                wanted.setdefault(dims, []).append(name)
        parts = []
        for dims, names in wanted.items():
            shape = ", ".join(map(str, dims)) + ("," if len(dims) == 1 and dims[0] != "..." else "")
            parts.append(f"{' and '.join(filter(None, [', '.join(names[:-1]), names[-1]]))} ({shape})")
        shapes = ", ".join(str(tuple(x.shape)) if isinstance(x, Tensor) else str(x) for x in given if x is not None)
        raise InputError(f"{self.call} takes {', '.join(parts)}, not {shapes}: {reason}.")


def choose(implementations: Mapping[str, Form], name: str, auto: str = "auto") -> Form:
    """The form called `name`; "auto" is the one called `auto`.

    A public call passes on what it was asked for, so an unknown name is refused here: InputError with the known ones.
    """
    if name == "auto":
        name = auto
    if name not in implementations:
        raise InputError(f"Unknown implementation {name!r}. Choose auto, {', '.join(implementations)}.")
    return implementations[name]


def fastest(name: str, k: Tensor, exact: torch.dtype) -> str:
    """The implementation of wkv4 or biwkv that "auto" means, with keys like k (B, T, C) and a dtype to compute in."""
    if transformed():
        return "reference"
    if refusal(name, k, dtype=exact, shapes=True) is None:
        return "native"
    if k.is_cuda and exact == torch.float32:
        from facerwkv.kernels.triton import runs

        if runs(k):
            return "triton"
    return "chunked"


def cast(dtype: torch.dtype, *tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors in a dtype. Asking first is cheaper than a conversion that changes nothing."""
    return tuple(x if x.dtype == dtype else x.to(dtype) for x in tensors)


def narrowed(name: str, exact: torch.dtype, w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    """The inputs in the dtype to compute in; keys and values as they are for Triton, whose loads convert."""
    if name == "triton":
        return *cast(exact, w, u), k, v
    return cast(exact, w, u, k, v)


def constant(function: Form) -> Form:
    """Tell torch.compile that the function's result never changes.

    This is torch.compiler.assume_constant_result, which imports torch._dynamo (1.7 s) to set the same mark.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


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


def derived(*inputs: Tensor | None) -> bool:
    """Whether one of these has a forward-mode derivative, or a transform of torch.func is under way in this thread:
    unlike `transformed`, this does not change between a choice and its call because of what other threads do."""
    if torch.compiler.is_compiling():
        return False
    if torch._C._are_functorch_transforms_active():
        return True
    given = inputs if forward_ad._current_level >= 0 else ()
    return any(x is not None and forward_ad.unpack_dual(x).tangent is not None for x in given)


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
    if derived(*inputs):
        return f"The native {name} has no forward-mode derivative, nor torch.func's transforms."
    return None


def require(refused: str | None, instead: str) -> None:
    """InputError with a `refusal`, if there is one, and the implementation to use instead."""
    if refused:
        raise InputError(f"{refused} Or use implementation={instead!r}.")


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


def native(source: str, name: str, *inputs: Tensor | None, instead: str = "chunked", shapes: bool = False) -> Any:
    """The operator facerwkv::NAME, which native/SOURCE.py registers, of its inputs.

    InputError with the implementation to use instead where it has a `refusal`.
    """
    require(refusal(name, *(x for x in inputs if x is not None), shapes=shapes), instead)
    _register(source)
    operator = getattr(torch.ops.facerwkv, name).default
    if watched(*inputs):
        return operator(*inputs)
    return operator.function(*inputs)  # without torch's dispatcher, which takes 50 µs


@constant
def _register(source: str) -> bool:
    return import_module(f"facerwkv.kernels.native.{source}") is not None


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


def gradients_again(form: Callable[..., Any], inputs: Sequence[Tensor], grads: Sequence[Tensor | None]) -> tuple:
    """The gradients of form(*inputs)'s inputs for those of its outputs, by way of its own graph; None where not wanted.

    It is for a backward pass whose own formula will not do: with gradients enabled, what comes out is differentiable.
    """
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        inputs = [x.view_as(x) for x in inputs]  # one may have been computed from another: these are apart
        outputs = form(*inputs)
        outputs = (outputs,) if isinstance(outputs, Tensor) else outputs
        pairs = [(y, grad) for y, grad in zip(outputs, grads, strict=True) if grad is not None and y.requires_grad]
        wanted = [x for x in inputs if x.requires_grad]
        ys, of_ys = zip(*pairs, strict=True) if pairs else ((), ())
        found = iter(torch.autograd.grad(ys, wanted, of_ys, create_graph=again, allow_unused=True))
    return tuple(next(found) if x.requires_grad else None for x in inputs)
