"""`facerwkv serve`: one process, one port, until Ctrl-C."""

import gc
import importlib
import logging
import os
import secrets
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from facerwkv.core.errors import InputError
from facerwkv.inference.predictor import Engine, Predictor, load
from facerwkv.web.guard import Limits

NEEDED = ("fastapi", "python_multipart", "uvicorn", "websockets", "av")
CONNECTIONS = 500
GOODBYE = 3
"""Seconds that answers may take after Ctrl-C."""


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
    """Answer until Ctrl-C. `port` 0 is a free one; `limits` are fields of Limits.

    A host that other machines reach needs a token; without one, a new one is made and printed. InputError if the port
    is taken, there is no such host, model or limit, or the extra `serve` is not installed.
    """
    _need_extra()
    from facerwkv.web.guard import is_loopback

    allowed, local = Limits.parse(limits or {}), is_loopback(host)
    token = token or (None if local else secrets.token_urlsafe(16))
    with _listening(host, port) as listening:
        predictor = _predictor(model, device, detector_model, engine)
        print(_greeting(predictor, _address(host, listening, token), local), flush=True)
        with suppress(KeyboardInterrupt):
            _run(predictor, allowed, token, local, listening)
    print("Stopped; the temporary files are removed.", flush=True)


def _need_extra() -> None:
    for name in NEEDED:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise InputError(f'The service needs {name}: pip install "facerwkv[serve]"') from error


def _listening(host: str, port: int) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        # Named TCP, or asyncio would not turn Nagle's algorithm off: 40 ms an answer.
        listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        if os.name == "posix":
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(CONNECTIONS)
    except (OSError, OverflowError) as error:
        raise InputError(f"Port {port} of {host} cannot be used: {_reason(error)}. Choose another: --port.") from error
    return listening


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).lower()


def _predictor(model: Any, device: str, detector_model: Path | None, engine: Engine | None) -> Predictor:
    from facerwkv.web.predictions import ThreadDetectors

    return Predictor(load(model, device, None, engine).checkpoint, device, ThreadDetectors(detector_model))


def _address(host: str, listening: socket.socket, token: str | None) -> str:
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{listening.getsockname()[1]}/" + (f"?token={token}" if token else "")


def _greeting(predictor: Predictor, address: str, local: bool) -> str:
    lines = [f"{predictor!r}", f"Open {address}"]
    if not local:
        lines.append("Other machines reach it under this one's name. Nothing is encrypted on the way.")
    return "\n".join([*lines, "Nothing that is uploaded is stored. Ctrl-C ends the service."])


def _one_core_each() -> None:
    """The requests share the cores; were each to use all of them, they would wait for each other."""
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def _run(predictor: Predictor, limits: Limits, token: str | None, local: bool, listening: socket.socket) -> None:
    import uvicorn

    from facerwkv.web.app import create_app
    from facerwkv.web.patience import patient

    _one_core_each()
    gc.collect()
    gc.freeze()  # what is loaded stays: looking through it made everybody wait for 0.2 s now and then
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # damaged uploads are no news
    config = uvicorn.Config(
        create_app(predictor, limits, token, local),
        http=patient(limits.header_seconds),
        ws_max_size=limits.upload_bytes,
        ws_max_queue=2,
        log_level="critical",  # addresses hold the token
        server_header=False,
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=GOODBYE,
    )
    try:
        uvicorn.Server(config).run(sockets=[listening])
    finally:
        gc.unfreeze()  # or some libraries complain at the end of what was not freed
