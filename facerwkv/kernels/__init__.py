"""The recurrences: each file holds a reference that is the definition, fast forms of it, and one public call."""

from collections.abc import Callable, Mapping
from typing import TypeVar

from facerwkv.core.errors import InputError

Form = TypeVar("Form", bound=Callable)


def choose(implementations: Mapping[str, Form], name: str, auto: str) -> Form:
    """The form called `name`; "auto" is the one called `auto`. InputError lists the known names."""
    if name == "auto":
        name = auto
    if name not in implementations:
        raise InputError(f"Unknown implementation {name!r}. Choose auto, {', '.join(implementations)}.")
    return implementations[name]
