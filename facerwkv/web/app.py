"""The service: its parts put together."""

from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.requests import ClientDisconnect

from facerwkv.core.errors import InputError
from facerwkv.inference.predictor import Predictor
from facerwkv.web import live, routes
from facerwkv.web.answers import VERSION, about
from facerwkv.web.guard import Guard, Limits
from facerwkv.web.jobs import Jobs
from facerwkv.web.predictions import Predictions
from facerwkv.web.uploads import Room

ABOUT = """The apparent expressions in images and videos. Nothing is stored: images stay in memory until they are
answered, videos in a temporary folder until they are deleted, expire, or the service ends."""


def create_app(
    predictor: Predictor, limits: Limits | None = None, token: str | None = None, local: bool = True
) -> FastAPI:
    """The service as an ASGI application; its threads and its temporary folder are there while it runs.

    The predictor's detector must serve several threads (`ThreadDetectors`). With a `token`, requests need it. `local`:
    only requests to a loopback name are answered.
    """
    limits = limits or Limits()
    app = FastAPI(
        title="FaceRWKV",
        description=ABOUT,
        version=VERSION,
        docs_url=None,  # these pages load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        lifespan=_running,
    )
    app.state.predictor, app.state.limits, app.state.about = predictor, limits, about(predictor, limits)
    app.state.memory = Room(limits.memory_bytes)
    app.state.streams, app.state.explanations = Room(limits.streams), Room(limits.waiting)
    app.include_router(routes.router)
    app.include_router(live.router)
    app.add_middleware(Guard, token=token, local=local)
    app.add_exception_handler(InputError, _wrong_input)
    app.add_exception_handler(RequestValidationError, _wrong_option)
    app.add_exception_handler(AnyHTTPException, _refused)
    app.add_exception_handler(ClientDisconnect, _gone)
    return app


@asynccontextmanager
async def _running(app: FastAPI) -> AsyncIterator[None]:
    state = app.state
    state.predictions, state.jobs = Predictions(state.predictor, state.limits), Jobs(state.predictor, state.limits)
    state.explainer = ThreadPoolExecutor(1)  # a method hooks into the model, so one at a time
    try:
        yield
    finally:
        state.jobs.close()
        state.predictions.close()
        state.explainer.shutdown(cancel_futures=True)


async def _wrong_input(request: Request, error: Exception) -> Response:
    return JSONResponse({"detail": str(error)}, 400)


async def _wrong_option(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    problems = [f"{problem['loc'][-1]} is {problem.get('input')!r}: {problem['msg']}." for problem in error.errors()]
    return JSONResponse({"detail": " ".join(problems)}, 400)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, AnyHTTPException)
    detail = error.detail
    if not isinstance(error, HTTPException):  # the router's own
        detail = "There is nothing here; /openapi.json lists what there is."
        detail = f"{request.method} is not for this address." if error.status_code == 405 else detail
    return JSONResponse({"detail": detail}, error.status_code, error.headers)


async def _gone(request: Request, error: Exception) -> Response:
    """The client left in the middle of its upload; nobody reads this."""
    return Response(status_code=400)
