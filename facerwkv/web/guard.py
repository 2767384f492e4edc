"""Limits of the service, who may use it, and the security headers of every response."""

import hmac
import ipaddress
import logging
from urllib.parse import urlsplit

from fastapi import HTTPException
from fastapi.requests import HTTPConnection
from pydantic import PositiveInt
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from facerwkv.core.settings import Settings

MiB = 2**20


class Limits(Settings):
    """Whole numbers above 0; sizes are in bytes, times in seconds."""

    upload_bytes: PositiveInt = 32 * MiB
    """One request with images, or one message of a stream."""
    video_bytes: PositiveInt = 512 * MiB
    """One request with a video."""
    memory_bytes: PositiveInt = 512 * MiB
    """The images of all requests in progress."""
    pixels: PositiveInt = 40_000_000
    """One image, or one frame of a video."""
    files: PositiveInt = 16
    """Images per request."""
    faces: PositiveInt = 256
    """Faces in the images of one request; images after them are left out."""
    explained: PositiveInt = 24
    """Faces in an image that is explained."""
    waiting: PositiveInt = 256
    """Images waiting in the queue; also explanations waiting."""
    frames: PositiveInt = 20_000
    """Frames analysed per video; the rest of the video is left out."""
    seconds: PositiveInt = 1800
    """Time spent on one video."""
    jobs: PositiveInt = 8
    """Videos being uploaded, queued, analysed or kept."""
    kept_seconds: PositiveInt = 3600
    """Time after which the files of a finished video are removed."""
    streams: PositiveInt = 8
    """Cameras connected at the same time."""
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
    """Whether a host name or address can only be reached from this machine."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def require_token(connection: HTTPConnection) -> None:
    """A dependency of every route but the page's and /healthz. HTTPException 401 without the service's token.

    It travels as `Authorization: Bearer TOKEN` or, where a browser cannot set headers, as ?token=TOKEN.
    """
    kind, _, given = connection.headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer":
        given = connection.query_params.get("token", "")
    token = connection.app.state.token
    if token and not hmac.compare_digest(given.strip().encode(), token.encode()):
        raise HTTPException(401, "The token is missing or wrong: open the address that `facerwkv serve` printed.")


class Guard:
    """ASGI middleware around all routes: it checks Host and Origin, adds HEADERS and answers HEAD as GET.

    `local`: the Host header must name the loopback interface, so that no foreign page reaches the service under a name
    of its own (DNS rebinding). Starlette's TrustedHostMiddleware compares with a list of names, but all of 127.0.0.0/8
    is loopback, and its answer does not say what to do.
    """

    def __init__(self, app: ASGIApp, local: bool):
        self.app, self.local = app, local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope.get("method") == "HEAD":
            scope = {**scope, "method": "GET"}

        async def send_with_headers(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        refusal = self._refusal(Headers(scope=scope))
        app = JSONResponse({"detail": refusal}, 403) if refusal else self.app
        try:
            await app(scope, receive, send_with_headers)
        except Exception:
            logger.exception("%s failed.", scope["path"])
            raise

    def _refusal(self, headers: Headers) -> str:
        """Why a request with these headers is refused, or ""."""
        host, origin = headers.get("host", ""), headers.get("origin")
        try:
            name = urlsplit(f"//{host}").hostname or ""
            foreign = origin is not None and urlsplit(origin).netloc.lower() != host.lower()
        except ValueError:  # brackets that are not closed
            name, foreign = "", True
        if self.local and not is_loopback(name):
            return "This service is for this machine only: open it as http://127.0.0.1 or localhost."
        return "Scripts of other pages may not use this service." if foreign else ""
