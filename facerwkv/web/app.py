"""The service as an ASGI application: routes, state, limits and the answers to errors, put together."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response, WebSocket
from fastapi.exceptions import RequestValidationError
from fastapi.requests import HTTPConnection
from fastapi.responses import FileResponse, JSONResponse
from fastapi.routing import APIRoute
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match

from facerwkv.core.errors import InputError
from facerwkv.export.browser import SHARED
from facerwkv.inference.options import sentence
from facerwkv.inference.predictor import Predictor
from facerwkv.web import routes
from facerwkv.web.answers import VERSION, about
from facerwkv.web.guard import HEADERS, Guard, Limits, Tries, require_token
from facerwkv.web.jobs import Jobs
from facerwkv.web.observe import Figures, Observer
from facerwkv.web.openapi import describe
from facerwkv.web.predictions import Predictions
from facerwkv.web.schemas import Health, problems
from facerwkv.web.shares import Quota
from facerwkv.web.threads import join

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


@public.get("/healthz", response_model=Health, responses=problems())
async def health() -> Response:
    """Whether the service runs."""
    return JSONResponse({"status": "ok", "version": VERSION})


ROUTES = [route for route in (*public.routes, *routes.router.routes) if isinstance(route, APIRoute)]


def create_app(
    predictor: Predictor,
    limits: Limits | None = None,
    token: str | None = None,
    local: bool = True,
    hosts: Sequence[str] = (),
    root_path: str = "",
    access_log: bool = False,
) -> FastAPI:
    """The service as an ASGI application; its threads and its temporary folder exist while it runs.

    With a `token`, requests need it. `local`: only requests whose Host header names the loopback interface are
    answered, or one of `hosts`; those alone where it is not. `root_path` is the prefix of all addresses behind a proxy,
    which may leave it away or not. With `access_log`, the logger "facerwkv.access" gets a line per request.
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
    state.predictor, state.limits, state.token, state.root_path = predictor, limits, token, root_path
    state.about, state.figures, state.tries = about(predictor, limits), Figures(), Tries()
    state.memory, state.streams = Quota(limits.memory_bytes), Quota(limits.streams)
    state.disk, state.explanations = Quota(limits.disk_bytes), Quota(limits.waiting)

    known = [Depends(require_token)]
    app.include_router(public)
    app.include_router(routes.router, dependencies=known)
    app.openapi = partial(describe, app)  # type: ignore[method-assign]
    app.add_api_route("/openapi.json", app.openapi, dependencies=known, include_in_schema=False)
    files = StaticFiles(directory=PAGE)
    files.all_directories.append(SHARED)
    app.mount("/page", files)
    app.add_middleware(Guard, local=local, hosts=hosts, root_path=root_path)
    app.add_middleware(Observer, figures=state.figures, log=access_log)
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
                matching = [each for each in ROUTES if each.matches(connection.scope)[0] is not Match.NONE]
                if allowed := sorted({method for each in matching for method in each.methods or ()}):
                    headers["Allow"] = ", ".join(allowed)  # the router names those of the first route alone
    response = JSONResponse({"detail": detail}, status, headers)
    if isinstance(connection, WebSocket):
        await connection.send_denial_response(response)
    return response
