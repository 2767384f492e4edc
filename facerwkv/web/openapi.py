"""The OpenAPI document: FastAPI's, with what it cannot know of this service."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from facerwkv.inference.options import Kind, facts

KINDS: dict[str, Kind] = {"/predict": "image", "/explain": "image", "/jobs": "video", "/stream": "stream"}
"""Which options a path takes: those of these kinds."""
PUBLIC = ("/healthz",)
SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "query": {"type": "apiKey", "in": "query", "name": "token", "description": "Where a browser sets no headers."},
}


def describe(app: FastAPI) -> dict[str, Any]:
    """The document, made once."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        if app.state.root_path:
            document["servers"] = [{"url": app.state.root_path}]
        if app.state.token:
            document["components"]["securitySchemes"] = SCHEMES
        for path, methods in document["paths"].items():
            for operation in methods.values():
                _correct(operation, KINDS.get(path), bool(app.state.token) and path not in PUBLIC)
        app.openapi_schema = document
    return app.openapi_schema


def _correct(operation: dict[str, Any], kind: Kind | None, secured: bool) -> None:
    """An option that this kind of source does not take is no parameter, and the token is a security scheme."""
    known = facts()
    operation["parameters"] = [
        each
        for each in operation.get("parameters", ())
        if each["name"] != "token"
        and (each["name"] not in known or (kind in known[each["name"]].kinds and known[each["name"]].service))
    ]
    for each in operation["parameters"]:
        if each["name"] in known:
            each["schema"] = {"anyOf": [each["schema"], {"const": "", "description": "as if it were not given"}]}
    if secured:
        operation["security"] = [{name: []} for name in SCHEMES]
