"""The JSON schema of a result: what each line of `predict --json` and each element of a .json file is."""

from typing import Any

SHARE = {"type": "number", "minimum": 0, "maximum": 1}
FACE: dict[str, Any] = {
    "track": {"type": "integer", "minimum": 1, "description": "of a video: the number that a face keeps"},
    "box": {
        "type": "array",
        "items": {"type": "integer", "minimum": 0},
        "minItems": 4,
        "maxItems": 4,
        "description": "x1, y1, x2, y2 in pixels of the upright image; not there for a whole image",
    },
    "detection": {"type": ["number", "null"], "description": "the detector's score, 0 to 1; null if it gives none"},
    "label": {"type": "string", "description": "the likeliest label"},
    "score": SHARE | {"description": "its probability"},
    "unsure": {"type": "boolean", "description": "with --threshold: whether the score is below it"},
    "probs": {"type": "object", "additionalProperties": SHARE, "description": "label → probability"},
}
RESULT: dict[str, Any] = {
    "source": {"type": "string", "description": "the image or the video, as it was named"},
    "time": {"type": "number", "description": "of a video: seconds"},
    "frame": {"type": "integer", "minimum": 0, "description": "of a video: the frame's number"},
    "status": {"enum": ["ok", "no_face", "unreadable"]},
    "size": {
        "type": "array",
        "items": {"type": "integer", "minimum": 0},
        "minItems": 2,
        "maxItems": 2,
        "description": "width and height of the upright image in pixels; 0, 0 if it is unreadable",
    },
    "faces": {
        "type": "array",
        "description": "by rows from the top, in a row from the left",
        "items": {
            "type": "object",
            "properties": FACE,
            "required": ["label", "score", "probs"],
            "additionalProperties": False,
        },
    },
    "message": {"type": "string", "description": "why the source counts as failed; not there if it does not"},
    "drawn": {"type": "string", "description": "with --save-media: the file of the drawing"},
}
SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "A result of facerwkv predict",
    "type": "object",
    "properties": RESULT,
    "required": ["source", "status", "size", "faces"],
    "additionalProperties": False,
}
