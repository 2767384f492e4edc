"""HTTP/1.1 with two things that uvicorn does not limit or do.

None of its settings ends a request whose headers do not arrive: `timeout_keep_alive` only runs between a response and
the next byte, `h11_max_incomplete_event_size` bounds the headers' size, and `limit_concurrency` refuses the other
clients once enough such connections are open. And it closes a connection at once after refusing what it sent.
"""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

LINGER = 1.0
"""Seconds during which what a refused client still sends is read."""


class PatientProtocol(H11Protocol):
    """Uvicorn's protocol for an `app` with `state.limits.header_seconds`, the time that headers may take.

    Of uvicorn's two protocols it is the one with h11, since that bounds the size of the headers.
    """

    _deadline: asyncio.TimerHandle | None = None
    _refused = False

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        if not self._refused:
            super().data_received(data)
            self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._watch(lost=True)

    def _watch(self, lost: bool = False) -> None:
        """Run the clock from the first awaited byte of a request until its headers are complete."""
        awaiting = self.conn.their_state is h11.IDLE and not lost
        if awaiting and self._deadline is None:
            seconds = self.config.app.state.limits.header_seconds  # type: ignore[union-attr]
            self._deadline = self.loop.call_later(seconds, self.transport.close)
        elif not awaiting and self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def send_400_response(self, msg: str) -> None:
        """Answer, and drop for LINGER seconds what still arrives: closed at once, TCP would lose the answer."""
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
        answer = h11.Response(status_code=400, headers=headers, reason=b"Bad Request")
        for event in (answer, h11.Data(data=msg.encode()), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event))
        self._refused = True
        self.transport.write_eof()
        self.loop.call_later(LINGER, self.transport.close)
