"""Clients of a service that cost the machine little: requests are made once, answers are read to their end."""

import asyncio
import time
from typing import NamedTuple
from urllib.parse import urlsplit

BOUNDARY = "a-boundary-that-no-image-holds"


class Answer(NamedTuple):
    """`status` is 0 where the connection was closed without an answer."""

    status: int
    body: bytes
    seconds: float


def form(data: bytes, name: str = "image.jpg", field: str = "files") -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'
    return head.encode() + data + f"\r\n--{BOUNDARY}--\r\n".encode()


def post(path: str, body: bytes, kind: str = f"multipart/form-data; boundary={BOUNDARY}", more: str = "") -> bytes:
    """A whole request."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n{more}"
    return f"{head}Content-Type: {kind}\r\n\r\n".encode() + body


def ask_side_by_side(url: str, clients: list[list[bytes]], seconds: float, keep: bool = True) -> list[list[Answer]]:
    """The answers to every client's requests, one after the other; no request starts after `seconds`.

    With `keep`, a client has one connection, otherwise one for each request.
    """
    address = urlsplit(url)
    place, until = (address.hostname or "", address.port or 80), time.monotonic() + seconds

    async def run() -> list[list[Answer]]:
        return list(await asyncio.gather(*(_client(place, requests, until, keep) for requests in clients)))

    return asyncio.run(run())


async def _client(place: tuple[str, int], requests: list[bytes], until: float, keep: bool) -> list[Answer]:
    answers: list[Answer] = []
    reader, writer = await asyncio.open_connection(*place)
    for request in requests:
        if time.monotonic() > until:
            break
        if not keep and answers:
            writer.close()
            reader, writer = await asyncio.open_connection(*place)
        started = time.perf_counter()
        try:
            status, body = await _ask(reader, writer, request)
        except (OSError, asyncio.IncompleteReadError):
            status, body = 0, b""
        answers.append(Answer(status, body, time.perf_counter() - started))
    writer.close()
    return answers


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> tuple[int, bytes]:
    writer.write(request)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    _, _, length = head.partition(b"content-length: ")
    body = await (reader.readexactly(int(length.split(b"\r\n")[0])) if length else reader.read())
    return int(head.split()[1]), body
