"""What every public call shares: its inputs are checked, and derivatives of other kinds find a form that has them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

import torch
from torch import Tensor

from facerwkv.core.errors import InputError

Form = TypeVar("Form", bound=Callable)
DENSE = torch.strided
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


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


def cast(dtype: torch.dtype, *tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors in a dtype. Asking first is cheaper than a conversion that changes nothing."""
    return tuple(x if x.dtype == dtype else x.to(dtype) for x in tensors)


def narrowed(name: str, exact: torch.dtype, w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    """The inputs in the dtype to compute in; keys and values as they are for Triton, whose loads convert."""
    if name == "triton":
        return *cast(exact, w, u), k, v
    return cast(exact, w, u, k, v)


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


def constant(function: Form) -> Form:
    """Tell torch.compile that the function's result never changes.

    This is torch.compiler.assume_constant_result, which imports torch._dynamo (1.7 s) to set the same mark.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


def choose(implementations: Mapping[str, Form], name: str, auto: str = "auto") -> Form:
    """The form called `name`; "auto" is the one called `auto`.

    A public call passes on what it was asked for, so an unknown name is refused here: InputError with the known ones.
    """
    if name == "auto":
        name = auto
    if name not in implementations:
        raise InputError(f"Unknown implementation {name!r}. Choose auto, {', '.join(implementations)}.")
    return implementations[name]
