"""On a GPU these tests run there; without one they run in a process of their own through Triton's interpreter."""

import os
import subprocess
import sys

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from facerwkv.core.errors import InputError
from facerwkv.kernels import wkv4 as door
from facerwkv.kernels.biwkv import biwkv
from facerwkv.kernels.wkv4 import empty_state, wkv4

pytest.importorskip("triton", reason="Triton is not installed")

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
here = pytest.mark.skipif(
    not INTERPRETED and not torch.cuda.is_available(), reason="no GPU: runs through the interpreter instead"
)
compiled = pytest.mark.skipif(INTERPRETED, reason="Triton interprets here, so nothing is compiled")
STDS = [0, 1, 3, 10]


def run_wkv4(w, u, k, v, implementation):
    return wkv4(w, u, k, v, implementation=implementation)[0]


OPERATORS = {"wkv4": run_wkv4, "biwkv": biwkv}
every_operator = pytest.mark.parametrize("name", OPERATORS)


@pytest.fixture(autouse=True)
def memory_full_of_nan():
    """What a kernel does not write is then NaN."""
    torch.use_deterministic_algorithms(True)
    assert torch.ones(3).new_empty(3).isnan().all()
    assert torch.empty_like(torch.ones(3)).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(autouse=True)
def shorter_blocks(request, monkeypatch):
    """For the sake of the interpreter's time; the errors are measured with the true ones."""
    if INTERPRETED and "errors" not in request.node.name:
        from facerwkv.kernels.triton import sums

        monkeypatch.setattr(sums, "TOKENS", 4)


def random_inputs(name, length, channels=5, batch=1, std=1.0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    w, u = torch.randn(2, channels, generator=generator, dtype=torch.float64)
    k, v = torch.randn(2, batch, length, channels, generator=generator, dtype=torch.float64)
    inputs = (w.exp() if name == "wkv4" else w, u, k * std, v)
    return [tensor.to(DEVICE, dtype).requires_grad_() for tensor in inputs]


def outputs_and_gradients(name, implementation, inputs, dtype):
    inputs = [tensor.detach().to(dtype).requires_grad_() for tensor in inputs]
    y = OPERATORS[name](*inputs, implementation=implementation)
    weights = torch.cos(torch.arange(y.numel(), dtype=dtype, device=DEVICE)).view_as(y)
    return y, *torch.autograd.grad(y, inputs, weights, materialize_grads=True)


@here
@every_operator
@pytest.mark.parametrize("length", [21, pytest.param(150, marks=pytest.mark.slow)])
def test_errors_are_at_most_twice_the_reference_s(name, length):
    std = torch.tensor(STDS).repeat_interleave(5)  # a group of channels for each
    inputs = random_inputs(name, length, len(std), std=std)
    exact, reference, fast = (
        outputs_and_gradients(name, implementation, inputs, dtype)
        for implementation, dtype in (
            ("reference", torch.float64),
            ("reference", torch.float32),
            ("triton", torch.float32),
        )
    )
    for results in zip(exact, reference, fast, strict=True):
        for truth, expected, actual, y in zip(*(x.split(5, -1) for x in (*results, exact[0])), strict=True):
            error, allowed = (actual - truth).abs().max(), 2 * (expected - truth).abs().max()
            assert error <= max(allowed, 1e-6 * max(truth.abs().max(), y.abs().max()))


@here
@every_operator
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_only_that_of_inputs_and_outputs(name, dtype):
    inputs = random_inputs(name, 3, dtype=dtype)
    half = outputs_and_gradients(name, "triton", inputs, dtype)
    full = outputs_and_gradients(name, "triton", inputs, torch.float32)
    assert {result.dtype for result in half} == {dtype}
    truncates = INTERPRETED and dtype == torch.bfloat16  # where a GPU rounds
    torch.testing.assert_close(half[0], full[0].to(dtype), rtol=2**-7 if truncates else 0, atol=0)
    for actual, expected in zip(half[1:], full[1:], strict=True):
        torch.testing.assert_close(actual.float(), expected, rtol=0.02, atol=0.02)


@here
@every_operator
@pytest.mark.parametrize(("batch", "length", "channels"), [(1, 1, 1), (1, 4, 3), (2, 5, 130)])
def test_outputs_and_gradients_at_edges_of_blocks(name, batch, length, channels):
    inputs = random_inputs(name, length, channels, batch)
    exact = outputs_and_gradients(name, "reference", inputs, torch.float64)
    fast = outputs_and_gradients(name, "triton", inputs, torch.float32)
    for expected, actual in zip(exact, fast, strict=True):
        torch.testing.assert_close(actual.double(), expected, rtol=1e-4, atol=1e-5)


@here
@every_operator
@pytest.mark.parametrize("shape", [(0, 7, 5), (2, 0, 5), (2, 7, 0)])
def test_nothing_in_is_nothing_out(name, shape):
    w, u = torch.ones(2, shape[2], device=DEVICE)
    k = torch.ones(shape, device=DEVICE, requires_grad=True)
    y = OPERATORS[name](w, u, k, k, implementation="triton")
    assert (y.shape, torch.autograd.grad(y.sum(), k)[0].shape) == (shape, shape)


@here
@every_operator
def test_keys_of_any_size_give_finite_outputs_and_gradients(name):
    inputs = random_inputs(name, 7, std=1e4)
    for result in outputs_and_gradients(name, "triton", inputs, torch.float32):
        assert result.isfinite().all()


@here
@every_operator
@pytest.mark.parametrize("which", ["k", "v"])
def test_nan_in_is_nan_out(name, which):
    w, u, k, v = (tensor.detach() for tensor in random_inputs(name, 7))
    {"k": k, "v": v}[which][:, 5] = torch.nan
    y = OPERATORS[name](w, u, k, v, implementation="triton")
    first = 5 if name == "wkv4" else 0
    assert y[:, :first].isfinite().all()
    assert y[:, first:].isnan().all()


@here
@every_operator
def test_strided_inputs(name):
    w, u, k, v = random_inputs(name, 3)
    strided = [x.mT.contiguous().mT for x in (k, v)]
    y = OPERATORS[name](w, u, *strided, implementation="triton")
    torch.testing.assert_close(y, OPERATORS[name](w, u, k, v, implementation="triton"), rtol=0, atol=0)


@here
def test_a_sequence_in_pieces_gives_the_same():
    w, u, k, v = (tensor.detach() for tensor in random_inputs("wkv4", 13))
    whole, end = wkv4(w, u, k, v, implementation="triton")
    state, pieces = None, []
    for piece in (slice(0, 1), slice(1, 6), slice(6, 13)):
        y, state = wkv4(w, u, k[:, piece], v[:, piece], state, implementation="triton")
        pieces.append(y)
    torch.testing.assert_close(torch.cat(pieces, 1), whole)
    torch.testing.assert_close(state[:, :2] * state[:, 2:].exp(), end[:, :2] * end[:, 2:].exp())


@here
@pytest.mark.parametrize("of_y", [True, False])
def test_gradients_through_the_states_are_those_of_the_chunked_form(of_y):
    inputs, results = random_inputs("wkv4", 6), []
    start = torch.tensor([0.3, 1.2, -0.4], device=DEVICE).view(1, 3, 1).repeat(1, 1, 5).requires_grad_()
    for name, dtype in (("chunked", torch.float64), ("triton", torch.float32)):
        exact = [tensor.detach().to(dtype).requires_grad_() for tensor in (*inputs, start)]
        y, end = wkv4(*exact, implementation=name)
        total = (end[:, :2] * end[:, 2:].exp()).sum() + (y * y.detach().cos()).sum() * of_y
        results.append([x.double() for x in torch.autograd.grad(total, exact, allow_unused=True) if x is not None])
    torch.testing.assert_close(results[1][-4:], results[0][-4:], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(results[1][0], results[0][0], rtol=1e-4, atol=1e-5)


@here
@every_operator
def test_it_is_one_operator_that_pytorch_can_trust(name):
    from facerwkv.kernels.triton import biwkv, wkv4

    inputs = random_inputs(name, 3)
    operator = {"wkv4": wkv4, "biwkv": biwkv}[name].operator
    inputs += [empty_state(inputs[2])] if name == "wkv4" else []
    torch.library.opcheck(operator, tuple(inputs), test_utils=("test_schema", "test_faketensor"))
    torch.library.opcheck(operator, tuple(inputs), test_utils="test_autograd_registration")


@here
@every_operator
def test_compiling_breaks_no_graph(name):
    inputs = [tensor.detach() for tensor in random_inputs(name, 3)]
    run = torch.compile(OPERATORS[name], backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(run(*inputs, implementation="triton"), OPERATORS[name](*inputs, implementation="triton"))


@here
def test_other_shapes_than_promised_are_refused():
    w, u, k, v = random_inputs("wkv4", 3)
    with pytest.raises(InputError, match=r"k and v \(B, T, C\), not .*\(1, 3, 5\), \(1, 3, 4\)"):
        wkv4(w, u, k, v[..., :4], implementation="triton")
    with pytest.raises(InputError, match=r"state \(B, 3, C\), not .*: B is 1 in k and 2 in state"):
        wkv4(w, u, k, v, torch.zeros(2, 3, 5), implementation="triton")


def test_float64_is_refused():
    inputs = [torch.ones(shape, dtype=torch.float64, device="cpu") for shape in (5, 5, (1, 3, 5), (1, 3, 5))]
    with pytest.raises(InputError, match=r"The Triton wkv4 runs .*, not .*; use implementation='chunked'"):
        wkv4(*inputs, implementation="triton")


@compiled
class TestWithoutInterpreter:
    def test_the_processor_s_tensors_are_refused(self):
        inputs = [torch.ones(shape) for shape in (5, 5, (1, 3, 5), (1, 3, 5))]
        with pytest.raises(InputError, match="The Triton wkv4 runs on CUDA, not on cpu; use implementation='chunked'"):
            wkv4(*inputs, implementation="triton")

    @pytest.mark.parametrize(("dtype", "chosen"), [(torch.bfloat16, "triton"), (torch.float64, "chunked")])
    def test_auto_takes_it_for_tensors_on_cuda(self, dtype, chosen, monkeypatch):
        used = []
        for form in ("triton", "chunked"):
            monkeypatch.setitem(door.IMPLEMENTATIONS, form, lambda *x, form=form: (used.append(form) or x[3], x[4]))
        with FakeTensorMode():
            w, u = torch.ones(2, 5, device="cuda", dtype=dtype)
            wkv4(w, u, *torch.ones(2, 1, 3, 5, device="cuda", dtype=dtype))
        assert used == [chosen]

    @every_operator
    def test_tensors_on_cuda_without_data_pass(self, name):
        with FakeTensorMode():
            w, u = torch.ones(2, 5, device="cuda")
            k, v = torch.ones(2, 1, 3, 5, device="cuda", dtype=torch.bfloat16)
            y = OPERATORS[name](w, u, k, v, implementation="triton")
        assert (y.shape, y.dtype, y.device.type) == ((1, 3, 5), torch.bfloat16, "cuda")

    @pytest.mark.parametrize(
        ("kernel", "choices"),
        [
            ("summarise", {"BOTH": True}),
            ("average", {"BOTH": True}),
            ("carry", {"PARTS": 6, "REVERSE": True}),
            ("differentiate", {"BOTH": False}),
            pytest.param("summarise_gradients", {"BOTH": True}, marks=pytest.mark.slow),
            pytest.param("differentiate", {"BOTH": True}, marks=pytest.mark.slow),
        ],
    )
    def test_kernels_compile_for_a_gpu_that_is_not_here(self, kernel, choices):
        import triton
        from triton.backends.compiler import GPUTarget

        from facerwkv.kernels.triton import sums

        function = getattr(sums, kernel)
        constants = {"TOKENS": sums.TOKENS, "CHANNELS": sums.CHANNELS, **choices}
        kinds = dict.fromkeys(function.arg_names, "*fp32") | dict.fromkeys("TCN", "i32")
        kinds |= {name: "*bf16" for name in ("k", "v", "y", "grad", "grad_k", "grad_v") if name in kinds}
        kinds |= dict.fromkeys(constants, "constexpr")
        source = triton.compiler.ASTSource(function, kinds, constants)
        assert triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["cubin"]

    @pytest.mark.slow
    def test_the_kernels_are_right_in_the_interpreter(self, request):
        command = [sys.executable, "-m", "pytest", __file__, "-q", "-x", "-m", request.config.option.markexpr]
        environment = {**os.environ, "TRITON_INTERPRET": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
