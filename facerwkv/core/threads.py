"""A call for each of many items, a few of them ahead, in threads."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def map_ahead(
    call: Callable[[T], R],
    items: Iterable[T],
    threads: int,
    ahead: Callable[[T], int] = lambda _: 0,
    shared: ThreadPoolExecutor | None = None,
) -> Iterator[R]:
    """`map`, whose calls run in threads: as many items as there are threads are taken and worked on ahead, or as many
    as `ahead` says of the latest.

    What the items or a call raises comes after the results before it. With one thread, or for one item, it is `map`.
    `shared` has `threads` threads that do other work too; else they are its own.
    """
    if threads < 2:
        yield from map(call, items)
        return
    taken: list[T] = []  # the first item: a second one makes it worth a thread
    waiting: deque[Future[R]] = deque()
    raised: list[Future[R]] = []  # what the items raised
    pool, source, ended, most = shared or ThreadPoolExecutor(threads), iter(items), False, 0
    try:
        while not ended:
            try:
                taken.append(next(source))
                most = max(threads, ahead(taken[-1]))
            except StopIteration:
                ended = True
            except Exception as error:
                ended, raised = True, [Future()]
                raised[0].set_exception(error)
            if len(taken) > 1 or waiting:
                waiting.extend(pool.submit(call, item) for item in taken)
                taken.clear()
            if len(waiting) > most:
                yield waiting.popleft().result()
        yield from map(call, taken)
        for future in (*waiting, *raised):
            yield future.result()
    finally:
        if not shared:
            pool.shutdown(cancel_futures=True)
