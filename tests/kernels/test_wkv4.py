import pytest
import torch
from torch.autograd import gradcheck

from facerwkv.core.errors import InputError
from facerwkv.kernels.calls import library, problem
from facerwkv.kernels.wkv4 import IMPLEMENTATIONS, wkv4

needs_compiler = pytest.mark.skipif(library() is None, reason=str(problem()))
PORTABLE = [name for name in IMPLEMENTATIONS if name != "triton"]  # that one has test_triton.py
FORMS = [pytest.param(name, marks=needs_compiler) if name == "native" else name for name in PORTABLE]
FAST = [form for form in FORMS if form != "reference"]
EXACT = ["reference", "chunked"]  # these compute in float64 where the inputs are
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


@pytest.mark.parametrize("implementation", EXACT)
def test_published_vectors(implementation):
    t, c = torch.meshgrid(torch.arange(5.0).double(), torch.arange(4.0).double(), indexing="ij")
    k, v = torch.sin(0.7 * t + 1.3 * c + 0.1), torch.cos(0.9 * t + 0.4 * c + 0.2)
    w, u = torch.tensor([-1, -0.5, 0, 0.5]).double().exp(), torch.tensor([0.3, -0.2, 0.1, 0], dtype=torch.float64)
    y, _ = wkv4(w, u, k[None], v[None], implementation=implementation)
    for row, expected in ROWS.items():
        torch.testing.assert_close(y[0, row], torch.tensor(expected, dtype=torch.float64), atol=1e-8, rtol=0)


@pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 100])
def test_chunked_outputs_gradients_and_state_equal_the_reference(length):
    inputs = random_inputs(length)
    results = []
    for name in ("reference", "chunked"):
        y, state = wkv4(*inputs, implementation=name)
        total = (y * y.detach().cos()).sum() + (state[:, 0] * state[:, 2].exp()).sum()
        results.append((y, *torch.autograd.grad(total, inputs), state[:, :2] * state[:, 2:].exp()))
    for expected, actual in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-11)


def outputs_and_gradients(implementation, length, channels, std, dtype):
    inputs = random_inputs(length, channels, std=std, dtype=dtype)
    y, _ = wkv4(*inputs, implementation=implementation)
    weights = torch.cos(torch.arange(y.numel(), dtype=dtype)).view_as(y)
    return y, *torch.autograd.grad(y, inputs, weights)


@pytest.mark.parametrize("implementation", FAST)
@pytest.mark.parametrize(("length", "channels"), [(2, 64), (63, 70), (65, 130), (600, 70)])
@pytest.mark.parametrize("std", [0, 1, 3, 10])
def test_float32_errors_are_at_most_twice_the_reference_s(implementation, length, channels, std):
    exact, reference, fast = (
        outputs_and_gradients(name, length, channels, std, dtype)
        for name, dtype in (("reference", torch.float64), ("reference", torch.float32), (implementation, torch.float32))
    )
    for truth, expected, actual in zip(exact, reference, fast, strict=True):
        error, allowed = (actual - truth).abs().max(), 2 * (expected - truth).abs().max()
        largest = max(truth.abs().max(), exact[0].abs().max())
        assert error <= max(allowed, 1e-6 * largest)


@pytest.mark.parametrize("implementation", EXACT)
def test_gradcheck(implementation):
    assert gradcheck(lambda *inputs: wkv4(*inputs, implementation=implementation)[0], random_inputs(5, channels=2))


@pytest.mark.parametrize("implementation", FORMS)
class TestIdentities:
    def run(self, implementation, k, v, w=None, u=None):
        w_random, u_random, _, _ = random_inputs(2, channels=k.shape[2])
        inputs = (w_random if w is None else w, u_random if u is None else u, k, v)
        dtype = torch.float64 if implementation in EXACT else torch.float32
        return wkv4(*(tensor.to(dtype) for tensor in inputs), implementation=implementation)[0].double()

    def close(self, implementation, actual, expected):
        tolerance = 1e-9 if implementation in EXACT else 2e-5
        torch.testing.assert_close(actual, expected.double(), rtol=tolerance, atol=tolerance)

    def test_a_constant_value_comes_out(self, implementation):
        _, _, k, v = random_inputs(40)
        constant = torch.full_like(v, 0.7)
        self.close(implementation, self.run(implementation, k, constant), constant)

    def test_a_constant_added_to_the_keys_changes_nothing(self, implementation):
        _, _, k, v = random_inputs(40)
        self.close(implementation, self.run(implementation, k + 7, v), self.run(implementation, k, v))

    def test_outputs_lie_between_the_smallest_and_the_largest_value(self, implementation):
        _, _, k, v = random_inputs(40)
        y = self.run(implementation, k, v)
        assert (y >= v.amin(1, keepdim=True) - 1e-6).all()
        assert (y <= v.amax(1, keepdim=True) + 1e-6).all()

    def test_one_token_gives_its_value(self, implementation):
        _, _, k, v = random_inputs(1)
        self.close(implementation, self.run(implementation, k, v), v)

    def test_without_decay_and_bonus_it_is_a_running_mean_weighted_by_exp_k(self, implementation):
        _, _, k, v = random_inputs(40)
        zero = torch.zeros(5, dtype=torch.float64)
        expected = (k.exp() * v).cumsum(1) / k.exp().cumsum(1)
        self.close(implementation, self.run(implementation, k, v, zero, zero), expected)

    def test_causal(self, implementation):
        _, _, k, v = (tensor.detach() for tensor in random_inputs(40))
        before = self.run(implementation, k, v)
        k[:, 21:] += 3
        self.close(implementation, self.run(implementation, k, v)[:, :21], before[:, :21])

    def test_a_sequence_in_pieces_gives_the_same(self, implementation):
        w, u, k, v = random_inputs(50, dtype=torch.float32)
        whole, end = wkv4(w, u, k, v, implementation=implementation)
        state, pieces = None, []
        for piece in (slice(0, 1), slice(1, 20), slice(20, 50)):
            y, state = wkv4(w, u, k[:, piece], v[:, piece], state, implementation=implementation)
            pieces.append(y)
        torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(state, end, rtol=1e-4, atol=1e-5)

    def test_keys_of_any_size_give_finite_outputs(self, implementation):
        w, u, k, v = random_inputs(40, std=1e4, dtype=torch.float32)
        assert wkv4(w, u, k, v, implementation=implementation)[0].isfinite().all()

    def test_nan_in_is_nan_out_and_only_from_there_on(self, implementation):
        w, u, k, v = (tensor.detach() for tensor in random_inputs(40, dtype=torch.float32))
        k[:, 30] = torch.nan
        y, _ = wkv4(w, u, k, v, implementation=implementation)
        assert y[:, :30].isfinite().all()
        assert y[:, 30:].isnan().all()

    def test_half_precision_in_and_out(self, implementation):
        w, u, k, v = random_inputs(40, dtype=torch.bfloat16)
        y, state = wkv4(w, u, k, v, implementation=implementation)
        assert (y.dtype, state.dtype) == (torch.bfloat16, torch.float32)

    def test_an_empty_batch(self, implementation):
        inputs = random_inputs(40, batch=0, dtype=torch.float32)
        assert wkv4(*inputs, implementation=implementation)[0].shape == (0, 40, 5)

    def test_strided_inputs(self, implementation):
        w, u, k, v = random_inputs(40, dtype=torch.float32)
        strided = k.detach().mT.contiguous().mT
        torch.testing.assert_close(
            wkv4(w, u, strided, v, implementation=implementation)[0], wkv4(w, u, k, v, implementation=implementation)[0]
        )


class Weigh(torch.nn.Module):
    def forward(self, w, u, k, v):
        return wkv4(w, u, k, v)[0]


@pytest.mark.parametrize("implementation", ["auto", "reference", "chunked", "native"])
def test_shapes_that_do_not_fit_are_refused_before_memory_is_read(implementation):
    w, u, k, v = random_inputs(6, dtype=torch.float32)
    for wrong in ((w[:-1], u, k, v), (w, u[:-1], k, v), (w, u, k, v[:, :3]), (w, u, k[0], v[0])):
        with pytest.raises(InputError, match=r"wkv4 takes w and u \(C,\), k and v \(B, T, C\), not"):
            wkv4(*wrong, implementation=implementation)
    with pytest.raises(InputError, match=r"state \(B, 3, C\), not .*: state has 2 where 3 belongs"):
        wkv4(w, u, k, v, torch.zeros(k.shape[0], 2, k.shape[2]), implementation=implementation)


@needs_compiler
class TestNative:
    def test_tensors_without_memory_give_shapes(self):
        w, k = torch.empty(5, device="meta"), torch.empty(2, 40, 5, device="meta")
        y, state = wkv4(w, w, k, k)
        assert (y.shape, y.device.type, state.shape) == ((2, 40, 5), "meta", (2, 3, 5))

    def test_outputs_larger_than_the_caches_are_the_same(self):
        w, u, k, v = (x.detach() for x in random_inputs(3000, 512, 1, dtype=torch.float32))
        whole = wkv4(w, u, k, v, implementation="native")[0]  # 18 MB, which are written past the caches
        halves = [
            wkv4(w[part], u[part], k[..., part], v[..., part], implementation="native")[0]
            for part in (slice(0, 256), slice(256, 512))
        ]
        assert torch.equal(whole, torch.cat(halves, -1))

    def test_it_is_one_operator_that_pytorch_can_trust(self):
        from facerwkv.kernels.native.wkv import wkv4 as operator
        from facerwkv.kernels.wkv4 import empty_state

        w, u, k, v = random_inputs(20, dtype=torch.float32)
        checks = ("test_schema", "test_autograd_registration", "test_faketensor")
        torch.library.opcheck(operator, (w, u, k, v, empty_state(k)), test_utils=checks)

    def test_export_sees_one_operator(self):
        inputs = random_inputs(20, dtype=torch.float32)
        graph = torch.export.export(Weigh(), tuple(tensor.detach() for tensor in inputs)).graph
        assert [str(node.target) for node in graph.nodes if "wkv4" in str(node.target)] == ["facerwkv.wkv4.default"]

    def test_float64_is_refused(self):
        with pytest.raises(InputError, match=r"float32, not on cpu in torch\.float64"):
            wkv4(*random_inputs(3), implementation="native")

    @pytest.mark.parametrize("wanted", ["neither", "state", "end", "both"])
    def test_gradients_with_a_state_are_the_reference_s(self, wanted):
        *inputs, state = (*random_inputs(20, dtype=torch.float32), torch.rand(2, 3, 5))
        if wanted in ("state", "both"):
            inputs.append(state.requires_grad_())
        results = []
        for name in ("reference", "native"):
            y, end = wkv4(*inputs[:4], state, implementation=name)
            held = end[:, :2] * (end[:, 2:] - 2).exp()  # what a state stands for
            total = y.square().sum() + (held.sin().sum() if wanted in ("end", "both") else 0)
            results.append(torch.autograd.grad(total, inputs))
        for expected, actual in zip(*results, strict=True):
            torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("piece", [1, 7])
    def test_a_state_that_goes_through_memory_at_every_token_does_not_drift(self, piece):
        w, u, k, v = (tensor.detach() for tensor in random_inputs(2000, channels=20, dtype=torch.float32))
        w, k = w / 1000, k + 20
        state, pieces = None, []
        for some_k, some_v in zip(k.split(piece, 1), v.split(piece, 1), strict=True):
            y, state = wkv4(w, u, some_k, some_v, state, implementation="native")
            pieces.append(y)
        exact, _ = wkv4(*(tensor.double() for tensor in (w, u, k, v)), implementation="chunked")
        torch.testing.assert_close(torch.cat(pieces, 1).double(), exact, rtol=0, atol=1e-6)

    @pytest.mark.parametrize("key", [1e4, -1e4, 60])
    def test_a_state_of_any_size_is_kept_when_tokens_come_one_by_one(self, key):
        w, u, k, v = (tensor.detach() for tensor in random_inputs(60, dtype=torch.float32))
        k[:, 0] += key
        whole, end = wkv4(w, u, k, v, implementation="reference")
        state, pieces = None, []
        for t in range(60):
            y, state = wkv4(w, u, k[:, t : t + 1], v[:, t : t + 1], state, implementation="native")
            pieces.append(y)
        torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=2e-3, atol=2e-3)
        torch.testing.assert_close(state[:, 0] / state[:, 1], end[:, 0] / end[:, 1], rtol=2e-3, atol=2e-3)

    def test_a_gradient_at_one_token_is_exact_far_from_it(self):
        inputs = random_inputs(3000, channels=16, batch=1, dtype=torch.float32)
        y, _ = wkv4(*inputs, implementation="native")
        _, _, _, grad_v = torch.autograd.grad(y[:, -1].sum(), inputs)
        wide = [tensor.detach().double().requires_grad_() for tensor in inputs]
        _, _, _, exact = torch.autograd.grad(wkv4(*wide, implementation="chunked")[0][:, -1].sum(), wide)
        torch.testing.assert_close(grad_v.double(), exact, rtol=0, atol=1e-6)
