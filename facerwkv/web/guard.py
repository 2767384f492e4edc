"""Limits of the service, who may use it, and the security headers of every response."""

import hmac
import ipaddress
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import monotonic
from urllib.parse import urlsplit

from fastapi import HTTPException
from fastapi.requests import HTTPConnection
from pydantic import PositiveInt
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, RedirectResponse
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
    """Videos queued or analysed."""
    kept: PositiveInt = 16
    """Finished videos; the oldest are removed where there are more."""
    kept_seconds: PositiveInt = 3600
    """Time after which the files of a finished video are removed."""
    disk_bytes: PositiveInt = 4096 * MiB
    """The videos that are being uploaded."""
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
    "Cross-Origin-Resource-Policy": "same-origin",
}
WRONG = 20
"""Wrong tokens per minute and address."""
ADDRESSES = 10_000
"""Addresses that are remembered."""
logger = logging.getLogger("facerwkv")


def is_loopback(host: str) -> bool:
    """Whether a host name or address can only be reached from this machine."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass
class Tries:
    """When each address sent wrong tokens: after WRONG within a minute it waits for the rest of it."""

    _times: dict[str, list[float]] = field(default_factory=dict)

    def seconds_to_wait(self, address: str) -> int:
        """0 where it may try."""
        times = [time for time in self._times.get(address, ()) if time > monotonic() - 60]
        return math.ceil(times[-WRONG] + 60 - monotonic()) if len(times) >= WRONG else 0

    def add(self, address: str) -> None:
        self._times[address] = [*self._times.pop(address, ())[-WRONG:], monotonic()]
        if len(self._times) > ADDRESSES:
            del self._times[next(iter(self._times))]  # the one that tried longest ago


def require_token(connection: HTTPConnection) -> None:
    """A dependency of every route but the page's and /healthz. HTTPException 401 without the service's token, 429
    after too many wrong ones.

    It travels as `Authorization: Bearer TOKEN` or, where a browser cannot set headers, as ?token=TOKEN.
    """
    kind, _, given = connection.headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer":
        given = connection.query_params.get("token", "")
    token, tries = connection.app.state.token, connection.app.state.tries
    if not token:
        return
    address = connection.client.host if connection.client else ""
    if given and (seconds := tries.seconds_to_wait(address)):
        headers = {"Retry-After": str(seconds)}
        raise HTTPException(429, f"Too many wrong tokens came from here. Wait for {seconds} seconds.", headers)
    if not hmac.compare_digest(given.strip().encode(), token.encode()):
        problem = ', error="invalid_token"' if given else ""
        if given:
            tries.add(address)
        headers = {"WWW-Authenticate": f'Bearer realm="facerwkv"{problem}'}
        sentence = "The token is missing or wrong: open the address that `facerwkv serve` printed."
        raise HTTPException(401, sentence, headers)


class Guard:
    """ASGI middleware around all routes: it checks Host and Origin, adds HEADERS, answers HEAD as GET, and takes
    addresses with the prefix `root_path` and without it.

    `local`: the Host header must name the loopback interface, or be one of `hosts`, so that no foreign page reaches the
    service under a name of its own (DNS rebinding). Starlette's TrustedHostMiddleware compares with a list of names,
    but all of 127.0.0.0/8 is loopback, and its answer does not say what to do.
    """

    def __init__(self, app: ASGIApp, local: bool, hosts: Sequence[str] = (), root_path: str = ""):
        self.app, self.local, self.hosts, self.root_path = app, local, {host.lower() for host in hosts}, root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        outer, scope = scope, dict(scope)
        if scope.get("method") == "HEAD":
            scope["method"] = "GET"
        if not f"{scope['path']}/".startswith(f"{self.root_path}/"):
            scope["path"] = self.root_path + scope["path"]
        scope["root_path"] = self.root_path

        async def send_with_headers(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        refusal, app = self._refusal(Headers(scope=scope)), self.app
        if refusal:
            app = JSONResponse({"detail": refusal}, 403)
        elif self.root_path and scope["path"] == self.root_path and scope["type"] == "http":
            query = scope["query_string"].decode("latin-1")
            app = RedirectResponse(f"{self.root_path}/" + (f"?{query}" if query else ""))
        try:
            await app(scope, receive, send_with_headers)
        except Exception:
            logger.exception("%s failed (request %s).", scope["path"], scope.get("facerwkv.id", "without id"))
            raise
        finally:
            outer["route"] = scope.get("route")

    def _refusal(self, headers: Headers) -> str:
        """Why a request with these headers is refused, or ""."""
        host, origin = headers.get("host", ""), headers.get("origin")
        try:
            name = urlsplit(f"//{host}").hostname or ""
            foreign = origin is not None and urlsplit(origin).netloc.lower() != host.lower()
        except ValueError:  # brackets that are not closed
            name, foreign = "", True
        if name not in self.hosts and not is_loopback(name):
            if self.hosts:
                return "This service is not reached under this name. Start it with --allowed-host NAME."
            if self.local:
                return (
                    "This service is for this machine only: open it as http://127.0.0.1 or localhost, or start it with "
                    "--allowed-host NAME."
                )
        return "Scripts of other pages may not use this service." if foreign else ""
