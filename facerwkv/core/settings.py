"""Settings that are frozen, typed, and refuse a key they do not know."""

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from facerwkv.core.errors import InputError

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]


class Settings(BaseModel):
    """Base of every part of a recipe and of every stored configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=())

    @classmethod
    def parse(cls, values: Mapping[str, Any], where: str = "") -> Self:
        """Build from plain values, as YAML and JSON give them. InputError names the key, its value and what fits."""
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise InputError(" ".join(_sentence(cls, problem, where) for problem in error.errors())) from error


def _sentence(cls: type[BaseModel], problem: Any, where: str) -> str:
    key = ".".join([*([where] if where else []), *(str(part) for part in problem["loc"])])
    if problem["type"] != "extra_forbidden":
        message = problem["msg"].removeprefix("Value error, ")
        return f"{key or cls.__name__}: {message} (given: {problem['input']!r})." if key else f"{message}"
    owner: Any = cls
    for part in problem["loc"][:-1]:
        field = getattr(owner, "model_fields", {}).get(part)
        owner = field.annotation if field else owner
    known = ", ".join(getattr(owner, "model_fields", {}))
    return f"Unknown key {key!r}. Known keys there: {known}."
