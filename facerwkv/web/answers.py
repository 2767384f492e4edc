"""What the service takes and answers: options, results, and facts of itself and its model."""

from importlib.metadata import version
from typing import Annotated, Any

from pydantic import Field

from facerwkv.core.metrics import score_titles
from facerwkv.inference.explain import methods_for
from facerwkv.inference.options import Options
from facerwkv.inference.predictor import Predictor
from facerwkv.inference.results import Result
from facerwkv.media.draw import COLOURS
from facerwkv.models.card import INTENDED, licence
from facerwkv.models.folder import without_paths
from facerwkv.web.guard import Limits

VERSION = version("facerwkv")


class ServiceOptions(Options):
    """The options of a request. A query may contain the token too, which opens the service and is no option."""

    token: Annotated[str | None, Field(exclude=True)] = None
    """What the service's owner gave."""


def as_json(result: Result) -> dict[str, Any]:
    return result.to_dict()


def about(predictor: Predictor, limits: Limits) -> dict[str, Any]:
    """The model: what it knows and takes, what it may be used for; and what may be asked of the service."""
    checkpoint = predictor.checkpoint
    transform, methods = checkpoint.transform, methods_for(predictor)
    return {
        "name": checkpoint.title,
        "labels": list(predictor.labels),
        "colours": [COLOURS[i % len(COLOURS)] for i in range(len(predictor.labels))],
        "transform": transform.model_dump(mode="json"),
        "mode": "face" if transform.sees_faces else "scene",
        "modes": ["face"] if transform.crop == "both" else ["face", "scene"],
        "methods": methods,
        "licence": licence(checkpoint.card),
        "notice": checkpoint.notice,
        "card": without_paths(checkpoint.card),
        "scores": score_titles(),
        "intended_use": " ".join(INTENDED.replace("*", "").split()),
        "limits": limits.model_dump(),
        "version": VERSION,
    }
