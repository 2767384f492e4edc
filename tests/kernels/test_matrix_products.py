"""Products with a matrix by oneDNN give what torch's own give."""

import pytest
import torch
from torch.nn import functional

from facerwkv.core.errors import InputError
from facerwkv.kernels import products as module
from facerwkv.kernels.products import Linear, linear

needs_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch is built without oneDNN")
SHAPES = [((2, 70, 96), 128), ((65, 64), 64), ((1, 600, 128), 320), ((3, 5), 4), ((0, 7, 96), 64), ((7,), 5)]


def tensors(shape, features, bias=True):
    source = torch.Generator().manual_seed(0)
    parts = [shape, (features, shape[-1]), *([(features,)] if bias else [])]
    return [torch.randn(part, generator=source) for part in parts]


@needs_onednn
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("shape", "features"), SHAPES)
def test_the_answer_is_as_near_to_float64_as_torch_s_own(shape, features, bias):
    inputs = tensors(shape, features, bias)
    exact = functional.linear(*(x.double() for x in inputs))
    errors = [
        (form(*inputs) - exact).abs().max().item() if exact.numel() else 0.0
        for form in (functional.linear, lambda *given: linear(*given, implementation="onednn"))
    ]
    assert errors[1] <= max(2 * errors[0], 1e-6 * float(exact.abs().max()) if exact.numel() else 0.0)


@needs_onednn
@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("which", range(3))
def test_inputs_may_lie_in_memory_as_they_like(which, gradients):
    for apart in (lambda x: torch.stack([x] * 2, -1)[..., 0], lambda x: x[:1].expand(x.shape)):
        inputs = tensors(*SHAPES[0])
        inputs[which] = apart(inputs[which]).detach().requires_grad_(gradients)
        torch.testing.assert_close(linear(*inputs, implementation="onednn"), functional.linear(*inputs))


@needs_onednn
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("shape", "features"), SHAPES[:3])
def test_the_gradients_are_torch_s(shape, features, bias, monkeypatch):
    monkeypatch.setattr(module, "onednn_pays", lambda: True)
    grads = []
    for implementation in ("reference", "onednn"):
        inputs = [x.requires_grad_() for x in tensors(shape, features, bias)]
        y = linear(*inputs, implementation=implementation)
        grads.append(torch.autograd.grad(y.square().sum(), inputs))
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)


@needs_onednn
def test_second_derivatives_are_torch_s(monkeypatch):
    monkeypatch.setattr(module, "onednn_pays", lambda: True)
    seconds = []
    for implementation in ("reference", "onednn"):
        inputs = [x.requires_grad_() for x in tensors((2, 70, 96), 128)]
        y = linear(*inputs, implementation=implementation)
        first = torch.autograd.grad(y.pow(3).mean(), inputs, create_graph=True)
        seconds.append(torch.autograd.grad(sum(one.square().sum() for one in first), inputs))
    for ours, theirs in zip(*seconds, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


@needs_onednn
def test_strides_do_not_matter():
    x, weight, bias = tensors((2, 70, 96), 128)
    given = x.transpose(0, 1), weight.T.contiguous().T, bias
    torch.testing.assert_close(linear(*given, implementation="onednn"), functional.linear(*given), rtol=1e-4, atol=1e-4)


@needs_onednn
def test_auto_takes_onednn_where_it_pays_and_only_there(monkeypatch):
    taken = []
    monkeypatch.setitem(module.IMPLEMENTATIONS, "onednn", lambda *given: taken.append(1) or functional.linear(*given))
    inputs = tensors((2, 70, 96), 128)
    for pays in (False, True):
        monkeypatch.setattr(module, "onednn_pays", lambda pays=pays: pays)
        linear(*inputs)
        linear(*(x.double() for x in inputs))
        linear(*tensors((3, 96), 128))
        with torch.autocast("cpu", torch.bfloat16):
            linear(*inputs)
        assert len(taken) == pays


@pytest.mark.parametrize(
    ("text", "capability", "pays"),
    [
        ("vendor_id : AuthenticAMD", "AVX512", True),
        ("vendor_id : GenuineIntel", "AVX512", False),
        ("vendor_id : AuthenticAMD", "AVX2", False),
    ],
)
def test_it_pays_on_wide_vectors_that_mkl_leaves_alone(text, capability, pays, monkeypatch, tmp_path):
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(module, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    assert module.onednn_pays.__wrapped__() is pays


def test_an_exported_model_holds_torch_s_own_operator(monkeypatch):
    monkeypatch.setattr(module, "onednn_pays", lambda: True)
    program = torch.export.export(Linear(96, 128), (torch.rand(2, 70, 96),))
    assert torch.ops.aten.linear.default in {node.target for node in program.graph.nodes}


def test_what_onednn_does_not_take_is_a_sentence():
    with pytest.raises(InputError, match=r"float32, not on cpu in torch\.float64"):
        linear(*(x.double() for x in tensors((2, 70, 96), 128)), implementation="onednn")
    with pytest.raises(InputError, match="Choose auto, reference, onednn"):
        linear(*tensors((3, 5), 4), implementation="mkl")
