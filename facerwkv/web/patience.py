"""HTTP/1.1 with an end to waiting: headers that do not arrive close a connection, and a refusal arrives."""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

LINGER = 1.0
"""Seconds in which what a refused client still sends is read."""


def patient(seconds: float) -> "type[PatientProtocol]":
    """The protocol with a time that the headers of a request may take."""
    return type("Protocol", (PatientProtocol,), {"seconds": seconds})


class PatientProtocol(H11Protocol):
    """Uvicorn's protocol, which waits for a header's end for ever, with a limit to that.

    Of its two, the one with h11, since that bounds the size of the headers.
    """

    seconds = 20.0
    _deadline: asyncio.TimerHandle | None = None
    _refused = False

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        if not self._refused:
            super().data_received(data)
            self._watch()

    def send_400_response(self, msg: str) -> None:
        """Answer, and drop for LINGER seconds what still arrives: closed at once, TCP would lose the answer."""
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
        answer = h11.Response(status_code=400, headers=headers, reason=b"Bad Request")
        for event in (answer, h11.Data(data=msg.encode()), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event))
        self._refused = True
        self.transport.write_eof()
        self.loop.call_later(LINGER, self.transport.close)

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
