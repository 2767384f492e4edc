"""Derivatives of whole models by torch.func, against the same model in float64, where no fast form runs."""

import pytest
import torch

from tests.models.test_models import images_of, small

MODELS = ["facerwkv_small", "facerwkv4_small", "facerwkv6_small", "facerwkv7_small", "vrwkv_tiny", "facerwkv_fer_tiny"]


def derivatives(model, x):
    """Forward mode, reverse mode and twice, of the first logit."""
    direction = torch.linspace(-1, 1, x.numel(), dtype=x.dtype).sin().view_as(x)

    def first(image):
        return model(image)[0, 0]

    _, forward = torch.func.jvp(first, (x,), (direction,))
    slope = torch.func.grad(first)(x)
    (along,) = torch.func.jacfwd(lambda step: first(x + step * direction))(x.new_zeros(1))
    given = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(first(given), given, create_graph=True)
    (twice,) = torch.autograd.grad((gradient * direction).sum(), given)
    return forward, along, (slope * direction).sum(), slope, twice


@pytest.mark.parametrize("name", MODELS)
def test_every_kind_of_derivative_is_right(name):
    torch.manual_seed(0)
    model, x = small(name, depth=2), images_of(name, 1)
    found = derivatives(model, x)
    exact = derivatives(model.double(), x.double())
    assert exact[0] != 0
    for one, truth in zip(found, exact, strict=True):
        torch.testing.assert_close(one.double(), truth, rtol=1e-3, atol=1e-3 * truth.abs().max().item())
