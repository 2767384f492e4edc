"""Who may ask: host, origin and token of every request; and the headers of every answer."""

import hmac
import ipaddress
import logging
from urllib.parse import parse_qs, urlsplit

from pydantic import PositiveInt
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from facerwkv.core.settings import Settings

MiB = 2**20


class Limits(Settings):
    """All of them are numbers above 0; sizes are in bytes."""

    upload_bytes: PositiveInt = 32 * MiB
    """One request with images, or one message of a stream."""
    video_bytes: PositiveInt = 512 * MiB
    """One request with a video."""
    memory_bytes: PositiveInt = 512 * MiB
    """The images of all requests that are there at a time."""
    pixels: PositiveInt = 40_000_000
    """One image, or one frame of a video."""
    files: PositiveInt = 16
    """Images of one request."""
    waiting: PositiveInt = 256
    """Images that wait for their turn, and explanations."""
    frames: PositiveInt = 20_000
    """Frames of a video that are looked at; what comes after them is left out."""
    seconds: PositiveInt = 1800
    """Time that is spent on a video."""
    jobs: PositiveInt = 8
    """Videos that are uploaded, wait, are worked on or are kept, at a time."""
    kept_seconds: PositiveInt = 3600
    """Time after which the files of a video are removed."""
    streams: PositiveInt = 8
    """Cameras at a time."""
    idle_seconds: PositiveInt = 60
    """Time that a camera may send nothing."""
    header_seconds: PositiveInt = 20
    """Time that the headers of a request may take."""
    upload_seconds: PositiveInt = 600
    """Time that an upload may take."""


HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
    "connect-src 'self' ws: wss:; object-src 'none'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
logger = logging.getLogger("facerwkv")


def is_loopback(host: str) -> bool:
    """Whether a name or an address is this machine's own, that no other machine reaches."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """The outermost layer. With a `token`, all but the page itself and /healthz needs it.

    `local`: only a loopback name may be in the Host header, so that no foreign page reaches the service under a name
    of its own (DNS rebinding). An Origin header must be the service's own. HEAD is answered as GET, without a body.
    """

    def __init__(self, app: ASGIApp, token: str | None, local: bool):
        self.app, self.token, self.local = app, token, local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope.get("method") == "HEAD":
            scope = {**scope, "method": "GET"}
        answer = _Answer(send)
        refusal = self._refusal(scope)
        if refusal:
            return await refusal(scope, receive, answer)
        try:
            await self.app(scope, receive, answer)
        except Exception:
            logger.exception("%s failed.", scope["path"])
            if scope["type"] == "websocket" or answer.started:
                raise
            await _error(500, "The service failed. What went wrong is in its log.")(scope, receive, answer)

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        if self.local and not is_loopback(_name(host)):
            return _error(403, "This service answers to this machine only: open it as http://127.0.0.1 or localhost.")
        if origin is not None and _place(origin) != host.lower():
            return _error(403, "Another page's scripts may not use this service.")
        if self.token and not _is_open(scope) and not self._knows_token(scope, headers):
            return _error(401, "The token is missing or wrong: open the address that `facerwkv serve` printed.")
        return None

    def _knows_token(self, scope: Scope, headers: Headers) -> bool:
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer":
            given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        return hmac.compare_digest(given.strip().encode(), (self.token or "").encode())


class _Answer:
    """`send` that adds HEADERS, and knows whether an answer has begun."""

    def __init__(self, send: Send):
        self._send, self.started = send, False

    async def __call__(self, message: Message) -> None:
        if message["type"] in ("http.response.start", "websocket.http.response.start"):
            self.started = True
            MutableHeaders(scope=message).update(HEADERS)
        await self._send(message)


def _is_open(scope: Scope) -> bool:
    return scope["path"] in ("/", "/healthz") or scope["path"].startswith("/page/")


def _name(host: str) -> str:
    """The name in a Host header, without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _place(origin: str) -> str:
    """The name and the port in an Origin header."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _error(status: int, detail: str) -> JSONResponse:
    return JSONResponse({"detail": detail}, status)
