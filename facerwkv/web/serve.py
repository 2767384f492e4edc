"""`facerwkv serve`: one process, one port, until Ctrl-C."""

import gc
import logging
import os
import secrets
import socket
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facerwkv.core.errors import InputError
from facerwkv.inference.predictor import Engine, Predictor, load

if TYPE_CHECKING:
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
) -> None:
    """Serve until Ctrl-C. `port` 0 is any free port; `limits` are fields of Limits.

    A host that other machines can reach needs a token; if none is given, one is made and printed. InputError if the
    port is in use, the host, the model or a limit does not exist, or the extra `serve` is not installed.
    """
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise InputError(f'The service needs {", ".join(missing)}: pip install "facerwkv[serve]"')
    from facerwkv.web.guard import Limits, is_loopback

    allowed, local = Limits.parse(limits or {}), is_loopback(host)
    token = token or (None if local else secrets.token_urlsafe(16))
    with _listening(host, port) as listening:
        predictor = load(model, device, detector_model, engine)
        name = f"[{host}]" if ":" in host else host
        address = f"http://{name}:{listening.getsockname()[1]}/" + (f"?token={token}" if token else "")
        print(f"{predictor!r}\nOpen {address}")
        if not local:
            print("Other machines reach it under this machine's name. The connection is not encrypted.")
        print("Uploads are not stored. Press Ctrl-C to stop.", flush=True)
        _run(predictor, allowed, token, local, listening)


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
        raise InputError(f"Port {port} of {host} cannot be used: {reason}. Choose another: --port.") from error
    return listening


def _run(predictor: Predictor, limits: "Limits", token: str | None, local: bool, listening: socket.socket) -> None:
    import cv2
    import torch
    import uvicorn

    from facerwkv.web.app import create_app
    from facerwkv.web.patience import PatientProtocol
    from facerwkv.web.stopping import Server

    # The requests share the cores; if each used all of them, they would wait for one another.
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    gc.collect()
    gc.freeze()  # what is loaded stays: scanning it made everybody wait for 0.2 s now and then
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # damaged uploads are no news
    config = uvicorn.Config(
        create_app(predictor, limits, token, local),
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
