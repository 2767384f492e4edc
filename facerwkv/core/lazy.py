"""Public names that are imported when they are first asked for (PEP 562), so that importing a package costs nothing."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from facerwkv.core.errors import InputError
from facerwkv.core.packages import lacking


def lazy_names(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """A package's `__getattr__` and `__dir__`; `homes` maps each public name to its module below the package."""

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            return getattr(import_module(f"{package}.{homes[name]}"), name)
        except (ImportError, OSError) as error:
            if what := lacking(error):
                raise InputError(f"{package}.{name} needs {what}") from error
            raise

    return get, lambda: sorted(homes)
