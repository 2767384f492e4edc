"""Every gate against its definition in float64."""

import pytest
import torch
from torch.autograd import gradcheck
from torch.utils._python_dispatch import TorchDispatchMode

from facerwkv.core.errors import InputError
from facerwkv.kernels import calls, gates
from facerwkv.kernels.calls import library, problem
from facerwkv.kernels.gates import IMPLEMENTATIONS

needs_compiler = pytest.mark.skipif(library() is None, reason=str(problem()))
PAIRS = [(name, form) for name, forms in IMPLEMENTATIONS.items() for form in forms]
FAST = [
    pytest.param(name, form, marks=needs_compiler if form == "native" else ())
    for name, form in PAIRS
    if form != "reference"
]
every_gate = pytest.mark.parametrize("name", IMPLEMENTATIONS)
every_fast_form = pytest.mark.parametrize(("name", "form"), FAST)


def inputs(name, std=1.0, shape=(2, 7, 70), dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    count = {"squared_relu": 1, "token_mix": 1}.get(name, 2)
    shapes = [shape] * count + ([(3, shape[-1]), (shape[0], shape[-1])] if name == "token_mix" else [])
    values = [torch.randn(one, generator=generator, dtype=torch.float64) for one in shapes]
    values[0] = values[0] * std
    return [value.to(dtype).requires_grad_() for value in values]


def run(name, form, *arguments):
    return getattr(gates, name)(*arguments, implementation=form)


def outputs_and_gradients(name, form, *arguments):
    y = run(name, form, *arguments)
    weights = torch.linspace(0, 9, y.numel(), dtype=torch.float64).sin().view(y.shape).to(y.dtype)
    return [tensor.detach().double() for tensor in (y, *torch.autograd.grad(y, arguments, weights))]


@every_fast_form
@pytest.mark.parametrize("std", [0, 1, 3, 10, 1e4])
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 7, 70), (3, 40, 256)])
def test_float32_errors_are_at_most_twice_the_reference_s(name, form, std, shape):
    exact = outputs_and_gradients(name, "reference", *inputs(name, std, shape))
    plain, fast = (
        outputs_and_gradients(name, one, *inputs(name, std, shape, torch.float32)) for one in ("reference", form)
    )
    for truth, expected, actual in zip(exact, plain, fast[: 1 if form == "rational" else None], strict=False):
        allowed = max(2 * (expected - truth).abs().max().item(), 1e-6 * truth.abs().max().item())
        assert (actual - truth).abs().max() <= allowed


@pytest.mark.parametrize("form", ["reference", "rational"])
def test_gradcheck(form):
    assert gradcheck(lambda *pair: run("mish_gate", form, *pair), inputs("mish_gate", 3, (2, 3, 4)))


def test_mish_s_values():
    k = torch.tensor([-1e4, -20.0, -1.0, 0.0, 1.0, 1e4])
    expected = k.double() * torch.tanh(torch.log1p(k.double().clamp(max=700).exp()))
    for form in ("rational", "native" if library() else "reference"):
        torch.testing.assert_close(run("mish_gate", form, k, torch.ones(6)), expected.float(), rtol=1e-6, atol=1e-12)


def test_token_mix_by_hand():
    x, mixes, last = torch.tensor([[[1.0], [2.0], [4.0]]]), torch.tensor([[1.0], [0.0], [0.25]]), torch.tensor([[9.0]])
    mixed = gates.token_mix(x, mixes, last)
    assert mixed[..., 0].tolist() == [[[1, 2, 4]], [[9, 1, 2]], [[7, 1.25, 2.5]]]
    assert torch.equal(gates.token_mix(x, mixes), gates.token_mix(x, mixes, torch.zeros(1, 1)))


@every_fast_form
def test_nan_in_is_nan_out_and_only_there(name, form):
    arguments = [value.detach() for value in inputs(name, dtype=torch.float32)]
    arguments[0][1, 3, 5] = torch.nan
    found, expected = run(name, form, *arguments).isnan(), run(name, "reference", *arguments).isnan()
    assert expected.any()
    assert torch.equal(found, expected)


@every_fast_form
def test_an_empty_batch(name, form):
    assert run(name, form, *inputs(name, 1, (0, 7, 70), torch.float32)).numel() == 0


@every_fast_form
def test_inputs_that_are_not_contiguous(name, form):
    arguments = [value.detach() for value in inputs(name, dtype=torch.float32)]
    strange = [torch.stack([value] * 2, -1)[..., 0] for value in arguments]
    halves = [torch.cat([value] * 2, -1).chunk(2, -1)[1] for value in arguments]
    expected = run(name, form, *arguments)
    for same in (strange, halves):
        torch.testing.assert_close(run(name, form, *same), expected, rtol=0, atol=0)


@every_gate
def test_half_precision_and_float64_take_the_reference(name):
    for dtype in (torch.bfloat16, torch.float64):
        arguments = inputs(name, dtype=dtype)
        assert torch.equal(run(name, "auto", *arguments), run(name, "reference", *arguments))


@needs_compiler
@every_gate
def test_it_is_one_operator_that_pytorch_can_trust(name):
    from facerwkv.kernels.native import gates as operators

    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(getattr(operators, name), tuple(inputs(name, dtype=torch.float32)), test_utils=checks)


@needs_compiler
def test_a_compiler_gets_pytorch_s_operations():
    class Gate(torch.nn.Module):
        def forward(self, k, v):
            return gates.mish_gate(k, v)

    graph = torch.export.export(Gate(), tuple(inputs("mish_gate", dtype=torch.float32))).graph
    assert not [node for node in graph.nodes if "facerwkv" in str(node.target)]


@every_gate
def test_without_the_library_native_says_what_to_do(monkeypatch, name):
    monkeypatch.setattr(calls, "library", lambda: None)
    with pytest.raises(InputError, match="implementation='reference'"):
        run(name, "native", *inputs(name, dtype=torch.float32))
    run(name, "auto", *inputs(name, dtype=torch.float32))


@pytest.mark.parametrize("name", [name for name in IMPLEMENTATIONS if len(inputs(name)) > 1])
@pytest.mark.parametrize("form", ["auto", "reference", "native"])
def test_shapes_that_do_not_fit_are_refused_before_memory_is_read(name, form):
    given = [value.detach() for value in inputs(name, dtype=torch.float32)]
    with pytest.raises(InputError, match=rf"{name} takes .*, not \(2, 7, 70\)"):
        run(name, form, *given[:-1], given[-1][..., :35])


@needs_compiler
def test_float64_is_refused():
    with pytest.raises(InputError, match=r"native mish_gate .* not on cpu in torch\.float64"):
        run("mish_gate", "native", *inputs("mish_gate"))


@needs_compiler
def test_the_dispatcher_is_passed_by_only_where_nobody_watches():
    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            seen.append(str(function))
            return function(*args, **(kwargs or {}))

    seen: list[str] = []
    r, x = torch.randn(2, 3, 4)
    unwatched = gates.sigmoid_gate(r, x)
    with Watch():
        watched = gates.sigmoid_gate(r, x)
    assert seen == ["facerwkv.sigmoid_gate.default"]
    assert torch.equal(watched, unwatched)
    assert gates.sigmoid_gate(r.requires_grad_(), x).grad_fn is not None
    with torch.no_grad():
        assert torch.equal(gates.sigmoid_gate(r, x), unwatched)


@needs_compiler
@pytest.mark.parametrize("name", ["squared_relu", "sigmoid_gate"])
class TestInPlace:
    """The last input may be overwritten."""

    def run(self, name, *given):
        return getattr(gates, name)(*given, inplace=True)

    def test_without_gradients_the_result_takes_the_input_s_place(self, name):
        given = [one.detach() for one in inputs(name, 3, (3, 40, 250), torch.float32)]
        expected = run(name, "reference", *given)
        y = self.run(name, *given)
        assert y.data_ptr() == given[-1].data_ptr()
        torch.testing.assert_close(y, expected)

    def test_inputs_that_gradients_need_are_left_alone(self, name):
        given = inputs(name, 3, (3, 40, 250), torch.float32)
        before = [one.detach().clone() for one in given]
        self.run(name, *given).sum().backward()
        assert all(torch.equal(one.detach(), kept) for one, kept in zip(given, before, strict=True))

    def test_only_a_contiguous_input_is_overwritten(self, name):
        given = [one.detach()[..., ::2] for one in inputs(name, 3, (3, 40, 250), torch.float32)]
        before = [one.clone() for one in given]
        torch.testing.assert_close(self.run(name, *given), run(name, "reference", *before))
        assert all(torch.equal(one, kept) for one, kept in zip(given, before, strict=True))
