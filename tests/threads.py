"""Calls from many threads at once, and in a forked process."""

import os
import signal
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any


def side_by_side(ask: Callable[[int], Any], count: int, threads: int = 8) -> list[Any]:
    """`ask(0)` to `ask(count - 1)`, by threads that start at the same moment."""
    together = threading.Barrier(threads := min(threads, count))
    with ThreadPoolExecutor(threads, initializer=together.wait) as pool:
        return list(pool.map(ask, range(count)))


def forked(check: Callable[[], bool], seconds: float = 60) -> str:
    """What became of `check` in a fork of this process: "right", "wrong", "failed" or "hung"."""
    child = os.fork()
    if not child:
        code = 2
        try:
            code = int(not check())
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return {0: "right", 1: "wrong"}.get(os.waitstatus_to_exitcode(status), "failed")
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "hung"
