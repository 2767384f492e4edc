import pytest
import torch
from torch.autograd import gradcheck
from torch.nn import functional

from facerwkv.kernels.gates import token_mix
from facerwkv.kernels.products import gated_product, mixed_products, squared_relu_product


def inputs(dtype=torch.float64, length=5, width=6):
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, length, width), (2, width), (2, width), (3, width), (4, width)]  # x, mixes, last, two matrices
    tensors = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    return [tensor.to(dtype).requires_grad_() for tensor in tensors]


def test_mixed_products_are_products_of_mixed_tokens():
    x, mixes, last, *weights = inputs()
    expected = [functional.linear(part, w) for part, w in zip(token_mix(x, mixes, last), weights, strict=True)]
    for actual in (mixed_products(x, mixes, weights, last), no_grad(lambda: mixed_products(x, mixes, weights, last))):
        for one, other in zip(actual, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0)


def no_grad(function):
    with torch.no_grad():
        return function()


def test_gradients_of_mixed_products():
    assert gradcheck(lambda x, mixes, last, *weights: mixed_products(x, mixes, list(weights), last), inputs())


def test_gradients_of_a_product_of_squares():
    x, *_, weight = inputs()
    assert gradcheck(squared_relu_product, (x, weight))
    torch.testing.assert_close(squared_relu_product(x, weight), functional.linear(x.relu().square(), weight))


def test_gradients_of_a_gated_product():
    r, _, _, _, weight = inputs()
    x = inputs()[0].detach().flip(1).requires_grad_()
    assert gradcheck(gated_product, (r, x, weight))
    torch.testing.assert_close(gated_product(r, x, weight), functional.linear(r.sigmoid() * x, weight))
    torch.testing.assert_close(no_grad(lambda: gated_product(r, x, weight)), gated_product(r, x, weight).detach())


@pytest.mark.parametrize("length", [0, 1])
def test_no_token_and_one(length):
    x, mixes, _, *weights = inputs(length=length)
    assert [y.shape for y in mixed_products(x, mixes, weights)] == [(2, length, 3), (2, length, 4)]


@pytest.mark.parametrize(
    "product",
    [
        lambda x, mixes, last, *weights: mixed_products(x, mixes, list(weights), last),
        lambda x, mixes, last, *weights: gated_product(x, x, weights[1]),
        lambda x, mixes, last, *weights: squared_relu_product(x, weights[1]),
    ],
)
def test_only_inputs_are_kept(product):
    kept: set[int] = set()
    given = inputs(torch.float32, length=50)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.add(tensor.data_ptr()) or tensor, lambda x: x):
        product(*given)
    assert kept <= {tensor.data_ptr() for tensor in given}
