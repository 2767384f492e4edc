"""Settings that are frozen, typed, and refuse a key they do not know."""

import json
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from facerwkv.core.errors import InputError, shown

Count = Annotated[int, Field(ge=1)]
Side = Annotated[int, Field(ge=1, le=10_000)]
"""Of an image, in pixels."""
LARGEST = 65_536
Size = Annotated[int, Field(ge=1, le=LARGEST)]
"""Of a layer."""
Share = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Text = Annotated[str, Field(min_length=1, max_length=2_000)]


def utf8(name: str) -> str:
    """ValueError where a file's or folder's name is no UTF-8, as all that is written must be."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ValueError(
            "The name of the folder or file is no UTF-8, and runs and reports write it down. Rename it, or give a link "
            "to it that has another name"
        ) from None
    return name


LISTED = 10  # problems in a message; the rest is counted


class Settings(BaseModel):
    """Base of the sections of a recipe and of every stored configuration."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True, protected_namespaces=()
    )

    @classmethod
    def parse(cls, values: Any, where: str = "", strict: bool = False) -> Self:
        """Build from plain values, as YAML and JSON give them. InputError names the key, its value and what fits.

        strict: JSON that a program wrote, in which a number in quotes is none.
        """
        try:
            return cls.model_validate_json(json.dumps(values), strict=True) if strict else cls.model_validate(values)
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
                    message = f"{key}: {message} (given: {shown(problem['input'])})."
                sentences.append(message)
            more = [f"And {len(sentences) - LISTED} more."] if len(sentences) > LISTED else []
            raise InputError(" ".join(sentences[:LISTED] + more)) from error
