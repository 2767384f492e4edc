"""HTTP/1.1 with an end to waiting: a connection whose headers do not arrive is closed."""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


def patient(seconds: float) -> "type[PatientProtocol]":
    """The protocol with a time that the headers of a request may take."""
    return type("Protocol", (PatientProtocol,), {"seconds": seconds})


class PatientProtocol(H11Protocol):
    """Uvicorn's protocol, which waits for a header's end for ever, with a limit to that.

    Of its two, the one with h11, since that bounds the size of the headers.
    """

    seconds = 20.0
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop_watching()

    def _watch(self) -> None:
        """Run the clock from the first byte that is awaited until the headers are there."""
        if self.conn.their_state is not h11.IDLE:
            self._stop_watching()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(self.seconds, self.transport.close)

    def _stop_watching(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
