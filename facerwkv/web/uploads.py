"""The body of a request → images in memory or a video on disk, with every limit enforced while it is read."""

import asyncio
import base64
import binascii
import errno
import json
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from fastapi import HTTPException, Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from facerwkv.web.guard import Limits

LONGEST_NAME = 200


class UploadedImage(NamedTuple):
    """An upload that was not opened yet, and what it is called."""

    name: str
    data: bytes


class Room:
    """A number that may be taken up to `most`: bytes of memory, sockets. HTTPException 503 where there is no more."""

    def __init__(self, most: int):
        self.most, self.taken = most, 0

    def take(self, count: int) -> None:
        if self.taken + count > self.most:
            raise HTTPException(503, "The service is busy. Try again in a few seconds.", {"Retry-After": "5"})
        self.taken += count

    @contextmanager
    def lent(self) -> Iterator[Callable[[int], None]]:
        """A `take` whose numbers are given back when the block ends."""
        taken = 0

        def take(count: int) -> None:
            nonlocal taken
            self.take(count)
            taken += count

        try:
            yield take
        finally:
            self.taken -= taken


async def read_images(request: Request, limits: Limits, take: Callable[[int], None], field: str) -> list[UploadedImage]:
    """The images of a form's `field`, or of {"images": [base64, ...]}; `take` is called with every piece's size."""
    kind, _ = parse_options_header(request.headers.get("content-type"))
    if kind == b"application/json" and field == "files":
        return _checked(await _read_json(request, limits, take), limits)
    files: list[tuple[str, BytesIO]] = []

    def add(name: str) -> BytesIO:
        if len(files) == limits.files:
            raise HTTPException(413, f"More than {limits.files} files are too many for one request.")
        files.append((name, BytesIO()))
        return files[-1][1]

    form = Form(request, field, add)

    async def write(piece: bytes) -> None:
        take(len(piece))
        form.write(piece)

    await read_body(request, limits.upload_bytes, limits.upload_seconds, write)
    form.end()
    return _checked([UploadedImage(name, data.getvalue()) for name, data in files], limits)


async def save_video(request: Request, limits: Limits, path: Path) -> str:
    """Write the one file of a form's field "file" to `path`; its name."""
    names: list[str] = []
    with path.open("wb") as file:

        def add(name: str) -> BinaryIO:
            if names:
                raise HTTPException(413, "Upload one video at a time.")
            names.append(name)
            return file

        form = Form(request, "file", add)
        try:
            await read_body(
                request,
                limits.video_bytes,
                limits.upload_seconds,
                lambda piece: asyncio.to_thread(form.write, piece),
            )
            file.flush()
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise HTTPException(503, "The service's disk is full. Delete a video there.") from error
    form.end()
    if not names:
        raise _no_file("file")
    return names[0]


async def read_body(request: Request, limit: int, seconds: float, take: Callable[[bytes], Awaitable[object]]) -> None:
    """Hand the body on piece by piece. HTTPException 413 above `limit` bytes, 408 after `seconds`."""
    too_large = HTTPException(413, f"The upload is larger than the {limit:,} bytes that are allowed.")
    if int(request.headers.get("content-length") or 0) > limit:
        raise too_large
    total = 0
    try:
        async with asyncio.timeout(seconds):
            async for piece in request.stream():
                total += len(piece)
                if total > limit:
                    raise too_large
                await take(piece)
    except TimeoutError as error:
        raise HTTPException(408, f"The upload took longer than {seconds:g} seconds.") from error


async def _read_json(request: Request, limits: Limits, take: Callable[[int], None]) -> list[UploadedImage]:
    body = bytearray()

    async def add(piece: bytes) -> None:
        take(2 * len(piece))  # as text, and decoded
        body.extend(piece)

    await read_body(request, limits.upload_bytes, limits.upload_seconds, add)
    return await asyncio.to_thread(_from_json, bytes(body))


def _from_json(body: bytes) -> list[UploadedImage]:
    try:
        images = json.loads(body)["images"]
        return [UploadedImage(f"image {i}", base64.b64decode(text, validate=True)) for i, text in enumerate(images)]
    except (ValueError, TypeError, KeyError, RecursionError, binascii.Error) as error:
        raise HTTPException(422, 'The body must be {"images": ["...", ...]}, each image as base64.') from error


def _checked(images: list[UploadedImage], limits: Limits) -> list[UploadedImage]:
    if not images:
        raise _no_file("files")
    if len(images) > limits.files:
        raise HTTPException(413, f"More than {limits.files} files are too many for one request.")
    return images


def _no_file(field: str) -> HTTPException:
    return HTTPException(422, f"There is no file in the form; its field is called {field!r}.")


class Form:
    """A multipart form of files, all in one field: `write` its pieces, then `end`.

    `add(name)` gives the open file that a part's data goes to. HTTPException 415 if the request is no such form, 422
    for other fields, 400 where it is damaged or cut short.
    """

    def __init__(self, request: Request, field: str, add: Callable[[str], BinaryIO]):
        kind, options = parse_options_header(request.headers.get("content-type"))
        if kind != b"multipart/form-data" or not options.get(b"boundary"):
            raise HTTPException(415, f"Send a form (multipart/form-data) with the file in its field {field!r}.")
        self._field, self._add = field, add
        self._file: BinaryIO | None = None
        self._header, self._value, self._disposition = b"", b"", b""
        self._whole = False
        names = "part_begin", "header_field", "header_value", "header_end", "headers_finished", "part_data", "end"
        callbacks: Any = {f"on_{name}": getattr(self, f"_{name}") for name in names}
        with _damaged():
            self._parser = MultipartParser(options[b"boundary"], callbacks)

    def write(self, piece: bytes) -> None:
        with _damaged():
            self._parser.write(piece)

    def end(self) -> None:
        with _damaged():
            self._parser.finalize()
        if not self._whole:
            raise HTTPException(400, "The upload is cut short.")

    def _part_begin(self) -> None:
        self._disposition = b""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header, self._value = b"", b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition.decode("latin-1"))
        field = _text(options.get(b"name", b""))
        if field != self._field:
            raise HTTPException(422, f"The form has a field {field[:50]!r}; the file goes into {self._field!r}.")
        self._file = self._add(base_name(_text(options.get(b"filename", b""))))

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        assert self._file
        self._file.write(data[start:end])

    def _end(self) -> None:
        self._whole = True


@contextmanager
def _damaged() -> Iterator[None]:
    try:
        yield
    except FormParserError as error:
        raise HTTPException(400, "The upload's form is damaged.") from error


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def base_name(given: str) -> str:
    """What an upload is called: the last part of the path that a client gave, on one line. It is never a path here."""
    name = re.split(r"[/\\]", given)[-1]
    return "".join(letter for letter in name if letter.isprintable()).strip()[:LONGEST_NAME] or "upload"
