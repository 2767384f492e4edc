"""Threads of the service: what does not end in time does not hold up the end of the process."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Future
from typing import TypeVar

NAME = "facerwkv-serve"
Answer = TypeVar("Answer")


def start(work: Callable[[], None]) -> threading.Thread:
    """A daemon thread that works."""
    thread = threading.Thread(target=work, name=NAME, daemon=True)
    thread.start()
    return thread


def in_thread(call: Callable[[], Answer]) -> Awaitable[Answer]:
    """The result of a call in a thread of its own; asyncio's own threads are waited for when the process ends."""
    future: Future[Answer] = Future()

    def work() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    future.set_running_or_notify_cancel()
    start(work)
    return asyncio.wrap_future(future)


def join(threads: Iterable[threading.Thread], seconds: float) -> None:
    """Wait for threads, for so long in all."""
    until = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
