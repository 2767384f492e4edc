"""A quota, and who gives way to whom."""

import asyncio

import pytest
from fastapi import HTTPException

from facerwkv.web import shares
from facerwkv.web.shares import SLOWEST, Quota


@pytest.fixture
def clock(monkeypatch):
    """Seconds that the test sets."""
    now = [0.0]
    monkeypatch.setattr(shares.time, "monotonic", lambda: now[0])
    return now


async def held(quota: Quota, sent: list[tuple[float, int]], clock: list[float], units: int):
    """Whether a client that sent so many bytes at these times still holds its share after another took `units`."""
    clock[0] = 0.0
    with quota.reserved() as share:
        try:
            async with share.waiting(600):
                for clock[0], count in sent:
                    share.take(count)
                with quota.reserved() as other:
                    other.take(units)
                await asyncio.sleep(0)
        except TimeoutError:
            return not share.gave_way
    return True


@pytest.mark.parametrize(
    ("sent", "keeps"),
    [
        ([(0.0, 50_000), (0.9, 0)], None),
        ([(0.0, 50_000), (1.2, 0)], False),
        ([(i / 4, 10_000) for i in range(20)], None),
        ([(i, 15_000) for i in range(5)], False),
        ([(0.0, 90_000), (5.0, 1)], False),
    ],
    ids=["is there", "stalled", "moves", "trickles", "stalled later"],
)
def test_who_stands_still_gives_way(clock, sent, keeps):
    quota = Quota(200_000)
    if keeps is None:
        with pytest.raises(HTTPException) as refused:
            asyncio.run(held(quota, sent, clock, 199_999))
        assert (refused.value.status_code, refused.value.headers) == (503, {"Retry-After": "5"})
    else:
        assert asyncio.run(held(quota, sent, clock, 199_999)) is keeps
    assert quota.used == 0


def test_nobody_gives_way_where_there_is_room_or_while_the_service_works(clock):
    quota = Quota(3 * SLOWEST)
    assert asyncio.run(held(quota, [(0.0, SLOWEST), (9.0, 0)], clock, SLOWEST)) is True
    with quota.reserved(2 * SLOWEST), pytest.raises(HTTPException), quota.reserved(2 * SLOWEST):
        clock[0] = 100.0
    assert quota.used == 0
