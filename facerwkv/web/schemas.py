"""The service's responses as its OpenAPI document describes them. They are written without these, in plain values."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, WithJsonSchema

from facerwkv.inference.schema import SCHEMA
from facerwkv.web.videos import FILES, State

Share = Annotated[float, Field(ge=0, le=1)]
Box = Annotated[list[float], Field(min_length=4, max_length=4)]


class Problem(BaseModel):
    detail: str
    """A sentence: what is wrong, and what to do."""


class Health(BaseModel):
    status: Literal["ok"]
    version: str


Result = Annotated[dict[str, Any], WithJsonSchema({name: part for name, part in SCHEMA.items() if name != "$schema"})]


class Results(BaseModel):
    results: list[Result]


class Explanation(BaseModel):
    label: str
    prob: Share
    method: str
    box: Box | None
    scores: list[list[float]]


class Explanations(BaseModel):
    explanations: list[Explanation]


class Added(BaseModel):
    id: str
    state: State


class Job(Added):
    source: str
    progress: Share | None
    frames: int
    fps: float
    seconds: float | None
    message: str
    files: list[Literal[FILES]]  # type: ignore[valid-type]


class Jobs(BaseModel):
    jobs: list[Job]


class Meta(BaseModel):
    name: str
    labels: list[str]
    colours: list[str]
    transform: dict[str, Any]
    mode: Literal["face", "scene"]
    modes: list[Literal["face", "scene"]]
    methods: list[str]
    licence: str
    notice: str | None
    card: dict[str, Any]
    scores: dict[str, Any]
    intended_use: str
    limits: dict[str, int]
    version: str


PROBLEMS = {
    400: "An option, or what was sent, cannot be used.",
    401: "The token is missing or wrong.",
    403: "The Host or Origin header names another machine.",
    404: "There is no such video, or no such file of it.",
    408: "The upload took too long, or stood still while others waited.",
    409: "The video is not done.",
    413: "What was sent is larger than a limit.",
    415: "What was sent is not of a kind that is taken here.",
    416: "The file has no such range.",
    422: "The form or the JSON lacks something.",
    426: "Connect with a WebSocket.",
    429: "Too many videos wait, or too many wrong tokens came from this address.",
    500: "The service failed.",
    503: "The service is busy.",
}


def problems(*codes: int) -> dict[int | str, dict[str, Any]]:
    """The responses of a route other than the good one."""
    return {code: {"model": Problem, "description": PROBLEMS[code]} for code in (*codes, 403, 500)}
