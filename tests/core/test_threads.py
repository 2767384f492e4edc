import threading
import time

import pytest

from facerwkv.core.threads import map_ahead


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_come_in_order_whatever_takes_longest(threads):
    def call(item: int) -> int:
        time.sleep(0.01 * (3 - item % 4))
        return item * item

    assert list(map_ahead(call, range(12), threads)) == [item * item for item in range(12)]


def test_calls_run_at_once_and_few_items_are_taken_ahead():
    both, taken = threading.Barrier(2, timeout=5), []
    results = map_ahead(lambda item: both.wait() >= 0, (taken.append(item) or item for item in range(10)), 2)
    assert next(results)
    assert taken == [0, 1, 2]
    both.abort()
    results.close()


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("where", ["items", "call"])
def test_an_error_comes_after_the_results_before_it(threads, where):
    def items():
        yield from range(5)
        if where == "items":
            raise OSError("cut short")
        yield 5

    def call(item: int) -> int:
        if item == 5:
            raise OSError("cut short")
        return item

    results = map_ahead(call, items(), threads)
    assert [next(results) for _ in range(5)] == list(range(5))
    with pytest.raises(OSError, match="cut short"):
        next(results)
