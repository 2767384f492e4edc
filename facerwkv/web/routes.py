"""What can be asked of the service over HTTP: small functions that read a request, and call."""

import asyncio
from pathlib import Path
from typing import Any, Literal

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import FileResponse, Response

from facerwkv.core.errors import InputError
from facerwkv.inference.explain import Explanation, explain
from facerwkv.inference.predictor import Mode
from facerwkv.web.answers import Threshold, as_json
from facerwkv.web.predictions import too_large
from facerwkv.web.uploads import UploadedImage, read_images, save_video
from facerwkv.web.videos import Plan, check_video

OnNoFace = Literal["empty", "scene"]

router = APIRouter()


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
async def predict(
    request: Request, mode: Mode = "auto", on_no_face: OnNoFace = "empty", threshold: Threshold | None = None
) -> dict[str, Any]:
    """The apparent expressions in one or several images, in their order.

    With a threshold, 0 to 1, every face says whether its label is unsure: its score lies below.
    """
    state = request.app.state
    with state.memory.reserved() as reserve:
        images = await read_images(request, state.limits, reserve, "files")
        results = await state.predictions(images, mode, on_no_face)
    if all(result.status == "unreadable" for result in results):
        raise HTTPException(400, results[0].message)
    return {"results": [as_json(result, threshold) for result in results]}


@router.post("/explain", openapi_extra=_form("file"))
async def explain_image(
    request: Request, method: str = "gradient", label: str | None = None, mode: Mode = "auto"
) -> dict[str, Any]:
    """Which patches of each face spoke for a label, and which against it."""
    state = request.app.state
    with state.memory.reserved() as reserve, state.explanations.reserved(1):
        image = (await read_images(request, state.limits, reserve, "file"))[0]
        found = await asyncio.get_running_loop().run_in_executor(
            state.explainer, _explained, state, image, method, label or None, mode
        )
    return {"explanations": [each.to_dict() for each in found]}


def _explained(state: Any, image: UploadedImage, *options: Any) -> list[Explanation]:
    if message := too_large(image, state.limits.pixels):
        raise InputError(message)
    try:
        return explain(state.predictor, image.data, *options)
    except InputError as error:
        raise InputError(str(error).replace("bytes 0", image.name)) from error


@router.post("/jobs", status_code=202, openapi_extra=_form("file"))
async def add_job(
    request: Request,
    stride: int = 1,
    fps: float | None = None,
    start: str = "0",
    end: str | None = None,
    smooth: str | None = None,
    mode: Mode = "auto",
    on_no_face: OnNoFace = "empty",
    draw: bool = True,
    threshold: Threshold | None = None,
) -> dict[str, str]:
    """Put a video in the queue; `threshold` as for images."""
    state = request.app.state
    plan = Plan(stride, fps, start or "0", end or None, smooth or None, mode, on_no_face, draw, threshold)
    with state.jobs.receiving() as job:
        source = await save_video(request, state.limits, job.upload)
        await asyncio.to_thread(check_video, job.upload, source, state.limits.pixels)
        state.jobs.add(job, source, plan)
    return {"id": job.id, "state": job.state}


@router.get("/jobs/{id}")
async def job(request: Request, id: str) -> dict[str, Any]:
    """How far a video is."""
    return request.app.state.jobs.get(id).to_dict()


@router.delete("/jobs/{id}", status_code=204)
async def delete_job(request: Request, id: str) -> None:
    """Cancel a video's job if it is not done, and remove everything of it."""
    await asyncio.to_thread(request.app.state.jobs.delete, id)


@router.get("/jobs/{id}/{name}", response_class=FileResponse)
async def job_file(request: Request, id: str, name: Literal["results.json", "results.csv", "drawn.mp4"]) -> Response:
    """A file of a video that is done."""
    job = request.app.state.jobs.get(id)
    if name not in job.files:
        raise HTTPException(404 if job.state == "done" else 409, f"{job.source} has no {name}: it is {job.state}.")
    called = f"{Path(job.source).stem}_{name}"
    return FileResponse(job.folder / name, filename=called, content_disposition_type="inline")
