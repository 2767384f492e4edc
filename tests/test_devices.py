import pytest

from facerwkv.devices import choose_device
from facerwkv.errors import InputError


def test_auto_is_a_device_that_is_here():
    assert choose_device(choose_device("auto").type).type in ("cpu", "cuda", "mps")


@pytest.mark.parametrize("name", ["", "tpu", "cuda:99", "gpu"])
def test_a_device_that_is_not_here_is_named(name):
    with pytest.raises(InputError, match=f"There is no device {name!r} here. Choose auto or one of: .*cpu"):
        choose_device(name)
