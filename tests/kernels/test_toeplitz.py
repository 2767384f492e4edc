import math

import pytest
import torch
from torch.autograd import gradcheck

from facerwkv.errors import InputError
from facerwkv.kernels.toeplitz import IMPLEMENTATIONS, toeplitz
from facerwkv.kernels.wkv4 import wkv4
from facerwkv.mixers.rwkv1 import initial_table

FAST = [name for name in IMPLEMENTATIONS if name != "reference"]
# Reference vectors: T=5, C=4, H=2; k=sin(.7t+1.3c+.1), v=cos(.9t+.4c+.2), r=sin(.5t+.8c+.3), in float64.
ROW_0 = [0.56191826, 0.58527789, 0.38921784, 0.10287225]
ROW_4 = [-0.18428706, -0.02560623, -0.01910271, -0.04567771]


def grid_values(length=5, channels=4):
    t, c = torch.meshgrid(
        torch.arange(length, dtype=torch.float64), torch.arange(channels, dtype=torch.float64), indexing="ij"
    )
    return torch.sin(0.7 * t + 1.3 * c + 0.1), torch.cos(0.9 * t + 0.4 * c + 0.2), torch.sin(0.5 * t + 0.8 * c + 0.3)


def random_inputs(length, heads=2, size=3, batch=2, std=1.0, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    tables = [torch.randn(heads, length, generator=generator, dtype=torch.float64) for _ in range(3)]
    k, v = (torch.randn(batch, length, heads, size, generator=generator, dtype=torch.float64) for _ in range(2))
    return [tensor.to(dtype).requires_grad_() for tensor in (*tables, k * std, v)]


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_published_vectors(implementation):
    k, v, r = grid_values()
    w = initial_table(2, 5).double()
    w[0] = torch.exp(-0.2 * torch.arange(4, -1, -1, dtype=torch.float64))
    one = torch.ones(2, 5, dtype=torch.float64)
    y = toeplitz(w, one, one, k.view(1, 5, 2, 2), v.view(1, 5, 2, 2), implementation).reshape(5, 4) * r.sigmoid()
    torch.testing.assert_close(y[0], torch.tensor(ROW_0, dtype=torch.float64), atol=1e-8, rtol=0)
    torch.testing.assert_close(y[4], torch.tensor(ROW_4, dtype=torch.float64), atol=1e-8, rtol=0)


def test_initial_table_of_two_heads():
    torch.testing.assert_close(initial_table(2, 5)[0], torch.tensor([math.exp(-0.2 * lag) for lag in (4, 3, 2, 1, 0)]))
    assert (initial_table(2, 5)[1] == 1).all()
    assert (initial_table(1, 5) == 1).all()


@pytest.mark.parametrize("implementation", FAST)
@pytest.mark.parametrize("length", [1, 2, 63, 64, 65, 150, 200])
def test_outputs_and_gradients_equal_the_reference(implementation, length):
    inputs = random_inputs(length)
    results = []
    for name in ("reference", implementation):
        y = toeplitz(*inputs, implementation=name)
        results.append((y, *torch.autograd.grad((y * y.detach().cos()).sum(), inputs)))
    for expected, actual in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("implementation", FAST)
@pytest.mark.parametrize("std", [0, 1, 3, 10])
def test_float32_error_is_at_most_twice_the_reference_s(implementation, std):
    exact = toeplitz(*random_inputs(600, std=std), implementation="reference")
    errors = {
        name: (toeplitz(*random_inputs(600, std=std, dtype=torch.float32), implementation=name) - exact).abs().max()
        for name in ("reference", implementation)
    }
    assert errors[implementation] <= max(2 * errors["reference"], 1e-6 * exact.abs().max())


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_gradcheck(implementation):
    assert gradcheck(lambda *inputs: toeplitz(*inputs, implementation=implementation), random_inputs(5, size=1))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_causal(implementation):
    w, alpha, beta, k, v = (tensor.detach() for tensor in random_inputs(100))
    before = toeplitz(w, alpha, beta, k, v, implementation)
    k[:, 70:] += 3
    torch.testing.assert_close(
        toeplitz(w, alpha, beta, k, v, implementation)[:, :70], before[:, :70], rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_without_decay_it_is_rwkv4_without_decay_and_bonus(implementation):
    k, v, _ = grid_values(40, 4)
    one, zero = torch.ones(4, 40, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)
    y = toeplitz(one, one, one, k.view(1, 40, 4, 1), v.view(1, 40, 4, 1), implementation)
    torch.testing.assert_close(y.view(1, 40, 4), wkv4(zero, zero, k[None], v[None])[0])


def test_an_unknown_implementation_lists_the_known_ones():
    with pytest.raises(InputError, match="reference, blocked"):
        toeplitz(*random_inputs(2), implementation="quick")
