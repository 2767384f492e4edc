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
    """Base of the sections of a recipe and of every stored configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=())

    @classmethod
    def parse(cls, values: Mapping[str, Any], where: str = "") -> Self:
        """Build from plain values, as YAML and JSON give them. InputError names the key, its value and what fits."""
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            sentences = []
            for problem in error.errors():
                key = ".".join([*([where] if where else []), *map(str, problem["loc"])])
                message: str = problem["msg"].removeprefix("Value error, ")
                owner: Any = cls
                if problem["type"] == "extra_forbidden":
                    for name in problem["loc"][:-1]:
                        field = getattr(owner, "model_fields", {}).get(name)
                        owner = field.annotation if field else owner
                    known = ", ".join(getattr(owner, "model_fields", {}))
                    message = f"Unknown key {key!r}. Known keys there: {known}."
                elif key:
                    message = f"{key}: {message} (given: {problem['input']!r})."
                sentences.append(message)
            raise InputError(" ".join(sentences)) from error
