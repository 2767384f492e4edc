"""The body of a request → images in memory or a video on disk, with every limit enforced while it is read."""

import base64
import errno
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO

from fastapi import HTTPException, Request, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from facerwkv.media.images import NamedImage
from facerwkv.web.guard import Limits
from facerwkv.web.shares import Share
from facerwkv.web.threads import in_thread

LONGEST_NAME = 200


class Form(MultiPartParser):
    """Starlette's form parser for at most `files` files, all in one `field`: in memory, or written to `file`."""

    spool_max_size = 0  # never rolled over to disk
    complete = False

    def __init__(
        self, request: Request, body: AsyncGenerator[bytes, None], field: str, files: int, file: BinaryIO | None = None
    ):
        if content_type(request) != "multipart/form-data":
            raise HTTPException(415, f"Send a form (multipart/form-data) with the file in its field {field!r}.")
        super().__init__(request.headers, body, max_files=files)
        self.field, self.file = field, file

    def on_headers_finished(self) -> None:
        if len(self.items) == self.max_files:
            raise HTTPException(413, f"The form has too many files; the limit is {self.max_files} per request.")
        super().on_headers_finished()
        part = self._current_part
        if part.field_name != self.field:
            name = part.field_name[:50]
            raise HTTPException(422, f"The form has a field {name!r}; send only files, in {self.field!r}.")
        if part.file is None:
            raise HTTPException(422, f"The field {self.field!r} is a text; send it as a file.")
        if self.file is not None:
            part.file.file = self.file

    def on_end(self) -> None:
        self.complete = True

    async def uploads(self) -> list[UploadFile]:
        """At least one. HTTPException 400 where the form is damaged or cut short, 422 for another field or no file."""
        try:
            found = (await self.parse()).getlist(self.field)
        except (MultiPartException, UnicodeError) as error:
            raise HTTPException(400, "The upload's form is damaged.") from error
        if not self.complete:
            raise HTTPException(400, "The upload is cut short.")
        if not found:
            raise HTTPException(422, f"There is no file in the form; its field is called {self.field!r}.")
        return found  # type: ignore[return-value]  # no text: on_headers_finished refuses it


async def read_images(request: Request, limits: Limits, share: Share, field: str) -> list[NamedImage]:
    """The images of a form's `field`, or of {"images": [base64, ...]} where that is "files".

    The share takes the bytes of memory that each piece of the body needs, as it arrives.
    """
    as_json = field == "files" and content_type(request) == "application/json"
    times = 2 if as_json else 1  # JSON is there as text, and decoded
    async with limited_body(request, limits.upload_bytes, limits.upload_seconds, share, times) as body:
        if as_json:
            text = b"".join([piece async for piece in body])
            return await in_thread(partial(_from_json, text, limits.files))
        uploads = await Form(request, body, field, limits.files).uploads()
    images = []
    for upload in uploads:
        with upload.file as file:  # closed at once: its memory is counted once
            images.append(NamedImage(base_name(upload.filename or ""), file.read()))
    return images


async def save_video(request: Request, limits: Limits, share: Share, path: Path) -> str:
    """Write the one file of a form's field "file" to `path`, piece by piece; its name."""
    try:
        async with limited_body(request, limits.video_bytes, limits.upload_seconds, share) as body:
            with path.open("wb") as file:
                (video,) = await Form(request, body, "file", 1, file).uploads()
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise HTTPException(503, "The service's disk is full. Delete a video there.") from error
    return base_name(video.filename or "")


@asynccontextmanager
async def limited_body(
    request: Request, limit: int, seconds: float, share: Share, times: int = 1
) -> AsyncIterator[AsyncGenerator[bytes, None]]:
    """The pieces of a request's body; the share takes each byte `times` times.

    HTTPException 413 above `limit` bytes, 408 if the block takes longer than `seconds`, or gives way to others.
    """
    too_large = HTTPException(413, f"The upload is larger than the limit of {limit:,} bytes.")
    if int(request.headers.get("content-length") or 0) > limit:
        raise too_large

    async def pieces() -> AsyncGenerator[bytes, None]:
        total = 0
        async for piece in request.stream():
            total += len(piece)
            if total > limit:
                raise too_large
            share.take(times * len(piece))
            yield piece

    try:
        async with share.waiting(seconds):
            yield pieces()
    except TimeoutError as error:
        reason = "stood still while others waited" if share.gave_way else f"took longer than {seconds:g} seconds"
        raise HTTPException(408, f"The upload {reason}.") from error


def _from_json(body: bytes, files: int) -> list[NamedImage]:
    try:
        texts = json.loads(body)["images"]
        images = [NamedImage(f"image {i}", base64.b64decode(text, validate=True)) for i, text in enumerate(texts)]
    except (ValueError, TypeError, KeyError, RecursionError) as error:  # binascii.Error is a ValueError
        raise HTTPException(422, 'The body must be {"images": ["...", ...]}, each image as base64.') from error
    if not 0 < len(images) <= files:
        raise HTTPException(413 if images else 422, f"Give 1 to {files} images per request, not {len(images)}.")
    return images


def content_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def base_name(given: str) -> str:
    """The last component of the path that a client gave, on one line; never a path here."""
    name = re.split(r"[/\\]", given)[-1].replace("%22", '"')  # so do browsers write it in a form
    return "".join(letter for letter in name if letter.isprintable()).strip()[:LONGEST_NAME] or "upload"
