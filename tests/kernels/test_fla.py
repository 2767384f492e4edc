"""fla-core is not installed for tests: a package with its names and signatures stands in for it."""

import inspect
import sys

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.functional import normalize

from facerwkv.core.errors import InputError
from facerwkv.kernels import chunks, wkv6, wkv7

OPERATORS = {"wkv6": wkv6.wkv6, "wkv7": wkv7.wkv7}
SIGNATURES = {  # fla-core 0.6: what comes without a default, and what may be named
    "wkv6": (["r", "k", "v", "w", "u"], ["scale", "initial_state", "output_final_state", "cu_seqlens"]),
    "wkv7": (["r", "w", "k", "v", "a", "b"], ["scale", "initial_state", "output_final_state", "cu_seqlens"]),
}
every_operator = pytest.mark.parametrize("name", OPERATORS)


def random_inputs(name, length=20, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    r, k, v, w, kk = torch.randn(5, 2, length, 3, 16, generator=generator)
    w, kk = -w.exp().clamp(max=4), normalize(kk, dim=-1)
    given = {"r": r, "k": k, "v": v, "a": -kk, "b": kk * 0.5}
    inputs = {key: x.to(dtype) for key, x in given.items()} | {"w": w, "u": torch.randn(3, 16, generator=generator)}
    return [inputs[key] for key in SIGNATURES[name][0]]


def stand_in(name, calls):
    """fla's operator, computed by its documented formula, one token at a time; its state is keys by values."""
    required, optional = SIGNATURES[name]
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(x, kind) for x in required]
    parameters += [inspect.Parameter(x, kind, default=None) for x in optional]

    def operator(*args, **kwargs):
        given = inspect.Signature(parameters).bind(*args, **kwargs).arguments
        calls.append(given)
        x = {key: given[key].double() for key in required}
        state, outputs = given["initial_state"].double(), []
        for t in range(x["r"].shape[1]):
            r, k, v, w = (x[key][:, t] for key in ("r", "k", "v", "w"))
            written, decayed = torch.einsum("bhk,bhv->bhkv", k, v), torch.einsum("bhk,bhkv->bhkv", w.exp(), state)
            if name == "wkv6":
                read, state = state + x["u"][None, :, :, None] * written, decayed + written
            else:
                unlearnt = torch.einsum("bhk,bhj,bhjv->bhkv", x["b"][:, t], x["a"][:, t], state)
                read = state = decayed + unlearnt + written
            outputs.append(torch.einsum("bhk,bhkv->bhv", r * given["scale"], read))
        return torch.stack(outputs, 1).to(given["v"].dtype), state.float()

    return operator


@every_operator
def test_what_is_passed_gives_our_outputs_and_states(name, monkeypatch):
    calls = []
    monkeypatch.setattr(sys.modules[OPERATORS[name].__module__], "fla_operator", lambda *_: stand_in(name, calls))
    inputs = random_inputs(name)
    start = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    results = [OPERATORS[name](*inputs, start, implementation=form) for form in ("fla", "reference")]
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)
    assert calls[0]["output_final_state"] is True
    assert calls[0]["w"].is_contiguous()


@every_operator
def test_half_precision_stays_and_decays_and_states_are_in_float32(name, monkeypatch):
    calls = []
    monkeypatch.setattr(sys.modules[OPERATORS[name].__module__], "fla_operator", lambda *_: stand_in(name, calls))
    y, state = OPERATORS[name](*random_inputs(name, dtype=torch.bfloat16), implementation="fla")
    passed = {key: x.dtype for key, x in calls[0].items() if torch.is_tensor(x)}
    wide = {"w": torch.float32, "u": torch.float32, "initial_state": torch.float32}
    assert passed == {key: wide.get(key, torch.bfloat16) for key in passed}
    assert (y.dtype, state.dtype) == (torch.bfloat16, torch.float32)


def test_a_decay_of_0_reaches_fla_as_a_finite_logarithm(monkeypatch):
    calls = []
    monkeypatch.setattr(wkv6, "fla_operator", lambda *_: stand_in("wkv6", calls))
    r, k, v, w, u = random_inputs("wkv6")
    results = [
        wkv6.wkv6(r, k, v, torch.full_like(w, -torch.inf), u, implementation=form) for form in ("fla", "reference")
    ]
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)
    assert calls[0]["w"].isfinite().all()


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package fla of the given source, for as long as the test runs."""

    def install(source):
        for generation in ("rwkv6", "rwkv7"):
            folder = tmp_path / "fla" / "ops" / generation
            folder.mkdir(parents=True)
            (folder / "__init__.py").write_text(source.format(name=f"chunk_{generation}"))
        monkeypatch.syspath_prepend(tmp_path)

    chunks._from_fla.cache_clear()
    yield install
    chunks._from_fla.cache_clear()
    for module in [x for x in sys.modules if x.split(".")[0] == "fla"]:
        del sys.modules[module]


def on_cuda(name, dtype=torch.bfloat16, length=20, size=16, implementation="auto"):
    """The outputs' shape and device, by tensors without data."""
    with FakeTensorMode():
        shapes = {"u": (3, size)}
        inputs = [
            torch.ones(shapes.get(key, (2, length, 3, size)), device="cuda", dtype=dtype) for key in SIGNATURES[name][0]
        ]
        return OPERATORS[name](*inputs, implementation=implementation)[0]


RECORDS = """
used = []
def {name}(*inputs, scale, initial_state, output_final_state):
    used.append({name!r})
    return inputs[0], initial_state
"""


@every_operator
@pytest.mark.parametrize(
    ("choices", "chosen"),
    [
        ({}, True),
        ({"dtype": torch.float16}, True),
        ({"dtype": torch.float32}, False),  # fla would round it
        ({"length": 1}, False),
        ({"size": 8}, False),
    ],
)
def test_auto_takes_it_on_cuda_for_half_precision(name, choices, chosen, installed):
    installed(RECORDS)
    assert on_cuda(name, **choices).device.type == "cuda"
    module = sys.modules.get(f"fla.ops.r{name}")
    assert bool(module and module.used) == chosen


@every_operator
def test_without_it_auto_does_without(name, monkeypatch):
    monkeypatch.setattr(chunks, "find_spec", lambda _: None)
    assert on_cuda(name).device.type == "cuda"


@every_operator
def test_one_that_cannot_be_loaded_is_passed_over_and_named_when_asked_for(name, installed):
    installed("raise RuntimeError('0 active drivers')")
    assert on_cuda(name).device.type == "cuda"
    with pytest.raises(InputError, match=r"cannot be loaded \(RuntimeError: 0 active drivers\).*use 'chunked'"):
        on_cuda(name, implementation="fla")


@every_operator
def test_without_it_the_extra_is_named(name, monkeypatch):
    monkeypatch.setattr(chunks, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"needs fla-core: pip install 'facerwkv\[fla\]'"):
        on_cuda(name, implementation="fla")
