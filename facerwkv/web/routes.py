"""What can be asked of the service over HTTP: small functions that read a request, and call."""

import asyncio
import threading
import time
from collections.abc import Coroutine
from functools import partial
from itertools import count
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, HTTPException, Query, Request, WebSocket, WebSocketException
from fastapi.responses import FileResponse, Response
from starlette.requests import ClientDisconnect

from facerwkv.core.errors import InputError
from facerwkv.inference.explain import Explanation, explain
from facerwkv.inference.options import Mode, Options
from facerwkv.inference.results import Result
from facerwkv.inference.stream import Follower
from facerwkv.media.images import NamedImage
from facerwkv.web.answers import ServiceOptions, as_json
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


IMAGES = {
    "application/json": {
        "schema": {"type": "object", "required": ["images"], "properties": {"images": {"type": "array"}}}
    }
}


@router.get("/meta")
async def meta(request: Request) -> dict[str, Any]:
    """The model, its labels, terms and intended use, and the service's limits."""
    return request.app.state.about


@router.post("/predict", openapi_extra=_form("files", several=True, also=IMAGES))
async def predict(request: Request, options: Annotated[ServiceOptions, Query()]) -> dict[str, Any]:
    """The apparent expressions in one or several images, in their order.

    With a threshold, 0 to 1, every face says whether its label is unsure: its score lies below.
    """
    state, options = request.app.state, options.of_kind("image", service=True)
    with state.memory.reserved() as reserve:
        images = await read_images(request, state.limits, reserve, "files")
        results = await while_there(request, state.predictions(images, options))
    if all(result.status == "unreadable" for result in results):
        raise HTTPException(400, results[0].message)
    return {"results": [as_json(result) for result in results]}


@router.post("/explain", openapi_extra=_form("file"))
async def explain_image(
    request: Request, method: str = "gradient", label: str | None = None, mode: Mode = "auto"
) -> dict[str, Any]:
    """Which patches of each face speak for a label, and which against it."""
    state, options, left = request.app.state, Options(mode=mode), threading.Event()

    def watch() -> None:
        if left.is_set():
            raise Cancelled

    async def explained(image: NamedImage) -> list[Explanation]:
        more = {"max_pixels": state.limits.pixels, "max_faces": state.limits.explained, "watch": watch}
        async with state.explaining:
            return await in_thread(partial(explain, state.predictor, image, method, label or None, options, **more))

    with state.memory.reserved() as reserve, state.explanations.reserved(1):
        image = (await read_images(request, state.limits, reserve, "file"))[0]
        try:
            explanations = await while_there(request, explained(image))
        finally:
            left.set()
    return {"explanations": [explanation.to_dict() for explanation in explanations]}


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


@router.websocket("/stream")
async def stream(socket: WebSocket) -> None:
    """One JPEG or PNG per message; each is answered by its result before the next is read. Options as for images, and
    smooth."""
    await socket.accept()
    state = socket.app.state
    try:
        options = ServiceOptions.of(None, socket.query_params).of_kind("stream", service=True)
        follow, started = Follower(options.smooth), time.monotonic()
        with state.streams.reserved(1):
            for number in count():
                message = await asyncio.wait_for(socket.receive(), state.limits.idle_seconds)
                if message["type"] == "websocket.disconnect":
                    return
                moment = {"time": time.monotonic() - started, "frame": number}
                result = await _answer(state, message.get("bytes"), options, moment)
                await socket.send_json(as_json(follow(result)))
    except TimeoutError as error:
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


@router.post("/jobs", status_code=202, openapi_extra=_form("file"))
async def add_job(request: Request, options: Annotated[JobOptions, Query()]) -> dict[str, str]:
    """Put a video in the queue; options as for images, and those of videos."""
    state, options = request.app.state, options.of_kind("video", service=True)
    with state.jobs.receiving() as job:
        source = await save_video(request, state.limits, job.upload)
        await in_thread(partial(check_video, job.upload, source, state.limits.pixels))
        state.jobs.add(job, source, options)
    return {"id": job.id, "state": job.state}


@router.get("/jobs/{id}")
async def job(request: Request, id: str) -> dict[str, Any]:
    """How far a video is."""
    return request.app.state.jobs.get(id).to_dict()


@router.delete("/jobs/{id}", status_code=204)
async def delete_job(request: Request, id: str) -> None:
    """Cancel a video's job if it is not done, and remove everything of it."""
    await in_thread(partial(request.app.state.jobs.delete, id))


@router.get("/jobs/{id}/{name}", response_class=FileResponse)
async def job_file(request: Request, id: str, name: Literal["results.json", "results.csv", "drawn.mp4"]) -> Response:
    """A file of a video that is done."""
    job = request.app.state.jobs.get(id)
    if name not in job.files:
        raise HTTPException(404 if job.state == "done" else 409, f"{job.source} has no {name}: it is {job.state}.")
    called = f"{Path(job.source).stem}_{name}"
    return FileResponse(job.folder / name, filename=called, content_disposition_type="inline")
