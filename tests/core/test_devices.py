import os

import pytest

from facerwkv.core.devices import choose_device, cores
from facerwkv.core.errors import InputError


def test_auto_is_a_device_that_is_here():
    assert choose_device(choose_device("auto").type).type in ("cpu", "cuda", "mps")


@pytest.mark.parametrize("name", ["", "tpu", "cuda:99", "gpu"])
def test_a_device_that_is_not_here_is_named(name):
    with pytest.raises(InputError, match=f"There is no device {name!r} here. Choose auto or one of: .*cpu"):
        choose_device(name)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no process to cores")
def test_only_the_cores_that_a_process_may_use_are_counted():
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)
    assert cores() == len(allowed)
