"""What the service says: of itself and its model, and of an image."""

from importlib.metadata import version
from typing import Annotated, Any

import numpy as np
from fastapi import Query

from facerwkv.core.errors import InputError
from facerwkv.inference.explain import METHODS, explain
from facerwkv.inference.predictor import Predictor, notice
from facerwkv.inference.results import Result
from facerwkv.media.draw import COLOURS
from facerwkv.models.card import INTENDED, licence
from facerwkv.models.checkpoint import without_paths
from facerwkv.web.guard import Limits

VERSION = version("facerwkv")
Threshold = Annotated[float, Query(ge=0, le=1)]
"""A label with a score below is unsure."""


def as_json(result: Result, threshold: float | None = None) -> dict[str, Any]:
    result = result if threshold is None else result.with_threshold(threshold)
    return result.to_dict() | {"size": list(result.size)}


def about(predictor: Predictor, limits: Limits) -> dict[str, Any]:
    """The model: what it knows and takes, what it may be used for; and what may be asked of the service."""
    checkpoint = predictor.checkpoint
    transform = checkpoint.transform
    return {
        "name": checkpoint.title,
        "labels": list(predictor.labels),
        "colours": [COLOURS[i % len(COLOURS)] for i in range(len(predictor.labels))],
        "transform": transform.model_dump(mode="json"),
        "mode": "face" if transform.sees_faces else "scene",
        "modes": ["face"] if transform.crop == "both" else ["face", "scene"],
        "methods": [method for method in METHODS if _fits(predictor, method)],
        "licence": licence(checkpoint.card),
        "notice": notice(checkpoint),
        "card": without_paths(checkpoint.card),
        "intended_use": " ".join(INTENDED.replace("*", "").split()),
        "limits": limits.model_dump(),
        "version": VERSION,
    }


def _fits(predictor: Predictor, method: str) -> bool:
    """Whether a method can explain the model, found out on an empty image."""
    try:
        return bool(explain(predictor, np.zeros((64, 64, 3), np.uint8), method, mode="scene"))
    except InputError:
        return False
