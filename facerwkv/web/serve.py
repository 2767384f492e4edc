"""`facerwkv serve`: one process, one port, until Ctrl-C."""

import errno
import gc
import logging
import os
import re
import secrets
import socket
import sys
import warnings
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from facerwkv.core.devices import set_threads
from facerwkv.core.errors import InputError
from facerwkv.inference.predictor import Engine, load

if TYPE_CHECKING:
    from fastapi import FastAPI

    from facerwkv.web.guard import Limits

NEEDED = ("fastapi", "python_multipart", "uvicorn", "websockets", "av")
CONNECTIONS = 500
GRACE = 1
"""Seconds that responses in progress may take after Ctrl-C."""


def serve(
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    model: str | Path | None = None,
    device: str = "auto",
    detector_model: Path | None = None,
    engine: Engine | None = None,
    limits: Mapping[str, Any] | None = None,
    hosts: Sequence[str] = (),
    root_path: str = "",
    access_log: bool = False,
) -> None:
    """Serve until Ctrl-C. `port` 0 is any free port; `limits` are fields of Limits.

    `hosts` are names under which a proxy is reached, `root_path` the prefix there. A service that other machines can
    reach needs a token; if none is given, one is made and printed. InputError if the port is in use, the host, the
    model or a limit does not exist, a name or prefix cannot be one, or the extra `serve` is not installed.
    """
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise InputError(f'The service needs {", ".join(missing)}: pip install "facerwkv[serve]"')
    from facerwkv.web.app import create_app
    from facerwkv.web.guard import Limits, is_loopback

    allowed, local = Limits.parse(limits or {}), is_loopback(host)
    token = token or (None if local and not hosts else secrets.token_urlsafe(16))
    root_path = _prefix(root_path)
    for each in hosts:
        if not re.fullmatch(r"[A-Za-z0-9._-]+|[0-9a-fA-F:]+", each):
            raise InputError(f"{each!r} is no host: give its name alone, such as faces.example.org.")
    with _listening(host, port) as listening:
        set_threads(1)  # requests share the cores; if each used all of them, they would wait for one another
        predictor = load(model, device, detector_model, engine)
        path = f"{root_path}/" + (f"?token={quote(token, safe='')}" if token else "")
        print(f"{predictor!r}\nOpen http://{_name(host)}:{listening.getsockname()[1]}{path}")
        if hosts:
            print(f"Behind the proxy: https://{hosts[0]}{path}")
        elif not local:
            print("Other machines reach it under this machine's name. The connection is not encrypted.")
        print("Uploads are not stored. Press Ctrl-C to stop.", flush=True)
        _set_up(access_log)
        app = create_app(predictor, allowed, token, local, hosts, root_path, access_log)
        _run(app, allowed, listening)


def _listening(host: str, port: int) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        # Named TCP, or asyncio would not turn Nagle's algorithm off: 40 ms per response.
        listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        if os.name == "posix":
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(CONNECTIONS)
    except (OSError, OverflowError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        if isinstance(error, socket.gaierror) or getattr(error, "errno", None) == errno.EADDRNOTAVAIL:
            advice = "127.0.0.1 is this machine alone, 0.0.0.0 every network that it is in: --host."
            raise InputError(f"The host {host} is no address of this machine: {reason}. {advice}") from error
        raise InputError(f"Port {port} of {host} cannot be used: {reason}. Choose another: --port.") from error
    return listening


def _name(host: str) -> str:
    """What to open a service at that listens on a host: one that stands for all addresses is none itself."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{host}]" if ":" in host else host


def _prefix(root_path: str) -> str:
    """With a slash before it and none behind it, or empty."""
    path = root_path.strip("/")
    if not re.fullmatch(r"[A-Za-z0-9._~/-]*", path) or "//" in path or ".." in path:
        raise InputError(f"{root_path!r} is no prefix of an address: write it as /faces.")
    return f"/{path}" if path else ""


def _set_up(access_log: bool) -> None:
    """What holds for the whole process."""
    import cv2

    from facerwkv.web.observe import ACCESS

    cv2.setNumThreads(1)
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # damaged uploads are no news
    warnings.filterwarnings("ignore", module="PIL")
    if access_log:
        ACCESS.setLevel(logging.INFO)
        ACCESS.addHandler(handler := logging.StreamHandler(sys.stdout))
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))


def _run(app: "FastAPI", limits: "Limits", listening: socket.socket) -> None:
    import uvicorn

    from facerwkv.web.patience import PatientProtocol
    from facerwkv.web.stopping import Server

    gc.collect()
    gc.freeze()  # what is loaded stays: scanning it made everybody wait for 0.2 s now and then
    config = uvicorn.Config(
        app,
        http=PatientProtocol,
        ws_max_size=limits.upload_bytes,
        ws_max_queue=2,
        log_level="critical",  # addresses contain the token
        server_header=False,
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=GRACE,
    )
    try:
        Server(config).run(sockets=[listening])
    finally:
        gc.unfreeze()  # or some libraries complain at exit about what was not freed
