"""What the service did: an id for each request, lines of an access log, and figures for Prometheus."""

import logging
import re
import secrets
import threading
import time
from collections import Counter
from collections.abc import Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

ACCESS = logging.getLogger("facerwkv.access")
ID = "X-Request-Id"
BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds: the upper bounds of the histogram's classes."""
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "WEBSOCKET"})
_KNOWN_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HELP = {
    "facerwkv_requests_total": ("counter", "Requests by method, route and status."),
    "facerwkv_request_seconds": ("histogram", "Time from the first byte of a request to the last of its response."),
    "facerwkv_images_total": ("counter", "Images, and frames of cameras, that were looked at."),
    "facerwkv_faces_total": ("counter", "Faces that were found in them."),
    "facerwkv_images_waiting": ("gauge", "Images in the queue."),
    "facerwkv_jobs": ("gauge", "Videos by state."),
    "facerwkv_streams": ("gauge", "Cameras that are connected."),
    "facerwkv_upload_memory_bytes": ("gauge", "Memory of the images of requests in progress."),
    "facerwkv_upload_disk_bytes": ("gauge", "Disk of the videos that are being uploaded."),
}


class Figures:
    """Counters of one service. Any thread may add to them."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        with self._lock:
            self._counts[f'facerwkv_requests_total{{method="{method}",route="{route}",status="{status}"}}'] += 1
            for bound in (*(bound for bound in BOUNDS if seconds <= bound), "+Inf"):
                self._counts[f'facerwkv_request_seconds_bucket{{route="{route}",le="{bound}"}}'] += 1
            self._counts[f'facerwkv_request_seconds_sum{{route="{route}"}}'] += seconds  # type: ignore[assignment]
            self._counts[f'facerwkv_request_seconds_count{{route="{route}"}}'] += 1

    def text(self, now: Mapping[str, float]) -> str:
        """All figures in Prometheus' text format; `now` are those of this moment."""
        with self._lock:
            values = {**self._counts, **now}
        lines = []
        for name, (kind, help) in _HELP.items():
            lines += [f"# HELP {name} {help}", f"# TYPE {name} {kind}"]
            suffixes = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
            mine = {name + suffix for suffix in suffixes}
            lines += [f"{key} {value:.12g}" for key, value in values.items() if key.partition("{")[0] in mine]
        return "\n".join(lines) + "\n"


class Observer:
    """ASGI middleware around everything: it counts, names each request in its response's X-Request-Id and, with `log`,
    writes a line when it was answered. A proxy's own id is kept. Queries are not written: they may contain the token.
    """

    def __init__(self, app: ASGIApp, figures: Figures, log: bool):
        self.app, self.figures, self.log = app, figures, log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        given, started = Headers(scope=scope).get(ID, ""), time.perf_counter()
        name = given if _KNOWN_ID.fullmatch(given) else secrets.token_hex(8)
        scope["facerwkv.id"], method, status = name, scope.get("method", "WEBSOCKET"), 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                status = message["status"]
                MutableHeaders(scope=message)[ID] = name
            elif message["type"] == "websocket.accept":
                status = 101
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        finally:
            seconds, route = time.perf_counter() - started, getattr(scope.get("route"), "path", "other")
            self.figures.answered(method if method in METHODS else "other", route, status, seconds)
            if self.log:
                client = (scope.get("client") or ("-",))[0]
                ACCESS.info("%s %s %r %d %.1f ms %s", client, method, scope["path"], status, 1000 * seconds, name)
