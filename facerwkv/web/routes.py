"""What can be asked of the service over HTTP: small functions that read a request, and call."""

import asyncio
import threading
import time
from collections.abc import Coroutine
from functools import partial
from itertools import count
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Header, HTTPException, Query, Request, WebSocket, WebSocketException
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.requests import ClientDisconnect

from facerwkv.core.errors import InputError
from facerwkv.inference.explain import Explanation, explain
from facerwkv.inference.options import Mode, Options
from facerwkv.inference.results import Result
from facerwkv.inference.stream import Follower
from facerwkv.media.images import NamedImage
from facerwkv.web.answers import ServiceOptions, as_json
from facerwkv.web.schemas import Added, Explanations, Job, Jobs, Meta, Results, problems
from facerwkv.web.threads import in_thread
from facerwkv.web.uploads import read_images, save_video
from facerwkv.web.videos import Cancelled, JobOptions, check_video

router = APIRouter()
Answer = TypeVar("Answer")


def _form(field: str, several: bool = False, also: dict[str, Any] | None = None) -> dict[str, Any]:
    """A form with files in one field, as OpenAPI describes it."""
    file: dict[str, Any] = {"type": "string", "format": "binary"}
    schema = {
        "type": "object",
        "required": [field],
        "properties": {field: {"type": "array", "items": file} if several else file},
    }
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}} | (also or {})}}


_TEXTS = {"type": "array", "minItems": 1, "items": {"type": "string", "contentEncoding": "base64"}}
IMAGES = {"application/json": {"schema": {"type": "object", "required": ["images"], "properties": {"images": _TEXTS}}}}

OWNER = Header(
    alias="Client-Id",
    pattern=r"^[A-Za-z0-9_-]{16,64}$",
    description="A text that only this client knows, such as 32 random hexadecimal digits; it lists its videos.",
)


@router.get("/meta", response_model=Meta, responses=problems(401, 429))
async def meta(request: Request) -> Response:
    """The model, its labels, terms and intended use, and the service's limits."""
    return JSONResponse(request.app.state.about)


FIGURES: dict[int | str, dict[str, Any]] = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}


@router.get("/metrics", response_class=Response, responses=FIGURES | problems(401, 429))
async def metrics(request: Request) -> Response:
    """Figures in Prometheus' text format."""
    state = request.app.state
    now = {
        "facerwkv_images_total": state.predictions.images,
        "facerwkv_faces_total": state.predictions.faces,
        "facerwkv_images_waiting": state.predictions.waiting,
        "facerwkv_streams": state.streams.used,
        "facerwkv_upload_memory_bytes": state.memory.used,
        "facerwkv_upload_disk_bytes": state.disk.used,
    }
    now |= {f'facerwkv_jobs{{state="{name}"}}': count for name, count in state.jobs.counts().items()}
    return PlainTextResponse(state.figures.text(now), media_type="text/plain; version=0.0.4")


UPLOAD = problems(400, 401, 408, 413, 415, 422, 429, 503)


@router.post(
    "/predict",
    openapi_extra=_form("files", several=True, also=IMAGES),
    response_model=Results,
    responses=UPLOAD,
)
async def predict(request: Request, options: Annotated[ServiceOptions, Query()]) -> Response:
    """The apparent expressions in one or several images, in their order.

    With a threshold, 0 to 1, every face says whether its label is unsure: its score lies below.
    """
    state, options = request.app.state, options.of_kind("image", service=True)
    with state.memory.reserved() as share:
        images = await read_images(request, state.limits, share, "files")
        results = await while_there(request, state.predictions(images, options))
    if all(result.status == "unreadable" for result in results):
        raise HTTPException(400, results[0].message)
    return JSONResponse({"results": [as_json(result) for result in results]})


@router.post("/explain", openapi_extra=_form("file"), response_model=Explanations, responses=UPLOAD)
async def explain_image(
    request: Request, method: str = "gradient", label: str | None = None, mode: Mode = "auto"
) -> Response:
    """Which patches of each face speak for a label, and which against it."""
    state, options, left = request.app.state, Options(mode=mode), threading.Event()

    def watch() -> None:
        if left.is_set():
            raise Cancelled

    async def explained(image: NamedImage) -> list[Explanation]:
        more = {"max_pixels": state.limits.pixels, "max_faces": state.limits.explained, "watch": watch}
        async with state.explaining:
            return await in_thread(partial(explain, state.predictor, image, method, label or None, options, **more))

    with state.memory.reserved() as share:
        image = (await read_images(request, state.limits, share, "file"))[0]
        try:
            with state.explanations.reserved(1):
                explanations = await while_there(request, explained(image))
        finally:
            left.set()
    return JSONResponse({"explanations": [explanation.to_dict() for explanation in explanations]})


async def while_there(request: Request, answer: Coroutine[Any, Any, Answer]) -> Answer:
    """The answer to a request that was read, unless its client leaves: then it is cancelled. ClientDisconnect."""
    task: asyncio.Task[Answer] = asyncio.create_task(answer)
    leaving = asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait((task, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()
        leaving.cancel()


STREAM = """Connect with a WebSocket. Send one JPEG or PNG per binary message; each is answered by one text message, its
result as in /predict, with `time`, `frame` and tracks, before the next is read. Send the next after the answer. The
service closes with 1001 where nothing comes for too long, 1008 for unknown options, 1009 for a message that is too
large, and 1013 where too many are connected."""


@router.get(
    "/stream",
    description=STREAM,
    status_code=426,
    response_model=None,
    responses=problems(400, 401, 422, 426, 429) | {101: {"description": "The stream is open."}},
)
async def describe_stream(request: Request, options: Annotated[ServiceOptions, Query()]) -> Response:
    options.of_kind("stream", service=True)
    raise HTTPException(426, "Connect to this address with a WebSocket.", {"Upgrade": "websocket"})


@router.websocket("/stream")
async def stream(socket: WebSocket) -> None:
    """One JPEG or PNG per message; each is answered by its result before the next is read. Options as for images, and
    smooth."""
    await socket.accept()
    state = socket.app.state
    try:
        options = ServiceOptions.of(None, socket.query_params).of_kind("stream", service=True)
        follow, started = Follower(options.smooth), time.monotonic()
        with state.streams.reserved(1) as share:
            for number in count():
                async with share.waiting(state.limits.idle_seconds):
                    message = await socket.receive()
                if message["type"] == "websocket.disconnect":
                    return
                moment = {"time": time.monotonic() - started, "frame": number}
                result = await _answer(state, message.get("bytes"), options, moment)
                async with share.waiting(state.limits.idle_seconds):
                    await socket.send_json(as_json(follow(result)))
    except TimeoutError as error:
        if share.gave_way:
            raise WebSocketException(1013, "Nothing came while others waited.") from error
        raise WebSocketException(1001, "Nothing came for too long.") from error
    except HTTPException as error:
        raise WebSocketException(1013, error.detail) from error
    except InputError as error:
        raise WebSocketException(1008, str(error)[:100]) from error


async def _answer(state: Any, data: bytes | None, options: Options, moment: dict[str, Any]) -> Result:
    if data is None:
        text = "Send a JPEG or PNG as one binary message."
    else:
        try:
            return (await state.predictions([NamedImage("The frame", data)], options, **moment))[0]
        except HTTPException as error:  # too much waits: this frame is passed over
            text = error.detail
    return Result("The frame", "unreadable", message=text, **moment)


@router.post("/jobs", status_code=202, openapi_extra=_form("file"), response_model=Added, responses=UPLOAD)
async def add_job(
    request: Request, options: Annotated[JobOptions, Query()], owner: Annotated[str, OWNER] = ""
) -> Response:
    """Put a video in the queue; options as for images, and those of videos."""
    state, options = request.app.state, options.of_kind("video", service=True)
    with state.jobs.receiving() as job, state.disk.reserved() as share:
        source = await save_video(request, state.limits, share, job.upload)
        await in_thread(partial(check_video, job.upload, source, state.limits.pixels))
        state.jobs.add(job, source, options, owner)
    return JSONResponse({"id": job.id, "state": job.state}, 202)


@router.get("/jobs", response_model=Jobs, responses=problems(400, 401, 422, 429))
async def jobs(request: Request, owner: Annotated[str, OWNER]) -> Response:
    """The videos that were added with this Client-Id, oldest first."""
    return JSONResponse({"jobs": [job.to_dict() for job in request.app.state.jobs.of(owner)]})


@router.get("/jobs/{id}", response_model=Job, responses=problems(401, 404, 422, 429))
async def job(request: Request, id: str) -> Response:
    """How far a video is."""
    return JSONResponse(request.app.state.jobs.get(id).to_dict())


@router.delete("/jobs/{id}", status_code=204, responses=problems(401, 404, 422, 429))
async def delete_job(request: Request, id: str) -> None:
    """Cancel a video's job if it is not done, and remove everything of it."""
    await in_thread(partial(request.app.state.jobs.delete, id))


FILES_OF_A_JOB: dict[int | str, dict[str, Any]] = {
    status: {"description": text, "content": {kind: {} for kind in ("application/json", "text/csv", "video/mp4")}}
    for status, text in ((200, "The file."), (206, "The part of the file that the header Range names."))
}


@router.get(
    "/jobs/{id}/{name}",
    response_class=FileResponse,
    responses=FILES_OF_A_JOB | problems(400, 401, 404, 409, 416, 422, 429),
)
async def job_file(request: Request, id: str, name: Literal["results.json", "results.csv", "drawn.mp4"]) -> Response:
    """A file of a video that is done."""
    job = request.app.state.jobs.get(id)
    if name not in job.files:
        raise HTTPException(404 if job.state == "done" else 409, f"{job.source} has no {name}: it is {job.state}.")
    called = f"{Path(job.source).stem}_{name}"
    return FileResponse(job.folder / name, filename=called, content_disposition_type="inline")
