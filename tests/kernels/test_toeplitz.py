import math
from types import SimpleNamespace

import pytest
import torch
from torch.autograd import gradcheck

from facerwkv.core.errors import InputError
from facerwkv.kernels import toeplitz as module
from facerwkv.kernels.calls import library, problem
from facerwkv.kernels.toeplitz import toeplitz
from facerwkv.kernels.wkv4 import wkv4
from facerwkv.mixers.rwkv1 import initial_table

EXACT = ["reference", "blocked", "fft"]  # those that run in float64
NATIVE = pytest.param("native", marks=pytest.mark.skipif(library() is None, reason=str(problem())))
FAST = ["blocked", "fft", NATIVE]
EVERY = ["reference", *FAST]
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


@pytest.mark.parametrize("implementation", EXACT)
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


def outputs_and_gradients(implementation, *shape, dtype=torch.float32, **options):
    inputs = random_inputs(*shape, dtype=dtype, **options)
    y = toeplitz(*inputs, implementation=implementation)
    weights = torch.linspace(0, 9, y.numel(), dtype=torch.float64).sin().view(y.shape).to(dtype)
    return [tensor.detach().double() for tensor in (y, *torch.autograd.grad(y, inputs, weights))]


@pytest.mark.parametrize("implementation", EXACT[1:])
@pytest.mark.parametrize("length", [1, 2, 63, 64, 65, 150, 200, 521])
def test_outputs_and_gradients_equal_the_reference(implementation, length):
    results = [outputs_and_gradients(name, length, dtype=torch.float64) for name in ("reference", implementation)]
    for expected, actual in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("implementation", FAST)
@pytest.mark.parametrize("length", [1, 2, 15, 16, 127, 128, 129, 600, 1301])
@pytest.mark.parametrize("std", [0, 1, 3, 10])
def test_float32_errors_are_at_most_twice_the_reference_s(implementation, length, std):
    exact = outputs_and_gradients("reference", length, std=std, dtype=torch.float64)
    plain, fast = (outputs_and_gradients(name, length, std=std) for name in ("reference", implementation))
    for truth, reference, actual in zip(exact, plain, fast, strict=True):
        largest = max(truth.abs().max().item(), exact[0].abs().max().item())
        allowed = max(2 * (reference - truth).abs().max().item(), 1e-6 * largest)
        assert (actual - truth).abs().max() <= allowed


@pytest.mark.parametrize("implementation", FAST)
def test_keys_beyond_the_clamp(implementation):
    exact = outputs_and_gradients("reference", 300, std=1e4, dtype=torch.float64)
    for truth, actual in zip(exact, outputs_and_gradients(implementation, 300, std=1e4), strict=True):
        torch.testing.assert_close(actual, truth, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("implementation", EVERY)
@pytest.mark.parametrize("length", [5, 150])
def test_an_empty_batch(implementation, length):
    y, *gradients = outputs_and_gradients(implementation, length, 2, 3, 0)
    assert y.shape == (0, length, 2, 3)
    assert not any(gradient.any() for gradient in gradients)


@pytest.mark.parametrize("implementation", EVERY)
def test_a_nan_comes_out_where_it_came_in(implementation):
    w, alpha, beta, k, v = (tensor.detach() for tensor in random_inputs(150, dtype=torch.float32))
    v[0, 70, 1] = torch.nan
    y = toeplitz(w, alpha, beta, k, v, implementation)
    assert y[0, 70:, 1].isnan().all()
    assert not y[1].isnan().any()


@pytest.mark.parametrize("implementation", FAST)
def test_inputs_that_are_not_contiguous(implementation):
    inputs = [tensor.detach() for tensor in random_inputs(150, dtype=torch.float32)]
    strange = [torch.stack([tensor] * 2, -1)[..., 0] for tensor in inputs]
    assert torch.equal(
        toeplitz(*strange, implementation=implementation), toeplitz(*inputs, implementation=implementation)
    )


@pytest.mark.parametrize("implementation", EVERY)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_computes_in_float32(implementation, dtype):
    inputs = [tensor.detach() for tensor in random_inputs(150, std=3, dtype=dtype)]
    expected = toeplitz(*(tensor.float() for tensor in inputs), implementation=implementation)
    y = toeplitz(*inputs, implementation=implementation)
    assert y.dtype == dtype
    torch.testing.assert_close(y, expected.to(dtype))


@pytest.mark.parametrize(
    ("shape", "dtype", "level", "expected"),
    [
        ((1, 600, 2, 1), torch.float32, "v3", "native"),
        ((1, 600, 2, 1), torch.float32, "v2", "fft"),
        ((1, 600, 2, 1), torch.float64, "v3", "fft"),
        ((1, 600, 2, 1), torch.float32, None, "fft"),
        ((1, 120, 2, 1), torch.float32, None, "blocked"),
        ((1, 600, 2, 64), torch.float32, None, "blocked"),
        ((1, 2600, 2, 64), torch.float32, None, "fft"),
    ],
)
def test_what_auto_is(monkeypatch, shape, dtype, level, expected):
    chosen = []
    there = SimpleNamespace(level=level, toeplitz_forward=None) if level else None
    monkeypatch.setattr("facerwkv.kernels.calls.library", lambda: there)
    monkeypatch.setattr(module, "choose", lambda forms, name, auto: chosen.append(auto) or (lambda *inputs: inputs[4]))
    k = torch.zeros(shape, dtype=dtype)
    toeplitz(*[torch.zeros(2, shape[1])] * 3, k, k)
    assert chosen == [expected]


@pytest.mark.skipif(library() is None, reason=str(problem()))
@pytest.mark.parametrize("size", [1, 3, 16, 20])
def test_c_without_and_with_transforms(monkeypatch, size):
    exact = outputs_and_gradients("reference", 300, 2, size, dtype=torch.float64)
    for leaf in (1024, 100):
        monkeypatch.setattr(module, "NATIVE_LEAF", leaf)
        for truth, actual in zip(exact, outputs_and_gradients("native", 300, 2, size), strict=True):
            torch.testing.assert_close(actual, truth, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(library() is None, reason=str(problem()))
def test_it_is_one_operator_that_pytorch_can_trust():
    from facerwkv.kernels.native.toeplitz import toeplitz as operator

    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(operator, tuple(random_inputs(40, dtype=torch.float32)), test_utils=checks)


@pytest.mark.skipif(library() is None, reason=str(problem()))
def test_torch_compile_sees_the_native_form_whole():
    inputs = random_inputs(150, dtype=torch.float32)
    compiled = torch.compile(lambda *inputs: toeplitz(*inputs), backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(*inputs), toeplitz(*inputs))


def test_without_the_library_native_says_what_to_do(monkeypatch):
    monkeypatch.setattr("facerwkv.kernels.calls.library", lambda: None)
    with pytest.raises(InputError, match="implementation='fft'"):
        toeplitz(*random_inputs(2, dtype=torch.float32), implementation="native")


@pytest.mark.skipif(library() is None, reason=str(problem()))
def test_the_native_form_refuses_what_it_cannot_do():
    with pytest.raises(InputError, match=r"not on cpu in torch\.float64"):
        toeplitz(*random_inputs(2), implementation="native")


@pytest.mark.parametrize("implementation", ["auto", "reference", "native"])
@pytest.mark.parametrize("which", range(5))
def test_shapes_that_do_not_fit_are_refused_before_memory_is_read(implementation, which):
    inputs = [x.detach() for x in random_inputs(20, dtype=torch.float32)]
    inputs[which] = inputs[which][:, :10]
    with pytest.raises(InputError, match=r"toeplitz takes w, alpha and beta \(H, T\), k and v \(B, T, H, S\), not"):
        toeplitz(*inputs, implementation=implementation)


@pytest.mark.parametrize("implementation", EXACT)
def test_gradcheck(implementation):
    assert gradcheck(lambda *inputs: toeplitz(*inputs, implementation=implementation), random_inputs(5, size=1))


@pytest.mark.parametrize("implementation", EXACT)
def test_causal(implementation):
    w, alpha, beta, k, v = (tensor.detach() for tensor in random_inputs(100))
    before = toeplitz(w, alpha, beta, k, v, implementation)
    k[:, 70:] += 3
    torch.testing.assert_close(
        toeplitz(w, alpha, beta, k, v, implementation)[:, :70], before[:, :70], rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("implementation", EXACT)
def test_without_decay_it_is_rwkv4_without_decay_and_bonus(implementation):
    k, v, _ = grid_values(40, 4)
    one, zero = torch.ones(4, 40, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)
    y = toeplitz(one, one, one, k.view(1, 40, 4, 1), v.view(1, 40, 4, 1), implementation)
    torch.testing.assert_close(y.view(1, 40, 4), wkv4(zero, zero, k[None], v[None])[0])


def test_an_unknown_implementation_lists_the_known_ones():
    with pytest.raises(InputError, match="reference, blocked, fft, native"):
        toeplitz(*random_inputs(2), implementation="quick")
