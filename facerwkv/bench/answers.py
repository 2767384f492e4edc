"""No number without right answers: what is timed is first compared with its reference in float64."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Form = Callable[..., Tensor]
FLOOR = 1e-6  # of the largest number; below that, float32 has nothing to say
GRADIENT_FLOOR = 1e-5


class Disagreement(Exception):
    """What was to be timed computes something else than its reference."""


class Skipped(Exception):
    """What is compared with is not installed: why, and what to type."""


def require_accurate(form: Form, reference: Form, inputs: Sequence[Tensor], gradients: bool = False) -> None:
    """Disagreement unless `form` errs at most twice as much as `reference` in float32 does, both against float64.

    Compared are the output and, with `gradients`, the gradient of every input.
    """
    answers = []  # in float64, in float32, and ours
    for call, given in ((reference, [x.double() for x in inputs]), (reference, inputs), (form, inputs)):
        if gradients:
            answers.append(forward_backward(call, given)())
        else:
            with torch.inference_mode():
                answers.append([call(*given)])
    for number, (exact, usual, ours) in enumerate(zip(*answers, strict=True)):
        floor, what = (GRADIENT_FLOOR, f"the gradient of input {number}") if number else (FLOOR, "the output")
        require_close(ours, exact, floor, what, at_least=2 * (usual - exact).abs().max().item())


def require_close(got: Tensor, exact: Tensor, tolerance: float, what: str, at_least: float = 0.0) -> None:
    """Disagreement unless `got` differs from `exact` by at most `tolerance` of its largest number.

    An error of `at_least` is allowed in any case.
    """
    error, allowed = (got - exact).abs().max().item(), max(at_least, tolerance * exact.abs().max().item())
    if not error <= allowed:  # NaN is refused too
        raise Disagreement(f"{what} is off by {error:.2g}, allowed are {allowed:.2g}")


def forward_backward(form: Form, inputs: Sequence[Tensor]) -> Callable[[], list[Tensor]]:
    """A call that gives the output and the gradients of all inputs.

    The gradient of the output is the same in every run and precision.
    """
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    with torch.no_grad():
        y = form(*leaves)
    grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y.dtype)

    def run() -> list[Tensor]:
        y = form(*leaves)
        return [y.detach(), *torch.autograd.grad(y, leaves, grad)]

    return run
