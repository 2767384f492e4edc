"""What holds for every public call of the kernels: its inputs are checked, and what is asked of it finds a form."""

import ctypes
import math
import mmap
import os
import runpy
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad

from facerwkv.core.errors import InputError
from facerwkv.kernels import calls, gates, products
from facerwkv.kernels.calls import Inputs
from facerwkv.kernels.wkv4 import wkv4

TOOLS = Path(__file__).resolve().parents[2] / "tools"
FUZZ, SANITIZERS = (runpy.run_path(str(TOOLS / f"{name}_kernels.py")) for name in ("fuzz", "sanitize"))
KERNELS = FUZZ["KERNELS"]
every_kernel = pytest.mark.parametrize("name", KERNELS)
SIZES = {"B": 2, "T": 5, "H": 2, "N": 16, "...": 3}
needs_compiler = pytest.mark.skipif(calls.library() is None, reason=str(calls.problem()))


def inputs_of(name, **sizes):
    """Inputs that fit, each size another number."""
    kernel, made = KERNELS[name], []
    source = torch.Generator().manual_seed(0)
    known = {**kernel.inputs.fixed, **SIZES, **sizes}
    for tensor, dims, dtypes, _ in kernel.inputs.tensors:
        shape = [known.setdefault(dim, 20 + len(known)) for dim in dims]
        x = torch.randn(shape, generator=source)
        x = (kernel.shaped or {}).get(tensor, lambda x: x)(x) if torch.float32 in dtypes else x.mul(50).byte()
        made.append(x)
    return made


def run(name, inputs, form="auto"):
    return KERNELS[name].run(form, inputs)


@every_kernel
def test_each_input_is_checked_by_every_form(name):
    for at, (tensor, *_) in enumerate(KERNELS[name].inputs.tensors):
        whole = inputs_of(name)
        wrong = {
            "shape": torch.cat([whole[at]] * 3, -1) if len(whole) > 1 else None,
            "dtype": whole[at].to(torch.int32),
            "device": whole[at].to("meta") if len(whole) > 1 else None,
            "layout": whole[at].to_sparse(),
            "dimension": whole[at][None] if "..." not in KERNELS[name].inputs.line else None,
            "kind": whole[at].tolist(),
        }
        for kind, x in wrong.items():
            if x is None or (name == "linear" and (kind, tensor) != ("device", "weight")):  # PyTorch checks the rest
                continue
            for form in KERNELS[name].forms:
                with pytest.raises(InputError, match=r"takes .*not ") as error:
                    run(name, [*whole[:at], x, *whole[at + 1 :]], form)
                assert tensor in str(error.value) or "weight" in str(error.value)


def test_a_refusal_names_both_values():
    inputs = Inputs("mix", "w C, u* C, k B T C, state? B 3 C, x ... C")
    w, u, k, state, x = (torch.zeros(shape) for shape in ((4,), (1,), (2, 5, 4), (2, 3, 4), (7, 4)))
    inputs.check(w, u, k, None, x)
    wanted = (
        r"mix takes w and u \(C,\), k \(B, T, C\), state \(B, 3, C\), x \(..., C\), not \(4,\), \(1,\), \(2, 5, 4\), "
    )
    for wrong, reason in (
        ((w, u, k, torch.zeros(1, 3, 4), x), wanted + r"\(1, 3, 4\), \(7, 4\): B is 2 in k and 1 in state\."),
        ((w, u, k, torch.zeros(2, 2, 4), x), r": state has 2 where 3 belongs\."),
        ((w, torch.zeros(2), k, state, x), r": C is 4 in w and 2 in u\."),
        ((w, u, k[0], state, x), r": k has 2 dimensions\."),
        (
            (w, u, k.long(), state, x),
            r"k as a dense tensor in float32, .* not as torch\.int64",
        ),
        ((w, u, k, state.to("meta"), x), r"w on cpu, state on meta"),
        ((w, None, k, state, x), r"not as NoneType"),
    ):
        with pytest.raises(InputError, match=reason):
            inputs.check(*wrong)


def test_the_state_of_another_batch_is_refused():
    w, k = torch.rand(8), torch.randn(16, 5, 8)
    _, state = wkv4(w, w, k[:1], k[:1])
    with pytest.raises(InputError, match="B is 16 in k and 1 in state"):
        wkv4(w, w, k, k, state)


@every_kernel
def test_new_tensors_are_of_the_inputs_kind(name):
    inputs = inputs_of(name)
    expected = run(name, [x.clone() for x in inputs])
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            found = run(name, inputs)
    finally:
        torch.set_default_dtype(torch.float32)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


@every_kernel
@pytest.mark.parametrize("gradients", [False, True])
def test_tensors_without_memory_give_shapes(name, gradients):
    inputs = inputs_of(name)
    expected = run(name, [x.clone() for x in inputs])
    fake = FakeTensorMode()
    with torch.set_grad_enabled(gradients):
        for without in ([x.to("meta") for x in inputs], [fake.from_tensor(x) for x in inputs]):
            with fake if without[0].device.type == "cpu" else nullcontext():
                found = run(name, [x.requires_grad_(gradients and x.is_floating_point()) for x in without])
            assert [(y.shape, y.dtype) for y in found] == [(y.shape, y.dtype) for y in expected]


@every_kernel
@pytest.mark.parametrize("mode", ["jvp", "vmap", "twice"])
def test_derivatives_of_other_kinds_are_those_of_the_reference(name, mode):
    inputs, kernel = inputs_of(name), KERNELS[name]
    found = FUZZ["observe"](kernel, "auto", mode, [x.clone() for x in inputs])
    wide = [x.double() if x.is_floating_point() else x for x in inputs]
    exact = FUZZ["observe"](kernel, kernel.forms[1 % len(kernel.forms)], mode, wide)
    for one, truth in zip(found, exact, strict=True):
        torch.testing.assert_close(one.double(), truth, rtol=1e-4, atol=1e-4 * truth.abs().max().item())


@needs_compiler
@pytest.mark.parametrize("name", [name for name, kernel in KERNELS.items() if "native" in kernel.forms])
def test_the_native_form_refuses_forward_mode_in_words(name):
    if name != "look_up":
        with pytest.raises(InputError, match=r"no forward-mode derivative.*implementation="):
            FUZZ["observe"](KERNELS[name], "native", "jvp", inputs_of(name))


@needs_compiler
@pytest.mark.parametrize(
    "name", [name for name, kernel in KERNELS.items() if "native" in kernel.forms and name != "look_up"]
)
def test_another_thread_s_forward_mode_refuses_nothing(name):
    """Its level is PyTorch's for all threads, and may come between the choice of a form and the call."""
    inputs, kernel = inputs_of(name), KERNELS[name]
    expected = FUZZ["observe"](kernel, "native", "plain", inputs)
    with forward_ad.dual_level():
        found = FUZZ["observe"](kernel, "native", "plain", inputs)
    assert all(map(torch.equal, found, expected))


@needs_compiler
def test_operators_check_what_reaches_them_past_the_public_calls():
    import facerwkv.kernels.native.matrix_state  # noqa: F401
    import facerwkv.kernels.native.wkv  # noqa: F401

    w, k, state = torch.rand(8), torch.randn(4, 5, 8), torch.zeros(4, 3, 8)
    for wrong in ((w, w, k, k, state[:1]), (w[:4], w, k, k, None), (w, w, k.double(), k, None)):
        with pytest.raises(InputError, match="facerwkv::wkv4 takes"):
            torch.ops.facerwkv.wkv4(*wrong)
    heads = torch.randn(1, 2, 1, 512)
    with pytest.raises(InputError, match="not 512"):
        torch.ops.facerwkv.wkv6(heads, heads, heads, heads, heads[0, 0], torch.zeros(1, 1, 512, 512))


@every_kernel
@pytest.mark.parametrize("empty", ["B", "T", "C", "D", "F", "H", "N", "S", "c"])
def test_an_empty_dimension_is_as_in_the_reference(name, empty):
    if any(empty in dims for _, dims, _, _ in KERNELS[name].inputs.tensors):
        for mode in ("plain", "gradients"):
            results = {
                form: FUZZ["attempt"](KERNELS[name], form, mode, inputs_of(name, **{empty: 0}))
                for form in KERNELS[name].forms
            }
            auto = results.pop("auto")
            assert not isinstance(auto, Exception), auto
            for form, found in results.items():
                if form not in ("native", "onednn"):
                    assert [x.shape for x in found] == [x.shape for x in auto]


@needs_compiler
class TestInPlace:
    def test_what_shares_memory_with_the_input_is_not_overwritten(self):
        held = torch.randn(9, 32)
        r, x = held[:8], held[1:]
        expected = gates.sigmoid_gate(r, x, "reference")
        assert torch.equal(gates.sigmoid_gate(r, x, inplace=True), gates.sigmoid_gate(r, x, "native"))
        torch.testing.assert_close(gates.sigmoid_gate(r, x), expected)

    def test_a_backward_pass_that_kept_the_input_notices(self):
        w, k = torch.randn(3, 4, requires_grad=True), torch.randn(3, 4)
        product = (w * k).sum()
        gates.squared_relu(k, inplace=True)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            product.backward()


def test_half_precision_does_not_overflow_in_the_rational_gate():
    k = torch.linspace(-8, 60, 200)
    for dtype in (torch.float16, torch.bfloat16):
        one = torch.ones(200, dtype=dtype)
        expected = gates.mish_gate(k.to(dtype), one, "reference")
        torch.testing.assert_close(gates.mish_gate(k.to(dtype), one, "rational"), expected)


def test_one_vector_trains_as_a_batch_does():
    r, x, weight = torch.randn(6, requires_grad=True), torch.randn(6), torch.randn(4, 6)
    whole = products.gated_product(r[None], x[None], weight.requires_grad_())[0]
    torch.testing.assert_close(products.gated_product(r, x, weight), whole)
    for one, other in zip(
        torch.autograd.grad(products.gated_product(r, x, weight).sum(), (r, weight)),
        torch.autograd.grad(whole.sum(), (r, weight)),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_a_fuzz_of_all_of_it():
    for first, threads in ((0, 1), (1000, 3)):
        seen, wrong = FUZZ["fuzz"](range(first, first + 120), threads)
        assert not wrong, "\n".join(wrong)
        assert seen.total() == 120


FURTHER = ["wkv4_forward", "toeplitz_enter", "squared_relu_forward", "token_mix_forward", "pixels_forward"]


@pytest.fixture
def endless():
    """2^31 numbers and some more, the same 64 MB again and again; what lies before them may not be touched."""
    libc, chunk, count = ctypes.CDLL(None, use_errno=True), 1 << 26, 130
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    file = os.memfd_create("numbers")
    os.ftruncate(file, chunk)
    start = libc.mmap(None, 2 * count * chunk, 0, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
    first = start + count * chunk
    for at in range(first, first + count * chunk, chunk):
        assert (
            libc.mmap(at, chunk, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED | 0x10, file, 0) == at
        )  # MAP_FIXED
    yield torch.frombuffer((ctypes.c_float * (count * chunk // 4)).from_address(first), dtype=torch.float32)
    libc.munmap(ctypes.c_void_p(start), ctypes.c_size_t(2 * count * chunk))
    os.close(file)


@needs_compiler
@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="memory is mapped as Linux does it")
@pytest.mark.parametrize("name", FURTHER)
def test_c_code_counts_further_than_32_bits(name, endless):
    sizes, pointers = SANITIZERS["FUNCTIONS"][name]
    lengths = SANITIZERS["LENGTHS"] | {"T": 16, "P": 16}
    grows = sizes[0] if sizes[0] != "R" else "B"
    grown = [letters.replace(grows, "") for letters in pointers.split() if grows in letters]
    one = max(math.prod(lengths[letter] for letter in letters) for letters in grown)
    lengths[grows] = (1 << 31) // one + 1
    needed = max(math.prod(lengths[letter] for letter in letters) for letters in pointers.split())
    assert (1 << 31) < needed <= endless.numel()
    calls.run(name, [lengths[letter] for letter in sizes], [endless] * len(pointers.split()))
