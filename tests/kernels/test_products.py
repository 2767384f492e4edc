import pytest
import torch
from torch.autograd import gradcheck
from torch.nn import functional

from facerwkv.kernels.gates import token_mix
from facerwkv.kernels.products import mixed_products, squared_relu_product


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


@pytest.mark.parametrize("length", [0, 1])
def test_no_token_and_one(length):
    x, mixes, _, *weights = inputs(length=length)
    assert [y.shape for y in mixed_products(x, mixes, weights)] == [(2, length, 3), (2, length, 4)]


def test_the_mixed_tokens_are_not_kept():
    x, mixes, last, *weights = inputs(torch.float32, length=50)
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.numel()) or tensor, lambda x: x):
        mixed_products(x, mixes, weights, last)
    assert sum(kept) == sum(tensor.numel() for tensor in (x, mixes, last, *weights))
