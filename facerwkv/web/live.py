"""A camera's images, one a message → their results, followed and smoothed from frame to frame."""

import asyncio
import time
from dataclasses import replace
from itertools import count
from typing import Any

from fastapi import APIRouter, HTTPException, WebSocket, WebSocketException

from facerwkv.core.errors import InputError
from facerwkv.inference.predictor import Mode
from facerwkv.inference.results import Result
from facerwkv.inference.stream import Follower
from facerwkv.web.answers import Threshold, as_json
from facerwkv.web.uploads import UploadedImage

router = APIRouter()


@router.websocket("/stream")
async def stream(
    socket: WebSocket, mode: Mode = "auto", smooth: str | None = None, threshold: Threshold | None = None
) -> None:
    """One JPEG or PNG a message; each is answered by its result before the next is read."""
    await socket.accept()
    try:
        with socket.app.state.streams.reserved(1):
            await _answer_all(socket, mode, Follower(smooth or None), threshold)
    except HTTPException as error:
        raise WebSocketException(1013, error.detail) from error
    except InputError as error:
        raise WebSocketException(1008, str(error)[:100]) from error


async def _answer_all(socket: WebSocket, mode: Mode, follow: Follower, threshold: float | None) -> None:
    started = time.monotonic()
    for number in count():
        try:
            message = await asyncio.wait_for(socket.receive(), socket.app.state.limits.idle_seconds)
        except TimeoutError as error:
            raise WebSocketException(1001, "Nothing came for too long.") from error
        if message["type"] == "websocket.disconnect":
            return
        result = await _result(socket.app, message.get("bytes"), mode)
        result = follow(replace(result, time=time.monotonic() - started, frame=number))
        await socket.send_json(as_json(result, threshold))


async def _result(app: Any, data: bytes | None, mode: Mode) -> Result:
    if data is None:
        return Result("frame", "unreadable", message="Send a JPEG or PNG as one binary message.")
    try:
        return (await app.state.predictions([UploadedImage("The frame", data)], mode))[0]
    except HTTPException as error:  # too much waits: this frame is passed over
        return Result("frame", "unreadable", message=error.detail)
