"""A fuzz of the public kernels: random shapes, strides, dtypes, views and states, compared with float64.

    python tools/fuzz_kernels.py --cases 5000 --seed 1
    python tools/fuzz_kernels.py --seconds 600 --threads 4

What a call takes is read off its own line of shapes. A case that was made to fit must give what the reference gives in
float64, gradients too; one that was broken must be refused by every form or by none. Prints the number of cases, and
for each that failed its number, with which `--only NUMBER` repeats it; exits with 1 then.
"""

import argparse
import random
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from threading import Lock

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from facerwkv.core.errors import InputError, first_line
from facerwkv.kernels import biwkv, gates, pixels, products, toeplitz, wkv4, wkv6, wkv7
from facerwkv.kernels.calls import FLOATS, Inputs

SIZES = {
    "B": [0, 1, 1, 2, 2, 3],
    "T": [0, 1, 2, 3, 7, 15, 16, 17, 33, 70],
    "H": [0, 1, 1, 2, 3],
    "N": [16, 16, 32, 64, 8, 24, 1, 0, 272],
    "S": [0, 1, 2, 3, 16, 20],
    "c": [0, 1, 3, 3, 4],
}
WIDTHS = [0, 1, 2, 3, 15, 16, 17, 31, 64, 70, 100]
LONG = [1030, 1500, 2500]  # tokens beyond those that toeplitz's C code takes without transforms
LARGEST = 20_000  # numbers of one tensor
STRANGE = [torch.int64, torch.uint8, torch.bool, torch.complex64, torch.float8_e4m3fn]
MODES = (
    ["gradients"] * 6 + ["plain"] * 6 + ["no_grad", "inference", "meta", "fake", "elsewhere", "vmap", "twice", "jvp"]
)
WAYS = ["size"] * 4 + ["one", "dimension", "dtype", "device", "layout"]
FORWARD_MODE = Lock()  # torch's levels are of the process
Call = Callable[..., Tensor | tuple[Tensor, ...]]


@dataclass(frozen=True)
class Kernel:
    """A public call; how random numbers become its inputs, by name; its implementations, or only "auto"."""

    call: Call
    inputs: Inputs
    forms: tuple[str, ...] = ("auto",)
    shaped: dict[str, Callable[[Tensor], Tensor]] | None = None

    def run(self, form: str, inputs: list[Tensor | None]) -> tuple[Tensor, ...]:
        chosen = {"implementation": form} if len(self.forms) > 1 else {}
        found = self.call(*inputs, **chosen)
        return (found,) if isinstance(found, Tensor) else tuple(found)


def _forms(known: dict[str, Callable]) -> tuple[str, ...]:
    return ("auto", *(name for name in known if name not in ("triton", "fla")))


def _fade(x: Tensor) -> Tensor:
    return -x.abs()


def _small(x: Tensor) -> Tensor:
    return x / (1 + x.norm(dim=-1, keepdim=True))


def _sums(state: Tensor) -> Tensor:
    """A state that values could have left: its denominators are above 0."""
    return torch.stack([state[:, 0], state[:, 1].abs() + 0.1, state[:, 2]], 1)


def _wkv4(w: Tensor, u: Tensor, k: Tensor, v: Tensor, state: Tensor | None, implementation: str) -> tuple[Tensor, ...]:
    """wkv4 with what its state stands for: a e^p and b e^p."""
    y, end = wkv4.wkv4(w, u, k, v, state, implementation)
    return y, end[:, :2] * end[:, 2:].exp()


KERNELS = {
    "wkv4": Kernel(_wkv4, wkv4.INPUTS, _forms(wkv4.IMPLEMENTATIONS), {"w": torch.abs, "state": _sums}),
    "biwkv": Kernel(biwkv.biwkv, biwkv.INPUTS, _forms(biwkv.IMPLEMENTATIONS), {"w": torch.abs}),
    "wkv6": Kernel(wkv6.wkv6, wkv6.INPUTS, _forms(wkv6.IMPLEMENTATIONS), {"w": _fade}),
    "wkv7": Kernel(wkv7.wkv7, wkv7.INPUTS, _forms(wkv7.IMPLEMENTATIONS), {"w": _fade, "a": _small, "b": _small}),
    "toeplitz": Kernel(toeplitz.toeplitz, toeplitz.INPUTS, _forms(toeplitz.IMPLEMENTATIONS)),
    "look_up": Kernel(pixels.look_up, pixels.INPUTS, _forms(pixels.IMPLEMENTATIONS)),
    **{
        name: Kernel(getattr(gates, name), inputs, _forms(gates.IMPLEMENTATIONS[name]))
        for name, inputs in gates.INPUTS.items()
    },
    "sigmoid_gate in place": Kernel(partial(gates.sigmoid_gate, inplace=True), gates.INPUTS["sigmoid_gate"]),
    "squared_relu in place": Kernel(partial(gates.squared_relu, inplace=True), gates.INPUTS["squared_relu"]),
    "linear": Kernel(products.linear, products.INPUTS, _forms(products.IMPLEMENTATIONS)),
    "mixed_products": Kernel(
        lambda x, mixes, last, *weights: tuple(products.mixed_products(x, mixes, list(weights), last)),
        Inputs("mixed_products", "x B T D, mixes 2 D, last B D, one F D, other G D"),
    ),
    "squared_relu_product": Kernel(products.squared_relu_product, products.SQUARED),
    "gated_product": Kernel(products.gated_product, products.GATED),
}


@dataclass
class Case:
    """One call: what a number alone decides."""

    name: str
    form: str
    mode: str
    broken: str
    inputs: list[Tensor | None]

    def __str__(self) -> str:
        shapes = ", ".join("None" if x is None else f"{tuple(x.shape)} {x.dtype}" for x in self.inputs)
        return f"{self.name}, {self.form}, {self.mode}, {self.broken or 'whole'}: {shapes}"


class Maker:
    """Makes a case."""

    def __init__(self, number: int):
        self.random, self.source = random.Random(number), torch.Generator().manual_seed(number)

    def case(self) -> Case:
        pick = self.random.choice
        name = pick([*KERNELS])
        case = Case(name, pick(KERNELS[name].forms), pick(MODES), "", self.tensors(KERNELS[name]))
        if self.random.random() < 0.2:
            case.mode, case.broken = (
                pick(MODES[4:9]),
                pick(["size"] * 4 + ["one", "dimension", "dtype", "device", "layout"]),
            )
            at = pick([i for i, x in enumerate(case.inputs) if x is not None])
            case.inputs[at] = self.broken(case.broken, case.inputs[at])  # type: ignore[arg-type]
        return case

    def tensors(self, kernel: Kernel) -> list[Tensor | None]:
        wanted, pick = kernel.inputs.tensors, self.random.choice
        shapes = self.shapes(kernel)
        while any(torch.Size(shape).numel() > LARGEST for shape in shapes):
            shapes = self.shapes(kernel)
        common, mixed = pick([torch.float32] * 5 + list(FLOATS)), self.random.random() < 0.2
        tensors: list[Tensor | None] = []
        for (name, _, dtypes, mark), shape in zip(wanted, shapes, strict=True):
            if mark == "*" and self.random.random() < 0.3:
                shape = tuple(pick([1, n]) for n in shape)[pick([0, 1]) :]
            dtype = pick(dtypes) if mixed or common not in dtypes else common
            made = (kernel.shaped or {}).get(name, lambda x: x)(self.numbers(shape, dtype))
            tensors.append(self.laid(made.to(dtype)))
        if len(tensors) > 1 and shapes[-2] == shapes[-1] and self.random.random() < 0.2:
            tensors[-2] = tensors[-1]
        if wanted[-1][-1] == "?" and self.random.random() < 0.4:
            tensors[-1] = None
        return tensors

    def shapes(self, kernel: Kernel) -> list[tuple[int, ...]]:
        pick, fixed = self.random.choice, kernel.inputs.fixed
        sizes = {
            dim: fixed.get(dim, pick(SIZES.get(dim, WIDTHS))) for _, dims, _, _ in kernel.inputs.tensors for dim in dims
        }
        if kernel.call is toeplitz.toeplitz and self.random.random() < 0.05:
            sizes["T"] = pick(LONG)
        leading = tuple(pick(WIDTHS[:6]) for _ in range(pick([0, 1, 2])))
        shapes = []
        for _, dims, _, _ in kernel.inputs.tensors:
            parts = (leading if dim == "..." else (sizes[dim],) for dim in dims)
            shapes.append(tuple(size for part in parts for size in part))
        return shapes

    def numbers(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        if not dtype.is_floating_point:
            return torch.randint(0, 256, shape, generator=self.source)
        return self.random.choice([0, 1, 1, 3]) * torch.randn(shape, generator=self.source, dtype=torch.float64)

    def laid(self, x: Tensor) -> Tensor:
        """The same numbers, lying in memory in one of several ways."""
        way = self.random.choice(["plain"] * 4 + ["moved", "apart", "expanded", "negative", "odd"])
        if way == "moved" and x.ndim > 1:
            return x.transpose(0, -1).contiguous().transpose(0, -1)
        if way == "apart" and x.ndim:
            return torch.stack([x] * 2, -1)[..., 0]
        if way == "expanded" and x.ndim and x.shape[0]:
            return x[:1].expand(x.shape)
        if way == "negative" and x.is_floating_point():
            return torch._neg_view(-x)
        if way == "odd":  # at an address that no vector starts at
            return torch.cat([x.new_zeros(1), x.reshape(-1)])[1:].view(x.shape)
        return x

    def broken(self, how: str, x: Tensor) -> Tensor:
        axis = self.random.randrange(max(x.ndim, 1))
        if how == "dtype":
            return x.to(self.random.choice(STRANGE))
        if how == "device":
            return x.to("meta")
        if how == "layout":
            return x.to_sparse()
        if how == "dimension" or not x.ndim:
            return x[None] if not x.numel() or self.random.random() < 0.5 or not x.ndim else x[0]
        if how == "one":
            return x.narrow(axis, 0, min(x.shape[axis], 1))
        return torch.cat([x, x], axis) if self.random.random() < 0.5 else x.narrow(axis, 0, x.shape[axis] // 2)


def observe(kernel: Kernel, form: str, mode: str, inputs: list[Tensor | None]) -> list[Tensor]:
    """What a call gives in a mode: outputs, or their derivatives."""
    floats = [i for i, x in enumerate(inputs) if x is not None and x.is_floating_point()]

    def run(*some: Tensor) -> tuple[Tensor, ...]:
        given = list(inputs)
        for i, x in zip(floats, some, strict=True):
            given[i] = x
        return kernel.run(form, given)

    some: list[Tensor] = [inputs[i] for i in floats]  # type: ignore[misc]
    if mode == "jvp":
        some = [x.resolve_neg().clone() for x in some]  # torch has no tangents for all views
        with FORWARD_MODE:
            return list(torch.func.jvp(run, tuple(some), tuple(torch.ones_like(x) for x in some))[1])
    if mode == "vmap":
        return list(torch.func.vmap(run)(*(torch.stack([x, x]) for x in some)))
    if mode not in ("gradients", "twice"):
        return list(run(*some))
    some = [x.detach().requires_grad_() for x in some]
    outputs = run(*some)
    total = sum(((1 + y.double()).square().sum() for y in outputs), torch.zeros(()))
    if not total.requires_grad:
        return list(outputs)
    found = torch.autograd.grad(total, some, create_graph=mode == "twice", materialize_grads=True)
    if mode == "twice":
        total = sum((grad.double().square().sum() for grad in found), torch.zeros(()))
        if total.requires_grad:
            found = torch.autograd.grad(total, some, materialize_grads=True)
    return [*outputs, *found]


def attempt(kernel: Kernel, form: str, mode: str, inputs: list[Tensor | None]) -> list[Tensor] | Exception:
    """What `observe` sees, or the error of a refusal."""
    place: AbstractContextManager = nullcontext()
    if mode == "no_grad":
        place = torch.no_grad()
    elif mode == "inference":
        place = torch.inference_mode()
    elif mode == "elsewhere":  # where new tensors would go if nobody said where
        place = torch.device("meta")
    elif mode == "fake":
        place = fake = FakeTensorMode()
        inputs = [x if x is None else fake.from_tensor(x) for x in inputs]
    elif mode == "meta":
        inputs = [x if x is None else x.to("meta") for x in inputs]
    try:
        with place:
            return observe(kernel, form, mode, inputs)
    except (ValueError, RuntimeError, IndexError, NotImplementedError) as error:
        return error


def check(number: int) -> str:
    """What came of a case: "right" or "refused", with its mode. AssertionError where a kernel is wrong."""
    case = Maker(number).case()
    kernel, held = KERNELS[case.name], [x if x is None else x.detach().clone() for x in case.inputs]
    defining = "reference" if "reference" in kernel.forms else "auto"
    derived = case.mode if case.mode in ("gradients", "twice", "jvp", "vmap") else "plain"
    copies = [x if x is None else x.clone() for x in held] if "in place" in case.name else case.inputs
    expected = attempt(kernel, defining, derived, copies)
    found = attempt(kernel, case.form, case.mode, case.inputs)
    if isinstance(expected, Exception):
        if case.name == "linear" and case.mode in ("meta", "fake"):
            return "refused"  # torch itself is less strict there
        assert isinstance(found, Exception), f"accepted, where the reference says: {expected}"
        assert isinstance(found, InputError) or case.name == "linear", f"not refused at the door: {found!r}"
        return "refused"
    if isinstance(found, Exception):
        assert case.form != "auto", f"refused, where the reference is not: {found!r}"
        return "refused by this form alone"
    if case.mode in ("meta", "fake") or expected[0].is_meta:
        assert [(x.shape, x.dtype) for x in found] == [(x.shape, x.dtype) for x in expected]
        return case.mode
    exact = attempt(
        kernel, defining, derived, [x.double() if x is not None and x.is_floating_point() else x for x in held]
    )
    if isinstance(exact, Exception):
        assert case.name == "linear", f"float64 is refused: {exact!r}"  # torch takes some biases of whole numbers
        return "refused"
    largest = max((float(x.abs().nan_to_num(0, 0).max()) for x in exact if x.numel()), default=0.0)
    for got, plain, truth in zip(found, expected, exact, strict=True):
        assert (got.shape, got.dtype) == (plain.shape, plain.dtype), f"{got.shape} {got.dtype}, not {plain.dtype}"
        known = plain.isfinite() & (truth.abs() < torch.finfo(got.dtype).max / 2)  # not at the edge of half precision
        if case.mode == "twice" and any(x is not None and x.dtype == torch.float16 for x in held):
            known &= got.isfinite()  # nor where steps in between overflow it
        if known.any():
            errors = ((x.double() - truth)[known].abs().nan_to_num(torch.inf).max() for x in (got, plain))
            wrong, usual = map(float, errors)
            allowed = max(10 * usual, 3e-4 * (1 + float(truth[known].abs().max())), 1e-6 * largest)
            assert wrong <= allowed, f"off by {wrong}, usually {usual}"
    for before, after in list(zip(held, case.inputs, strict=True))[: -1 if "in place" in case.name else None]:
        kept = before is None or after is None or case.broken or torch.equal(before, after)
        assert kept, "an input was changed"
    return case.mode


def fuzz(numbers: Iterable[int], threads: int = 1) -> tuple[Counter[str], list[str]]:
    """How often what came of the cases, and what was wrong."""

    def one(number: int) -> tuple[str, str]:
        try:
            return check(number), ""
        except Exception as error:
            return "wrong", f"{number}: {Maker(number).case()}: {type(error).__name__} {first_line(error)}"

    with ThreadPoolExecutor(threads) as pool:
        results = list(pool.map(one, numbers))
    return Counter(kind for kind, _ in results), [wrong for _, wrong in results if wrong]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=2000, help="how many")
    parser.add_argument("--seconds", type=float, help="for how long, instead of a number of cases")
    parser.add_argument("--seed", type=int, default=0, help="where the cases' numbers start, in millions")
    parser.add_argument("--threads", type=int, default=3, help="how many call at the same time")
    parser.add_argument("--only", type=int, help="the number of one case")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(True, warn_only=True)  # new memory is then filled with NaN
    if options.only is not None:
        print(Maker(options.only).case(), check(options.only), sep="\n")
        return
    start, seen, failures, done = time.monotonic(), Counter[str](), list[str](), 0
    while time.monotonic() - start < options.seconds if options.seconds else done < options.cases:
        first = options.seed * 1_000_000 + done
        batch = 200 if options.seconds else min(200, options.cases - done)
        found, wrong = fuzz(range(first, first + batch), options.threads)
        seen, failures, done = seen + found, failures + wrong, done + batch
        print(*wrong, sep="\n", end="\n" if wrong else "", flush=True)
    kinds = ", ".join(f"{kind} {times}" for kind, times in seen.most_common())
    print(f"{done} cases, numbered from {options.seed} million on, in {time.monotonic() - start:.0f} s: {kinds}")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
