import pytest
import torch
from torch.autograd import gradcheck

from facerwkv.core.errors import InputError
from facerwkv.kernels.calls import library, problem
from facerwkv.kernels.chunks import CHUNK, empty_state
from facerwkv.kernels.wkv6 import IMPLEMENTATIONS, wkv6, wkv6_both

needs_compiler = pytest.mark.skipif(
    not hasattr(library(), "wkv6_forward"), reason=str(problem() or "built without wkv6")
)
FORMS = [pytest.param(x, marks=needs_compiler) if x == "native" else x for x in IMPLEMENTATIONS if x != "fla"]
FAST = [form for form in FORMS if form != "reference"]
EXACT = ["reference", "chunked"]  # these compute in float64 where the inputs are


def random_inputs(length, heads=2, size=16, batch=2, std=1.0, decay=0.0, dtype=torch.float64, seed=0):
    """r, k, v, w, u; `decay` is the mean of log(-w)."""
    generator = torch.Generator().manual_seed(seed)
    r, k, v, w = torch.randn(4, batch, length, heads, size, generator=generator, dtype=torch.float64)
    u = torch.randn(heads, size, generator=generator, dtype=torch.float64)
    return [tensor.to(dtype).requires_grad_() for tensor in (r, k * std, v, -(decay + w).exp(), u)]


def grid(length=5, channels=4):
    time, channel = torch.meshgrid(torch.arange(length).double(), torch.arange(channels).double(), indexing="ij")
    return time, channel


def published_inputs(log_decay):
    t, c = grid()
    k, v, r = torch.sin(0.7 * t + 1.3 * c + 0.1), torch.cos(0.9 * t + 0.4 * c + 0.2), torch.sin(0.5 * t + 0.8 * c + 0.3)
    u = torch.tensor([[0.3, -0.2, 0.1, 0.0]], dtype=torch.float64)
    return *(x[None, :, None] for x in (r, k, v, log_decay)), u


RATES = torch.tensor([-1, -0.5, 0, 0.5], dtype=torch.float64)
PUBLISHED = {  # log decay → {row of y}, first row of the last state
    "rwkv5": (
        -RATES.exp().expand(5, 4),
        {
            1: [1.34572556, 1.14429850, 0.76221188, 0.25978875],
            4: [-1.69488719, -2.09705178, -2.16813801, -1.89692291],
        },
        [-0.80113890, -0.98661446, -1.01632529, -0.88558070],
    ),
    "rwkv6": (
        -(RATES + 0.5 * torch.sin(0.3 * grid()[0] + 0.6 * grid()[1] + 0.4)).exp(),
        {4: [-1.68316695, -1.98351706, -1.97071345, -1.64677751]},
        [-0.67613289, -0.75653666, -0.71749993, -0.56518573],
    ),
}


@pytest.mark.parametrize("implementation", EXACT)
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_vectors(name, implementation):
    log_decay, rows, end = PUBLISHED[name]
    y, state = wkv6(*published_inputs(log_decay), implementation=implementation)
    for row, expected in rows.items():
        torch.testing.assert_close(y[0, row, 0], torch.tensor(expected, dtype=torch.float64), atol=1e-8, rtol=0)
    torch.testing.assert_close(state[0, 0, 0], torch.tensor(end, dtype=torch.float64), atol=1e-8, rtol=0)


def test_a_decay_that_does_not_change_over_time_broadcasts():
    r, k, v, w, u = published_inputs(PUBLISHED["rwkv5"][0])
    torch.testing.assert_close(wkv6(r, k, v, w[0, 0], u), wkv6(r, k, v, w, u))


@pytest.mark.parametrize("length", [1, 2, CHUNK - 1, CHUNK, CHUNK + 1, 100])
def test_chunked_outputs_gradients_and_state_equal_the_reference(length):
    inputs = random_inputs(length)
    results = []
    for name in ("reference", "chunked"):
        y, state = wkv6(*inputs, implementation=name)
        total = (y * y.detach().cos()).sum() + state.square().sum()
        results.append((y, *torch.autograd.grad(total, inputs), state))
    for expected, actual in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("implementation", EXACT)
def test_gradcheck(implementation):
    inputs = random_inputs(CHUNK + 3, heads=1, size=2, batch=1)
    state = torch.randn(1, 1, 2, 2, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda *all_of_them: wkv6(*all_of_them, implementation=implementation), (*inputs, state))


def outputs_and_gradients(implementation, inputs, dtype):
    inputs = [tensor.detach().to(dtype).requires_grad_() for tensor in inputs]
    y, _ = wkv6(*inputs, implementation=implementation)
    weights = torch.cos(torch.arange(y.numel(), dtype=dtype)).view_as(y)
    with torch.no_grad():
        without_gradient, _ = wkv6(*inputs, implementation=implementation)
    return y, without_gradient, *torch.autograd.grad(y, inputs, weights)


@pytest.mark.parametrize("implementation", FAST)
@pytest.mark.parametrize("std", [0, 1, 3, 10])
@pytest.mark.parametrize("decay", [-6, 0, 4])
def test_float32_errors_are_at_most_twice_the_reference_s(implementation, std, decay):
    inputs = random_inputs(300, batch=1, std=std, decay=decay, dtype=torch.float32)
    exact, reference, fast = (
        outputs_and_gradients(name, inputs, dtype)
        for name, dtype in (("reference", torch.float64), ("reference", torch.float32), (implementation, torch.float32))
    )
    for truth, expected, actual in zip(exact, reference, fast, strict=True):
        error, allowed = (actual - truth).abs().max(), 2 * (expected - truth).abs().max()
        assert error <= max(allowed, 1e-6 * max(truth.abs().max(), exact[0].abs().max()))


@pytest.mark.parametrize("implementation", FAST)
def test_training_keeps_memory_linear_in_time_and_small(implementation):
    kept = []
    for length in (640, 1280, 2560):
        inputs = random_inputs(length, heads=4, size=64, batch=1, dtype=torch.float32)
        total = 0

        def pack(tensor):
            nonlocal total
            total += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            wkv6(*inputs, implementation=implementation)
        kept.append(total / (length * 4 * 64))
    assert kept[2] <= 1.1 * kept[0]
    assert kept[2] <= 8  # numbers a number of one input


def inputs_for(implementation, length, **options):
    """Inputs of the type that a form computes in."""
    return random_inputs(length, dtype=torch.float64 if implementation in EXACT else torch.float32, **options)


def close(implementation, actual, expected):
    tolerance = 1e-10 if implementation in EXACT else 2e-5
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("implementation", FORMS)
class TestIdentities:
    def test_causal(self, implementation):
        inputs = [tensor.detach() for tensor in inputs_for(implementation, 40)]
        before, _ = wkv6(*inputs, implementation=implementation)
        for tensor in inputs[:4]:
            tensor[:, 21:] -= 1
        after, _ = wkv6(*inputs, implementation=implementation)
        close(implementation, after[:, :21], before[:, :21])
        assert (after[:, 21:] != before[:, 21:]).all()

    @pytest.mark.parametrize("pieces", [[1, 49], [20, 30], [16, 1, 33]])
    def test_a_sequence_in_pieces_gives_the_same(self, pieces, implementation):
        r, k, v, w, u = inputs_for(implementation, 50)
        whole, end = wkv6(r, k, v, w, u, implementation=implementation)
        state, outputs = None, []
        for piece in zip(*(x.split(pieces, 1) for x in (r, k, v, w)), strict=True):
            y, state = wkv6(*piece, u, state, implementation=implementation)
            outputs.append(y)
        close(implementation, (torch.cat(outputs, 1), state), (whole, end))

    def test_one_token_sees_itself_only_by_the_bonus(self, implementation):
        r, k, v, w, u = inputs_for(implementation, 1)
        y, state = wkv6(r, k, v, w, u, implementation=implementation)
        close(implementation, y, (r * u * k).sum(-1, keepdim=True) * v)
        close(implementation, state, k[:, 0, :, :, None] * v[:, 0, :, None])

    def test_without_decay_it_is_linear_attention(self, implementation):
        r, k, v, w, u = inputs_for(implementation, 40)
        y, _ = wkv6(r, k, v, torch.zeros_like(w), torch.ones_like(u), implementation=implementation)
        weights = torch.einsum("bthn,bshn->bhts", r, k).tril()
        close(implementation, y, torch.einsum("bhts,bshn->bthn", weights, v))

    @pytest.mark.parametrize("log_decay", [-1e4, -torch.inf])
    def test_with_a_decay_of_0_only_the_token_before_is_left(self, log_decay, implementation):
        r, k, v, w, u = inputs_for(implementation, 40)
        y, _ = wkv6(r, k, v, torch.full_like(w, log_decay), torch.zeros_like(u), implementation=implementation)
        close(implementation, y[:, 1:], (r[:, 1:] * k[:, :-1]).sum(-1, keepdim=True) * v[:, :-1])

    def test_large_keys_and_decays_give_finite_outputs_and_gradients(self, implementation):
        inputs = random_inputs(40, std=1e4, decay=5, dtype=torch.float32)
        y, _ = wkv6(*inputs, implementation=implementation)
        assert all(x.isfinite().all() for x in (y, *torch.autograd.grad(y.sum(), inputs)))

    @pytest.mark.parametrize("which", range(4))
    def test_nan_in_is_nan_out_and_only_from_there_on(self, which, implementation):
        inputs = [tensor.detach() for tensor in random_inputs(40, dtype=torch.float32)]
        inputs[which][:, 20] = torch.nan
        y, state = wkv6(*inputs, implementation=implementation)
        assert y[:, :20].isfinite().all()
        assert y[:, 21:].isnan().all() or which == 0  # r is read by its own token only
        assert y[:, 20].isnan().all() or which == 3  # a decay acts on what comes after
        assert state.isnan().all() or which == 0

    def test_half_precision_in_and_out(self, implementation):
        y, state = wkv6(*random_inputs(40, dtype=torch.bfloat16), implementation=implementation)
        assert (y.dtype, state.dtype) == (torch.bfloat16, torch.float32)

    def test_autocast_changes_nothing(self, implementation):
        inputs = random_inputs(40, dtype=torch.float32)
        with torch.autocast("cpu", torch.bfloat16):
            inside = wkv6(*inputs, implementation=implementation)
        torch.testing.assert_close(inside, wkv6(*inputs, implementation=implementation), rtol=0, atol=0)

    def test_an_empty_batch(self, implementation):
        y, state = wkv6(*inputs_for(implementation, 40, batch=0), implementation=implementation)
        assert (y.shape, state.shape) == ((0, 40, 2, 16), (0, 2, 16, 16))

    @pytest.mark.parametrize("gradients", [False, True])
    def test_strided_inputs_are_read_and_left_alone(self, gradients, implementation):
        r, k, v, w, u = (tensor.detach() for tensor in inputs_for(implementation, 48, heads=1, batch=1))
        strided = [x.transpose(1, 3).contiguous().transpose(1, 3) for x in (r, k, v, w)]
        with torch.set_grad_enabled(gradients):
            expected, actual = (wkv6(*x, u, implementation=implementation)[0] for x in ((r, k, v, w), strided))
        close(implementation, actual, expected)
        before = inputs_for(implementation, 48, heads=1, batch=1)
        torch.testing.assert_close([r, k, v, w, u], [tensor.detach() for tensor in before])

    def test_both_ways_is_the_sum_over_all_other_tokens_and_the_bonus(self, implementation):
        r, k, v, w, u = inputs_for(implementation, 21)
        passed = torch.cat([torch.zeros_like(w[:, :1]), w.cumsum(1)], 1)  # log decay of tokens 0 ... t-1
        time = torch.arange(21)
        since = passed[:, :-1, None] - passed[:, None, 1:]  # for s < t: of the tokens between, (B, t, s, H, N)
        until = passed[:, None, :-1] - passed[:, 1:, None]  # for s > t
        earlier, later = (time[:, None] > time)[..., None, None], (time[:, None] < time)[..., None, None]
        between = torch.where(earlier, since, torch.where(later, until, torch.zeros_like(since))).exp()
        weights = torch.where(earlier | later, between, u) * r[:, :, None] * k[:, None]
        expected = torch.einsum("btsh,bshn->bthn", weights.sum(-1), v)
        close(implementation, wkv6_both(r, k, v, w, u, implementation=implementation), expected)

    def test_both_ways_mirrored_is_mirrored(self, implementation):
        r, k, v, w, u = inputs_for(implementation, 40)
        y = wkv6_both(r, k, v, w, u, implementation=implementation)
        mirrored = wkv6_both(*(x.flip(1) for x in (r, k, v, w)), u, implementation=implementation)
        close(implementation, mirrored.flip(1), y)


class Weigh(torch.nn.Module):
    def forward(self, r, k, v, w, u):
        return wkv6(r, k, v, w, u)


@pytest.mark.parametrize("gradients", [False, True])
def test_it_exports(gradients):
    inputs = tuple(tensor.detach() for tensor in random_inputs(40, dtype=torch.float32))
    with torch.set_grad_enabled(gradients):
        exported = torch.export.export(Weigh(), inputs).module()
        torch.testing.assert_close(exported(*inputs), wkv6(*inputs))


def test_fla_without_cuda_says_what_to_use():
    with pytest.raises(InputError, match="'fla' runs on CUDA, not on cpu; use 'chunked'"):
        wkv6(*random_inputs(3), implementation="fla")


def test_an_unknown_implementation_lists_the_known_ones():
    with pytest.raises(InputError, match="Choose auto, reference, chunked, native, fla"):
        wkv6(*random_inputs(3), implementation="fast")


def test_other_shapes_than_promised_are_refused():
    inputs = random_inputs(3)
    inputs[2] = inputs[2][..., :3]
    with pytest.raises(InputError, match=r"\(B, T, H, N\).*\(2, 3, 2, 3\)"):
        wkv6(*inputs)
    with pytest.raises(InputError, match=r"state \(B, H, N, N\).*: B is 2 in r and 1 in state"):
        wkv6(*random_inputs(3), torch.zeros(1, 2, 16, 16))


@needs_compiler
class TestNative:
    def test_it_is_one_operator_that_pytorch_can_trust(self):
        from facerwkv.kernels.native.matrix_state import wkv6 as operator

        inputs = random_inputs(20, dtype=torch.float32)
        torch.library.opcheck(operator, (*inputs, empty_state(inputs[0]).requires_grad_()))

    def test_export_sees_one_operator(self):
        inputs = tuple(tensor.detach() for tensor in random_inputs(20, dtype=torch.float32))
        graph = torch.export.export(Weigh(), inputs).graph
        assert [str(node.target) for node in graph.nodes if "wkv" in str(node.target)] == ["facerwkv.wkv6.default"]

    def test_compiling_breaks_no_graph(self):
        inputs = [tensor.detach() for tensor in random_inputs(20, dtype=torch.float32)]
        compiled = torch.compile(Weigh(), backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(*inputs), wkv6(*inputs))

    @pytest.mark.parametrize("size", [16, 48, 64])
    def test_head_sizes_and_a_state_with_its_gradient(self, size):
        inputs = random_inputs(37, size=size, dtype=torch.float32)
        inputs.append(torch.randn(2, 2, size, size, generator=torch.Generator().manual_seed(1)).requires_grad_())
        results = []
        for name in ("chunked", "native"):
            y, state = wkv6(*inputs, implementation=name)
            total = (y * y.detach().cos()).sum() + (state * state.detach().cos()).sum()
            results.append((y, state, *torch.autograd.grad(total, inputs)))
        for expected, actual in zip(*results, strict=True):
            torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())

    def test_what_it_cannot_do_is_said(self):
        with pytest.raises(InputError, match=r"not on cpu in torch\.float64\. Or use implementation='chunked'"):
            wkv6(*random_inputs(3), implementation="native")
        with pytest.raises(InputError, match=r"heads of 16, 32, ... 256 channels, not 8"):
            wkv6(*random_inputs(3, size=8, dtype=torch.float32), implementation="native")
