"""The service as an ASGI application: routes, state, limits and the answers to errors, put together."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response, WebSocket
from fastapi.exceptions import RequestValidationError
from fastapi.requests import HTTPConnection
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.requests import ClientDisconnect

from facerwkv.core.errors import InputError
from facerwkv.export.browser import SHARED
from facerwkv.inference.options import sentence
from facerwkv.inference.predictor import Predictor
from facerwkv.web import routes
from facerwkv.web.answers import VERSION, about
from facerwkv.web.guard import HEADERS, Guard, Limits, require_token
from facerwkv.web.jobs import Jobs
from facerwkv.web.predictions import Predictions
from facerwkv.web.threads import join
from facerwkv.web.uploads import Quota

ABOUT = """The apparent expressions in images and videos. Nothing is stored: images stay in memory until they are
answered, videos in a temporary folder until they are deleted, expire, or the service stops."""
CLOSING = 1.0
"""Seconds in which the threads end what they work on, once the service stops."""
PAGE = Path(__file__).with_name("page")

public = APIRouter()
"""The routes that need no token."""


@public.get("/", include_in_schema=False)
async def page() -> Response:
    return FileResponse(PAGE / "index.html")


@public.get("/healthz")
async def health() -> dict[str, str]:
    """Whether the service runs."""
    return {"status": "ok", "version": VERSION}


def create_app(
    predictor: Predictor, limits: Limits | None = None, token: str | None = None, local: bool = True
) -> FastAPI:
    """The service as an ASGI application; its threads and its temporary folder exist while it runs.

    With a `token`, requests need it. `local`: only requests whose Host header names the loopback interface are
    answered.
    """
    limits = limits or Limits()
    app = FastAPI(
        title="FaceRWKV",
        description=ABOUT,
        version=VERSION,
        openapi_url=None,  # it needs the token
        redirect_slashes=False,
        lifespan=_running,
    )
    state = app.state
    state.predictor, state.limits, state.token = predictor, limits, token
    state.about = about(predictor, limits)
    state.memory, state.streams = Quota(limits.memory_bytes), Quota(limits.streams)
    state.explanations = Quota(limits.waiting)

    known = [Depends(require_token)]
    app.include_router(public)
    app.include_router(routes.router, dependencies=known)
    app.add_api_route("/openapi.json", app.openapi, dependencies=known, include_in_schema=False)
    files = StaticFiles(directory=PAGE)
    files.all_directories.append(SHARED)
    app.mount("/page", files)
    app.add_middleware(Guard, local=local)
    for kind in (InputError, RequestValidationError, AnyHTTPException, ClientDisconnect, Exception):
        app.add_exception_handler(kind, _answer_error)
    return app


@asynccontextmanager
async def _running(app: FastAPI) -> AsyncIterator[None]:
    state = app.state
    state.predictions, state.jobs = Predictions(state.predictor, state.limits), Jobs(state.predictor, state.limits)
    state.explaining = asyncio.Lock()  # one at a time: the other cores go on predicting
    try:
        yield
    finally:
        state.jobs.stop()
        state.predictions.stop()
        join([state.jobs.worker, *state.predictions.threads], CLOSING)
        state.jobs.remove_folder()


async def _answer_error(connection: HTTPConnection, error: Exception) -> Response:
    """{"detail": a sentence}, in the status that fits."""
    status, detail, headers = 500, "The service failed. The reason is in its log.", dict(HEADERS)
    if isinstance(error, ClientDisconnect):
        return Response(status_code=400)  # nobody reads it
    if isinstance(error, InputError):
        status, detail = 400, str(error)
    if isinstance(error, RequestValidationError):
        status, detail = 400, " ".join(map(sentence, error.errors()))
    if isinstance(error, AnyHTTPException):
        status, detail, headers = error.status_code, error.detail, dict(error.headers or {})
        if not isinstance(error, HTTPException):  # the router's own
            detail = "There is nothing here; /openapi.json lists what there is."
            if status == 405 and isinstance(connection, Request):
                detail = f"{connection.method} is not allowed for this address."
    response = JSONResponse({"detail": detail}, status, headers)
    if isinstance(connection, WebSocket):
        await connection.send_denial_response(response)
    return response
