import pytest
import torch
from torch.autograd import gradcheck

from facerwkv.kernels.wkv4 import IMPLEMENTATIONS, wkv4

FAST = [name for name in IMPLEMENTATIONS if name != "reference"]
# Reference vectors, float64: T=5, C=4, w=exp([-1, -.5, 0, .5]), u=[.3, -.2, .1, 0].
ROWS = {
    0: [0.98006658, 0.82533561, 0.54030231, 0.16996714],
    2: [0.02408134, 0.10637254, -0.22180810, -0.75091954],
    4: [-0.48886457, -0.34500045, -0.41316275, -0.04316769],
}


def random_inputs(length, channels=5, batch=2, std=1.0, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    w, u = torch.randn(2, channels, generator=generator, dtype=torch.float64)
    k, v = torch.randn(2, batch, length, channels, generator=generator, dtype=torch.float64)
    return [tensor.to(dtype).requires_grad_() for tensor in (w.exp(), u, k * std, v)]


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_published_vectors(implementation):
    t, c = torch.meshgrid(torch.arange(5.0).double(), torch.arange(4.0).double(), indexing="ij")
    k, v = torch.sin(0.7 * t + 1.3 * c + 0.1), torch.cos(0.9 * t + 0.4 * c + 0.2)
    w, u = torch.tensor([-1, -0.5, 0, 0.5]).double().exp(), torch.tensor([0.3, -0.2, 0.1, 0], dtype=torch.float64)
    y, _ = wkv4(w, u, k[None], v[None], implementation=implementation)
    for row, expected in ROWS.items():
        torch.testing.assert_close(y[0, row], torch.tensor(expected, dtype=torch.float64), atol=1e-8, rtol=0)


@pytest.mark.parametrize("implementation", FAST)
@pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 100])
def test_outputs_gradients_and_state_equal_the_reference(implementation, length):
    inputs = random_inputs(length)
    results = []
    for name in ("reference", implementation):
        y, state = wkv4(*inputs, implementation=name)
        total = (y * y.detach().cos()).sum() + (state[:, 0] * state[:, 2].exp()).sum()
        results.append((y, *torch.autograd.grad(total, inputs), state[:, :2] * state[:, 2:].exp()))
    for expected, actual in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("implementation", FAST)
@pytest.mark.parametrize("std", [0, 1, 3, 10])
def test_float32_error_is_at_most_twice_the_reference_s(implementation, std):
    exact, _ = wkv4(*random_inputs(600, std=std), implementation="reference")
    errors = {
        name: (wkv4(*random_inputs(600, std=std, dtype=torch.float32), implementation=name)[0] - exact).abs().max()
        for name in ("reference", implementation)
    }
    assert errors[implementation] <= max(2 * errors["reference"], 1e-6 * exact.abs().max())


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_gradcheck(implementation):
    assert gradcheck(lambda *inputs: wkv4(*inputs, implementation=implementation)[0], random_inputs(5, channels=2))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
class TestIdentities:
    def run(self, implementation, k, v, w=None, u=None):
        w_random, u_random, _, _ = random_inputs(2, channels=k.shape[2])
        return wkv4(w_random if w is None else w, u_random if u is None else u, k, v, implementation=implementation)[0]

    def test_a_constant_value_comes_out(self, implementation):
        _, _, k, v = random_inputs(40)
        constant = torch.full_like(v, 0.7)
        torch.testing.assert_close(self.run(implementation, k, constant), constant)

    def test_a_constant_added_to_the_keys_changes_nothing(self, implementation):
        _, _, k, v = random_inputs(40)
        torch.testing.assert_close(self.run(implementation, k + 7, v), self.run(implementation, k, v))

    def test_outputs_lie_between_the_smallest_and_the_largest_value(self, implementation):
        _, _, k, v = random_inputs(40)
        y = self.run(implementation, k, v)
        assert (y >= v.amin(1, keepdim=True) - 1e-12).all()
        assert (y <= v.amax(1, keepdim=True) + 1e-12).all()

    def test_one_token_gives_its_value(self, implementation):
        _, _, k, v = random_inputs(1)
        torch.testing.assert_close(self.run(implementation, k, v), v)

    def test_without_decay_and_bonus_it_is_a_running_mean_weighted_by_exp_k(self, implementation):
        _, _, k, v = random_inputs(40)
        zero = torch.zeros(5, dtype=torch.float64)
        expected = (k.exp() * v).cumsum(1) / k.exp().cumsum(1)
        torch.testing.assert_close(self.run(implementation, k, v, zero, zero), expected)

    def test_causal(self, implementation):
        _, _, k, v = (tensor.detach() for tensor in random_inputs(40))
        before = self.run(implementation, k, v)
        k[:, 21:] += 3
        torch.testing.assert_close(self.run(implementation, k, v)[:, :21], before[:, :21])

    def test_a_sequence_in_pieces_gives_the_same(self, implementation):
        inputs = random_inputs(50)
        w, u, k, v = inputs
        whole, end = wkv4(w, u, k, v, implementation=implementation)
        state, pieces = None, []
        for piece in (slice(0, 1), slice(1, 20), slice(20, 50)):
            y, state = wkv4(w, u, k[:, piece], v[:, piece], state, implementation=implementation)
            pieces.append(y)
        torch.testing.assert_close(torch.cat(pieces, 1), whole)
        torch.testing.assert_close(state, end)

    def test_keys_of_any_size_give_finite_outputs(self, implementation):
        w, u, k, v = random_inputs(40, std=1e4, dtype=torch.float32)
        assert wkv4(w, u, k, v, implementation=implementation)[0].isfinite().all()

    def test_nan_in_is_nan_out_and_only_from_there_on(self, implementation):
        w, u, k, v = (tensor.detach() for tensor in random_inputs(40))
        k[:, 30] = torch.nan
        y, _ = wkv4(w, u, k, v, implementation=implementation)
        assert y[:, :30].isfinite().all()
        assert y[:, 30:].isnan().all()

    def test_half_precision_in_and_out(self, implementation):
        w, u, k, v = random_inputs(40, dtype=torch.bfloat16)
        y, state = wkv4(w, u, k, v, implementation=implementation)
        assert (y.dtype, state.dtype) == (torch.bfloat16, torch.float32)

    def test_an_empty_batch(self, implementation):
        assert wkv4(*random_inputs(40, batch=0), implementation=implementation)[0].shape == (0, 40, 5)
