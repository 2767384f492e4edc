import pytest
import torch
from torch.autograd import gradcheck
from torch.nn.functional import normalize

from facerwkv.core.errors import InputError
from facerwkv.kernels.calls import library, problem
from facerwkv.kernels.chunks import CHUNK, empty_state
from facerwkv.kernels.wkv7 import IMPLEMENTATIONS, wkv7, wkv7_both

needs_compiler = pytest.mark.skipif(
    not hasattr(library(), "wkv7_forward"), reason=str(problem() or "built without wkv7")
)
FORMS = [pytest.param(x, marks=needs_compiler) if x == "native" else x for x in IMPLEMENTATIONS if x != "fla"]
FAST = [form for form in FORMS if form != "reference"]
EXACT = ["reference", "chunked"]  # these compute in float64 where the inputs are


def random_inputs(length, heads=2, size=16, batch=2, std=1.0, decay=-1.0, dtype=torch.float64, seed=0):
    """r, w, k, v, a, b as RWKV-7 has them: a and b from a unit vector and a rate; `decay` is the mean of log(-w)."""
    generator = torch.Generator().manual_seed(seed)
    r, w, k, v, kk, rate = torch.randn(6, batch, length, heads, size, generator=generator, dtype=torch.float64)
    kk = normalize(kk, dim=-1)
    inputs = (r, -(decay + w).exp(), k * std, v, -kk, kk * rate.sigmoid())
    return [tensor.to(dtype).requires_grad_() for tensor in inputs]


@pytest.mark.parametrize("implementation", EXACT)
def test_published_vectors(implementation):
    t, c = torch.meshgrid(torch.arange(5.0).double(), torch.arange(4.0).double(), indexing="ij")
    k, v, r = torch.sin(0.7 * t + 1.3 * c + 0.1), torch.cos(0.9 * t + 0.4 * c + 0.2), torch.sin(0.5 * t + 0.8 * c + 0.3)
    w = -torch.tensor(-0.5).double().exp() * torch.sin(0.6 * t + 0.9 * c + 0.5).sigmoid()
    kk, rate = normalize(k, dim=-1), torch.sin(0.4 * t + 0.2 * c + 0.6).sigmoid()
    y, state = wkv7(*(x[None, :, None] for x in (r, w, k, v, -kk, kk * rate)), implementation=implementation)
    expected = {
        0: [0.96902152, 0.81603433, 0.53421326, 0.16805166],
        4: [-1.07796189, -1.39610746, -1.49383836, -1.35572502],
    }
    for row, values in expected.items():
        torch.testing.assert_close(y[0, row, 0], torch.tensor(values, dtype=torch.float64), atol=1e-8, rtol=0)
    # The vectors were made with values by keys: the first value's row is our first column.
    end = torch.tensor([-0.58888482, 0.51686311, 1.13757836, -0.12207834], dtype=torch.float64)
    torch.testing.assert_close(state[0, 0, :, 0], end, atol=1e-8, rtol=0)


@pytest.mark.parametrize("length", [1, 2, CHUNK - 1, CHUNK, CHUNK + 1, 100])
def test_chunked_outputs_gradients_and_state_equal_the_reference(length):
    inputs = random_inputs(length)
    results = []
    for name in ("reference", "chunked"):
        y, state = wkv7(*inputs, implementation=name)
        total = (y * y.detach().cos()).sum() + state.square().sum()
        results.append((y, *torch.autograd.grad(total, inputs), state))
    for expected, actual in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("implementation", EXACT)
def test_gradcheck(implementation):
    inputs = random_inputs(CHUNK + 3, heads=1, size=2, batch=1)
    state = torch.randn(1, 1, 2, 2, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda *all_of_them: wkv7(*all_of_them, implementation=implementation), (*inputs, state))


def outputs_and_gradients(implementation, inputs, dtype):
    inputs = [tensor.detach().to(dtype).requires_grad_() for tensor in inputs]
    y, _ = wkv7(*inputs, implementation=implementation)
    weights = torch.cos(torch.arange(y.numel(), dtype=dtype)).view_as(y)
    with torch.no_grad():
        without_gradient, _ = wkv7(*inputs, implementation=implementation)
    return y, without_gradient, *torch.autograd.grad(y, inputs, weights)


def assert_as_exact_as_the_reference(implementation, inputs):
    exact, reference, fast = (
        outputs_and_gradients(name, inputs, dtype)
        for name, dtype in (("reference", torch.float64), ("reference", torch.float32), (implementation, torch.float32))
    )
    for truth, expected, actual in zip(exact, reference, fast, strict=True):
        error, allowed = (actual - truth).abs().max(), 2 * (expected - truth).abs().max()
        assert error <= max(allowed, 1e-6 * max(truth.abs().max(), exact[0].abs().max()))


@pytest.mark.parametrize("implementation", FAST)
@pytest.mark.parametrize("std", [0, 1, 3, 10])
@pytest.mark.parametrize("decay", [-6, -1, 3])
def test_float32_errors_are_at_most_twice_the_reference_s(implementation, std, decay):
    assert_as_exact_as_the_reference(
        implementation, random_inputs(300, batch=1, std=std, decay=decay, dtype=torch.float32)
    )


@pytest.mark.parametrize("implementation", FAST)
def test_keys_that_repeat_cost_no_digits(implementation):
    inputs = [x.detach() for x in random_inputs(300, batch=1, decay=-6, dtype=torch.float32)]
    for x in inputs[4:]:
        x[:] = x[:, :1]
    inputs[5] = -inputs[4]  # overwritten at every step, at rate 1
    assert_as_exact_as_the_reference(implementation, inputs)


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
            wkv7(*inputs, implementation=implementation)
        kept.append(total / (length * 4 * 64))
    assert kept[2] <= 1.1 * kept[0]
    assert kept[2] <= 10  # numbers a number of one input


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
        before, _ = wkv7(*inputs, implementation=implementation)
        for tensor in inputs:
            tensor[:, 21:] -= 0.1
        after, _ = wkv7(*inputs, implementation=implementation)
        close(implementation, after[:, :21], before[:, :21])
        assert (after[:, 21:] != before[:, 21:]).all()

    @pytest.mark.parametrize("pieces", [[1, 49], [20, 30], [16, 1, 33]])
    def test_a_sequence_in_pieces_gives_the_same(self, pieces, implementation):
        inputs = inputs_for(implementation, 50)
        whole, end = wkv7(*inputs, implementation=implementation)
        state, outputs = None, []
        for piece in zip(*(x.split(pieces, 1) for x in inputs), strict=True):
            y, state = wkv7(*piece, state, implementation=implementation)
            outputs.append(y)
        close(implementation, (torch.cat(outputs, 1), state), (whole, end))

    def test_without_the_removal_it_is_decayed_linear_attention(self, implementation):
        r, w, k, v, a, _ = inputs_for(implementation, 40)
        y, _ = wkv7(r, w, k, v, a, torch.zeros_like(a), implementation=implementation)
        passed = w.cumsum(1)
        earlier = torch.ones(40, 40).tril().bool()[..., None, None]
        decay = (passed[:, :, None] - passed[:, None]).masked_fill(~earlier, -torch.inf).exp()  # (B, t, s, H, N)
        weights = (r[:, :, None] * k[:, None] * decay).sum(-1)
        close(implementation, y, torch.einsum("btsh,bshn->bthn", weights, v))

    def test_at_full_rate_without_decay_a_written_key_reads_its_value(self, implementation):
        _, w, k, v, _, _ = inputs_for(implementation, 40)
        k = normalize(k, dim=-1)
        y, _ = wkv7(k, torch.zeros_like(w), k, v, -k, k, implementation=implementation)
        close(implementation, y, v)

    @pytest.mark.parametrize("log_decay", [-1e4, -torch.inf])
    def test_with_a_decay_of_0_only_the_token_s_own_value_is_left(self, log_decay, implementation):
        r, w, k, v, a, b = inputs_for(implementation, 40)
        y, _ = wkv7(r, torch.full_like(w, log_decay), k, v, a, 0 * b, implementation=implementation)
        close(implementation, y, (r * k).sum(-1, keepdim=True) * v)

    @pytest.mark.parametrize("which", range(6))
    def test_nan_in_is_nan_out_from_there_on(self, which, implementation):
        inputs = [tensor.detach() for tensor in random_inputs(40, dtype=torch.float32)]
        inputs[which][:, 20] = torch.nan
        y, state = wkv7(*inputs, implementation=implementation)
        assert y[:, : 20 // CHUNK * CHUNK].isfinite().all()  # a chunk is computed as a whole
        assert y[:, 20].isnan().all()
        assert y[:, 21:].isnan().all() or which == 0  # r is read by its own token only
        assert state.isnan().all() or which == 0

    def test_half_precision_in_and_out(self, implementation):
        y, state = wkv7(*random_inputs(40, dtype=torch.bfloat16), implementation=implementation)
        assert (y.dtype, state.dtype) == (torch.bfloat16, torch.float32)

    def test_autocast_changes_nothing(self, implementation):
        inputs = random_inputs(40, dtype=torch.float32)
        with torch.autocast("cpu", torch.bfloat16):
            inside = wkv7(*inputs, implementation=implementation)
        torch.testing.assert_close(inside, wkv7(*inputs, implementation=implementation), rtol=0, atol=0)

    def test_an_empty_batch(self, implementation):
        y, state = wkv7(*inputs_for(implementation, 40, batch=0), implementation=implementation)
        assert (y.shape, state.shape) == ((0, 40, 2, 16), (0, 2, 16, 16))

    @pytest.mark.parametrize("gradients", [False, True])
    def test_strided_inputs_are_read_and_left_alone(self, gradients, implementation):
        inputs = [tensor.detach() for tensor in inputs_for(implementation, 48, heads=1, batch=1)]
        strided = [x.transpose(1, 3).contiguous().transpose(1, 3) for x in inputs]
        with torch.set_grad_enabled(gradients):
            expected, actual = (wkv7(*x, implementation=implementation)[0] for x in (inputs, strided))
        close(implementation, actual, expected)
        before = inputs_for(implementation, 48, heads=1, batch=1)
        torch.testing.assert_close(inputs, [tensor.detach() for tensor in before])

    def test_both_ways_reads_the_states_of_the_past_and_of_the_strict_future(self, implementation):
        r, w, k, v, a, b = inputs_for(implementation, 21)
        forward, _ = wkv7(r, w, k, v, a, b, implementation="reference")
        state, backward = empty_state(k, k.dtype), []
        for t in reversed(range(21)):
            backward.append(torch.einsum("bhk,bhkv->bhv", r[:, t], state))
            _, state = wkv7(*(x[:, t : t + 1] for x in (r, w, k, v, a, b)), state, implementation="reference")
        expected = forward + torch.stack(backward[::-1], 1)
        close(implementation, wkv7_both(r, w, k, v, a, b, implementation=implementation), expected)


class Weigh(torch.nn.Module):
    def forward(self, r, w, k, v, a, b):
        return wkv7(r, w, k, v, a, b)


@pytest.mark.parametrize("gradients", [False, True])
def test_it_exports(gradients):
    inputs = tuple(tensor.detach() for tensor in random_inputs(40, dtype=torch.float32))
    with torch.set_grad_enabled(gradients):
        exported = torch.export.export(Weigh(), inputs).module()
        torch.testing.assert_close(exported(*inputs), wkv7(*inputs))


def test_fla_without_cuda_says_what_to_use():
    with pytest.raises(InputError, match="'fla' runs on CUDA, not on cpu; use 'chunked'"):
        wkv7(*random_inputs(3), implementation="fla")


def test_an_unknown_implementation_lists_the_known_ones():
    with pytest.raises(InputError, match="Choose auto, reference, chunked, native, fla"):
        wkv7(*random_inputs(3), implementation="fast")


def test_other_shapes_than_promised_are_refused():
    inputs = random_inputs(3)
    inputs[2] = inputs[2][..., :3]
    with pytest.raises(InputError, match=r"\(B, T, H, N\).*\(2, 3, 2, 3\)"):
        wkv7(*inputs)
    with pytest.raises(InputError, match=r"state \(B, H, N, N\).*: B is 2 in r and 1 in state"):
        wkv7(*random_inputs(3), torch.zeros(1, 2, 16, 16))


@needs_compiler
class TestNative:
    def test_it_is_one_operator_that_pytorch_can_trust(self):
        from facerwkv.kernels.native.matrix_state import wkv7 as operator

        inputs = random_inputs(20, dtype=torch.float32)
        torch.library.opcheck(operator, (*inputs, empty_state(inputs[0]).requires_grad_()))

    def test_export_sees_one_operator(self):
        inputs = tuple(tensor.detach() for tensor in random_inputs(20, dtype=torch.float32))
        graph = torch.export.export(Weigh(), inputs).graph
        assert [str(node.target) for node in graph.nodes if "wkv" in str(node.target)] == ["facerwkv.wkv7.default"]

    def test_compiling_breaks_no_graph(self):
        inputs = [tensor.detach() for tensor in random_inputs(20, dtype=torch.float32)]
        compiled = torch.compile(Weigh(), backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(*inputs), wkv7(*inputs))

    @pytest.mark.parametrize("size", [16, 48, 64])
    def test_head_sizes_and_a_state_with_its_gradient(self, size):
        inputs = random_inputs(37, size=size, dtype=torch.float32)
        inputs.append(torch.randn(2, 2, size, size, generator=torch.Generator().manual_seed(1)).requires_grad_())
        results = []
        for name in ("chunked", "native"):
            y, state = wkv7(*inputs, implementation=name)
            total = (y * y.detach().cos()).sum() + (state * state.detach().cos()).sum()
            results.append((y, state, *torch.autograd.grad(total, inputs)))
        for expected, actual in zip(*results, strict=True):
            torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())

    def test_what_it_cannot_do_is_said(self):
        with pytest.raises(InputError, match=r"not on cpu in torch\.float64\. Or use implementation='chunked'"):
            wkv7(*random_inputs(3), implementation="native")
        with pytest.raises(InputError, match=r"heads of 16, 32, ... 256 channels, not 8"):
            wkv7(*random_inputs(3, size=8, dtype=torch.float32), implementation="native")
