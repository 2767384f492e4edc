"""Who may have how much at a time: memory, disk, streams. A slow client gives way to others."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

from fastapi import HTTPException

PATIENCE = 1.0
"""Seconds that a client may stand still before it gives way to another."""
SLOWEST = 16 * 2**10
"""Bytes per second below which a client stands still."""


@dataclass
class Quota:
    """At most `limit` units in use at a time: bytes, or streams. HTTPException 503 beyond that."""

    limit: int
    used: int = field(default=0, init=False)
    _shares: "set[Share]" = field(default_factory=set, init=False)

    @contextmanager
    def reserved(self, count: int = 0) -> Iterator["Share"]:
        """A share of `count` units, which may take more; it ends with the block."""
        share = Share(self)
        self._shares.add(share)
        try:
            share.take(count)
            yield share
        finally:
            self._shares.remove(share)
            self.used -= share.held

    def make_room(self, count: int) -> None:
        """For so many units more: those who stand still give way, the stillest first."""
        while self.used + count > self.limit:
            still = max(self._shares, key=lambda share: share.stood, default=None)
            if still is None or not still.stood:
                raise HTTPException(503, "The service is busy. Try again in a few seconds.", {"Retry-After": "5"})
            still.give_way()


@dataclass(eq=False)
class Share:
    """What one client holds of a quota. It can lose it only while its client is waited for."""

    quota: Quota
    held: int = 0
    gave_way: bool = False
    _timer: asyncio.Timeout | None = None
    _since: float = 0.0
    _moved: int = 0

    def take(self, count: int) -> None:
        self.quota.make_room(count)
        self.quota.used += count
        self.held += count
        self._moved += count
        if self._moved >= SLOWEST * max(PATIENCE, time.monotonic() - self._since):
            self._since, self._moved = time.monotonic(), 0

    @asynccontextmanager
    async def waiting(self, seconds: float) -> AsyncIterator[None]:
        """The block waits for the client. TimeoutError after so long, or when the share gives way."""
        try:
            async with asyncio.timeout(seconds) as self._timer:
                self._since, self._moved = time.monotonic(), 0
                yield
        finally:
            self._timer = None

    @property
    def stood(self) -> float:
        """Seconds for which the client stood still; 0 where it did not."""
        took = time.monotonic() - self._since
        return took if self._timer and took > PATIENCE else 0.0

    def give_way(self) -> None:
        if self._timer:
            self.quota.used -= self.held
            self.held, self.gave_way = 0, True
            self._timer.reschedule(asyncio.get_running_loop().time())
            self._timer = None
