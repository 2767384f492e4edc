"""The end of `facerwkv serve`: soon after the first signal, at once at the second."""

import os
import shutil
import signal
import socket
import threading
from contextlib import suppress
from types import FrameType

import uvicorn

LIMIT = 2.5
"""Seconds from the first signal to the end of the process."""
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)]


class Server(uvicorn.Server):
    """Uvicorn's server for one service. A thread may be inside of C code, which nothing interrupts: then the process
    ends under it, and the temporary folder is removed all the same."""

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until Ctrl-C, SIGTERM or SIGHUP, unless that is ignored, as under nohup."""
        before, self._timer = {}, threading.Timer(LIMIT, self._end)
        self._timer.daemon = True
        for each in SIGNALS if threading.current_thread() is threading.main_thread() else ():
            if signal.getsignal(each) is not signal.SIG_IGN or each == signal.SIGINT:
                before[each] = signal.signal(each, self.handle_exit)
        try:
            super().run(sockets)
        finally:
            self._timer.cancel()
            for each, handler in before.items():
                signal.signal(each, handler)
        _say_goodbye()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            self._end()
        self.should_exit = True
        self._timer.start()

    def _end(self) -> None:
        jobs = getattr(self.config.app.state, "jobs", None)  # type: ignore[union-attr]
        if jobs is not None:
            shutil.rmtree(jobs.folder, ignore_errors=True)
        with suppress(Exception):
            _say_goodbye()
        os._exit(0)


def _say_goodbye() -> None:
    print("Stopped; the temporary files are removed.", flush=True)
