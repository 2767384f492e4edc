"""The recurrences: each file holds a reference that is the definition, fast forms of it, and one public call."""

from collections.abc import Callable, Mapping
from typing import TypeVar

from facerwkv.core.errors import InputError

Form = TypeVar("Form", bound=Callable)


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
