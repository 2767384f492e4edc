import pytest
import torch
from torch.autograd import gradcheck

from facerwkv.core.errors import InputError
from facerwkv.kernels.biwkv import IMPLEMENTATIONS, biwkv, biwkv_sums, fits_sums
from facerwkv.kernels.calls import library, problem
from facerwkv.kernels.wkv4 import wkv4

needs_compiler = pytest.mark.skipif(
    not hasattr(library(), "biwkv_forward"), reason=str(problem() or "built without biwkv")
)
FORMS = [pytest.param(x, marks=needs_compiler) if x == "native" else x for x in IMPLEMENTATIONS if x != "triton"]
FAST = [form for form in FORMS if form != "reference"]
EXACT = ["reference", "chunked"]  # these compute in float64 where the inputs are
DECAYS = {"rates": lambda w, length: w.exp(), "both_signs": lambda w, length: 5 * w / length}


def random_inputs(length, channels=5, batch=2, std=1.0, dtype=torch.float64, decays="both_signs"):
    """w, u, k, v; decays as RWKV-4 has them, or as Vision-RWKV, where about half are below 0."""
    generator = torch.Generator().manual_seed(0)
    w, u = torch.randn(2, channels, generator=generator, dtype=torch.float64)
    k, v = torch.randn(2, batch, length, channels, generator=generator, dtype=torch.float64)
    return [tensor.to(dtype).requires_grad_() for tensor in (DECAYS[decays](w, length), u, k * std, v)]


@pytest.mark.parametrize("implementation", EXACT)
def test_published_vectors(implementation):
    t, c = torch.meshgrid(torch.arange(5.0).double(), torch.arange(4.0).double(), indexing="ij")
    k, v = torch.sin(0.7 * t + 1.3 * c + 0.1), torch.cos(0.9 * t + 0.4 * c + 0.2)
    w, u = torch.tensor([-1, -0.2, 0.5, 2]).double() / 5, torch.tensor([0.3, -0.2, 0.1, 0]).double() / 5
    y = biwkv(w, u, k[None], v[None], implementation=implementation)[0]
    expected = {
        0: [-0.35916803, 0.03075040, -0.02314593, -0.27278975],
        4: [-0.10560179, 0.08704785, -0.11081885, -0.13250769],
    }
    for row, values in expected.items():
        torch.testing.assert_close(y[row], torch.tensor(values, dtype=torch.float64), atol=1e-8, rtol=0)


def outputs_and_gradients(implementation, *size, **options):
    inputs = random_inputs(*size, **options)
    y = biwkv(*inputs, implementation=implementation)
    weights = torch.cos(torch.arange(y.numel(), dtype=y.dtype)).view_as(y)
    return y, *torch.autograd.grad(y, inputs, weights)


@pytest.mark.parametrize("decays", DECAYS)
@pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 100])
def test_chunked_outputs_and_gradients_equal_the_reference(length, decays):
    expected, actual = (outputs_and_gradients(name, length, decays=decays) for name in EXACT)
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("decays", DECAYS)
@pytest.mark.parametrize("implementation", FAST)
@pytest.mark.parametrize(("length", "channels"), [(1, 20), (2, 64), (63, 70), (65, 130), (300, 40)])
@pytest.mark.parametrize("std", [0, 1, 3, 10])
def test_float32_errors_are_at_most_twice_the_reference_s(implementation, length, channels, std, decays):
    exact, reference, fast = (
        outputs_and_gradients(name, length, channels, std=std, dtype=dtype, decays=decays)
        for name, dtype in (("reference", torch.float64), ("reference", torch.float32), (implementation, torch.float32))
    )
    for truth, expected, actual in zip(exact, reference, fast, strict=True):
        error, allowed = (actual - truth).abs().max(), 2 * (expected - truth).abs().max()
        assert error <= max(allowed, 1e-6 * max(truth.abs().max(), exact[0].abs().max()))


@pytest.mark.parametrize("implementation", EXACT)
def test_gradcheck(implementation):
    assert gradcheck(lambda *inputs: biwkv(*inputs, implementation=implementation), random_inputs(5, channels=2))


@pytest.mark.parametrize("implementation", FAST)
def test_keys_that_are_calm_here_and_wild_there(implementation):
    w, u, k, v = random_inputs(200, dtype=torch.float32)
    k = torch.where(torch.arange(200)[:, None] // 40 % 2 == 1, 60 * k, k)
    exact = biwkv(*(x.double() for x in (w, u, k, v)), implementation="reference")
    torch.testing.assert_close(biwkv(w, u, k, v, implementation=implementation).double(), exact, rtol=0, atol=2e-5)


@pytest.mark.parametrize("implementation", FORMS)
class TestIdentities:
    def run(self, implementation, k, v, w=None, u=None):
        w_random, u_random, _, _ = random_inputs(k.shape[1], channels=k.shape[2])
        inputs = (w_random if w is None else w, u_random if u is None else u, k, v)
        dtype = torch.float64 if implementation in EXACT else torch.float32
        return biwkv(*(tensor.to(dtype) for tensor in inputs), implementation=implementation).double()

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

    def test_without_decay_and_bonus_every_token_is_the_mean_weighted_by_exp_k(self, implementation):
        _, _, k, v = random_inputs(40)
        zero = torch.zeros(5, dtype=torch.float64)
        expected = (k.softmax(1) * v).sum(1, keepdim=True).expand_as(v)
        self.close(implementation, self.run(implementation, k, v, zero, zero), expected)

    def test_a_mirrored_sequence_gives_mirrored_outputs(self, implementation):
        _, _, k, v = random_inputs(40)
        self.close(
            implementation, self.run(implementation, k.flip(1), v.flip(1)).flip(1), self.run(implementation, k, v)
        )

    def test_it_sees_past_and_future(self, implementation):
        _, _, k, v = (tensor.detach() for tensor in random_inputs(40))
        before = self.run(implementation, k, v)
        v[:, 20] += 3
        assert ((self.run(implementation, k, v) - before).abs() > 1e-6).all()

    def test_it_joins_wkv4_s_states_of_both_sides(self, implementation):
        w, u, k, v = random_inputs(40, decays="rates")
        _, before = wkv4(w, u, k[:, :20], v[:, :20], implementation="reference")
        _, after = wkv4(w, u, k[:, 21:].flip(1), v[:, 21:].flip(1), implementation="reference")
        own = (u + k[:, 20]).exp()
        above = sum(state[:, 0] * state[:, 2].exp() for state in (before, after)) + own * v[:, 20]
        below = sum(state[:, 1] * state[:, 2].exp() for state in (before, after)) + own
        self.close(implementation, self.run(implementation, k, v, w, u)[:, 20], above / below)

    def test_keys_of_any_size_give_finite_outputs_and_gradients(self, implementation):
        inputs = random_inputs(70, std=1e4, dtype=torch.float32)
        y = biwkv(*inputs, implementation=implementation)
        assert all(x.isfinite().all() for x in (y, *torch.autograd.grad(y.sum(), inputs)))

    def test_nan_in_a_channel_is_nan_out_there_and_only_there(self, implementation):
        w, u, k, v = (tensor.detach() for tensor in random_inputs(70, dtype=torch.float32))
        for changed in (k, v):
            kept = changed[0, 50, 2].item()
            changed[0, 50, 2] = torch.nan
            y = biwkv(w, u, k, v, implementation=implementation)
            assert y[0, :, 2].isnan().all()
            assert y.isnan().sum() == 70
            changed[0, 50, 2] = kept

    def test_half_precision_in_and_out(self, implementation):
        w, u, k, v = random_inputs(40, dtype=torch.bfloat16)
        assert biwkv(w, u, k, v, implementation=implementation).dtype == torch.bfloat16

    def test_an_empty_batch(self, implementation):
        inputs = random_inputs(40, batch=0, dtype=torch.float32)
        y = biwkv(*inputs, implementation=implementation)
        assert y.shape == (0, 40, 5)
        assert [x.shape for x in torch.autograd.grad(y.sum(), inputs)] == [x.shape for x in inputs]

    def test_strided_inputs(self, implementation):
        w, u, k, v = random_inputs(40, dtype=torch.float32)
        strided = k.detach().mT.contiguous().mT
        torch.testing.assert_close(
            biwkv(w, u, strided, v, implementation=implementation), biwkv(w, u, k, v, implementation=implementation)
        )

    def test_shapes_that_do_not_fit_are_named(self, implementation):
        w, u, k, v = random_inputs(3)
        with pytest.raises(InputError, match=r"w and u \(C,\).*not \(5,\), \(5,\), \(2, 3, 5\), \(2, 2, 5\)"):
            biwkv(w, u, k, v[:, :2], implementation=implementation)


class Weigh(torch.nn.Module):
    def __init__(self, implementation):
        super().__init__()
        self.implementation = implementation

    def forward(self, w, u, k, v):
        return biwkv(w, u, k, v, self.implementation)


def test_the_chunked_form_exports():
    inputs = tuple(tensor.detach() for tensor in random_inputs(40, dtype=torch.float32))
    program = torch.export.export(Weigh("chunked"), inputs)
    torch.testing.assert_close(program.module()(*inputs), biwkv(*inputs, implementation="chunked"))


def test_triton_is_refused_in_words_where_it_cannot_run():
    with pytest.raises(InputError, match=r"The Triton biwkv .*use implementation='chunked'"):
        biwkv(*random_inputs(3), implementation="triton")


def test_an_unknown_implementation_lists_the_known_ones():
    with pytest.raises(InputError, match="Choose auto, reference, chunked, native, triton"):
        biwkv(*random_inputs(3), implementation="fast")


@needs_compiler
class TestNative:
    def test_outputs_larger_than_the_caches_are_the_same(self):
        w, u, k, v = (x.detach() for x in random_inputs(3000, 512, 1, dtype=torch.float32))
        whole = biwkv(w, u, k, v, implementation="native")  # 18 MB, which are written past the caches
        halves = [
            biwkv(w[part], u[part], k[..., part], v[..., part], implementation="native")
            for part in (slice(0, 256), slice(256, 512))
        ]
        assert torch.equal(whole, torch.cat(halves, -1))

    @pytest.mark.parametrize("decays", DECAYS)
    def test_its_scales_round_nothing_at_wide_keys(self, decays):
        test_float32_errors_are_at_most_twice_the_reference_s("native", 300, 40, 40, decays)

    def test_it_is_one_operator_that_pytorch_can_trust(self):
        from facerwkv.kernels.native.wkv import biwkv as operator

        checks = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_static")
        torch.library.opcheck(operator, random_inputs(20, dtype=torch.float32), test_utils=checks)

    def test_export_sees_one_operator(self):
        inputs = tuple(tensor.detach() for tensor in random_inputs(20, dtype=torch.float32))
        graph = torch.export.export(Weigh("auto"), inputs).graph
        assert [str(node.target) for node in graph.nodes if "wkv" in str(node.target)] == ["facerwkv.biwkv.default"]

    def test_float64_is_refused(self):
        with pytest.raises(InputError, match=r"float32, not on cpu in torch\.float64"):
            biwkv(*random_inputs(3), implementation="native")

    def test_threads_change_no_digit(self):
        inputs, threads = random_inputs(70, channels=130, batch=3, dtype=torch.float32), torch.get_num_threads()
        results = []
        for count in (1, 2):
            torch.set_num_threads(count)
            y = biwkv(*inputs, implementation="native")
            results.append((y, *torch.autograd.grad(y.square().sum(), inputs)))
        torch.set_num_threads(threads)
        torch.testing.assert_close(*results, rtol=0, atol=0)

    def test_a_gradient_at_one_token_is_exact_far_from_it(self):
        inputs = random_inputs(3000, channels=16, batch=1, decays="rates", dtype=torch.float32)
        y = biwkv(*inputs, implementation="native")
        _, _, _, grad_v = torch.autograd.grad(y[:, -1].sum(), inputs)
        wide = [x.detach().double().requires_grad_() for x in inputs]
        _, _, _, exact = torch.autograd.grad(biwkv(*wide, implementation="chunked")[:, -1].sum(), wide)
        torch.testing.assert_close(grad_v.double(), exact, rtol=0, atol=1e-6)


@pytest.mark.parametrize("length", [1, 2, 37, 300])
@pytest.mark.parametrize("most", [0, 1, 19.9])
@pytest.mark.parametrize("std", [0, 1, 30, 300])
def test_running_sums_equal_the_reference_where_decays_are_bounded(length, most, std):
    w, u, k, v = (each.detach() for each in random_inputs(length, std=std))
    w, u = most * torch.sin(w * length) / length, most * torch.cos(u)
    assert fits_sums(w, u, length)
    exact = biwkv(w, u, k, v, implementation="reference")
    torch.testing.assert_close(biwkv_sums(w, u, k, v), exact, rtol=1e-9, atol=1e-10)
    single, chunked = (
        form(*(each.float() for each in (w, u, k, v))).double() - exact
        for form in (biwkv_sums, lambda *inputs: biwkv(*inputs, implementation="chunked"))
    )
    assert single.abs().max() <= 5 * chunked.abs().max() + 1e-6


@pytest.mark.parametrize(
    ("w", "u", "tokens", "fits"),
    [(0.1, 0, 199, True), (-0.1, 0, 201, False), (0, 20, 1, True), (0, -21, 1, False), (float("nan"), 0, 1, False)],
)
def test_running_sums_are_for_what_float32_can_hold(w, u, tokens, fits):
    assert fits_sums(torch.tensor([0.0, w]), torch.tensor([u, 0.0]), tokens) is fits
