"""The bidirectional weighted key-value: per channel a mean of all values, weighted by keys and by distance.

y_t = (sum_{i!=t} e^{k_i-(|t-i|-1)w} v_i + e^{u+k_t} v_t) / (sum_{i!=t} e^{k_i-(|t-i|-1)w} + e^{u+k_t})

Source: Vision-RWKV (arXiv 2403.02308), equation 4, without the 1e-6 that its kernel adds to the denominator. A side's
state is (a, b, p): numerator and denominator, both divided by e^p.
"""

from collections.abc import Callable
from functools import partial
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.checkpoint import checkpoint

from facerwkv.kernels.calls import Inputs, choose, fastest, narrowed, native
from facerwkv.kernels.triton import check
from facerwkv.kernels.wkv4 import empty_state

INPUTS = Inputs("biwkv", "w C, u C, k B T C, v B T C")
CHUNK = 16
SUMS = 20.0  # the largest exponent of running sums: float32 ends at 88


def biwkv(w: Tensor, u: Tensor, k: Tensor, v: Tensor, implementation: str = "auto") -> Tensor:
    """Mix values over all tokens; linear in T.

    w (C,) the decay per token, of any sign: below 0 far tokens weigh more; u (C,) the bonus of the token itself; k, v
    (B, T, C). Returns y (B, T, C) in v's dtype; sums are taken in float32 or float64.
    implementation: "reference" (the formula, quadratic), "chunked" (16 tokens at once), "native" (C; CPU, float32) or
    "triton" (CUDA); "auto" is triton on CUDA and native on the CPU where they can run, else chunked.
    """
    exact = INPUTS.check(w, u, k, v)
    name = fastest("biwkv", k, exact) if implementation == "auto" else implementation
    return choose(IMPLEMENTATIONS, name)(*narrowed(name, exact, w, u, k, v)).to(v.dtype)


def fits_sums(w: Tensor, u: Tensor, tokens: int) -> bool:
    """Whether no decay over so many tokens, and no bonus, weighs more than e^20 or less than e^-20."""
    return max(tokens * w.abs().max().item(), u.abs().max().item()) <= SUMS


def biwkv_sums(w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """`biwkv` as running sums, with e^k scaled to where a sum begins: few operations, for graphs.

    Only where `fits_sums`: all that counts is then in float32's range. Shapes as there; y (B, T, C) in k's dtype.
    """
    weights = (k - k.amax(1, keepdim=True)).exp()
    own = torch.cat([weights * v, weights], -1)  # numerators and denominators
    w, u = w.repeat(2), u.repeat(2)
    time = torch.arange(k.shape[1], device=k.device)[:, None]
    before = _sum_before(own * (time * w).exp()) * ((1 - time) * w).exp()
    after = _sum_before(own * (-time * w).exp(), reverse=True) * ((1 + time) * w).exp()
    above, below = (before + after + own * u.exp()).chunk(2, -1)
    return above / below


def _sum_before(x: Tensor, reverse: bool = False) -> Tensor:
    """For each token the sum of those before it, or after it: x (B, T, C). In a graph one operation, which PyTorch has
    not."""
    if torch.compiler.is_exporting():
        axis = torch.tensor(1)
        return torch.onnx.ops.symbolic(
            "CumSum", (x, axis), {"exclusive": 1, "reverse": int(reverse)}, dtype=x.dtype, shape=x.shape
        )
    x = x.flip(1) if reverse else x
    sums = pad(x[:, :-1], (0, 0, 1, 0)).cumsum(1)
    return sums.flip(1) if reverse else sums


def _reference(w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> Tensor:
    time = torch.arange(k.shape[1], device=k.device)
    distance = (time[:, None] - time).abs()[..., None]  # (T, T, 1)
    weights = torch.softmax(k[:, None] + torch.where(distance > 0, (1 - distance) * w, u), 2)  # (B, T, T, C)
    return (weights * v[:, None]).sum(2)


def _chunked(w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> Tensor:
    if not k.shape[1]:
        return v.clone()
    run = partial(checkpoint, use_reentrant=False) if torch.is_grad_enabled() else lambda step, *inputs: step(*inputs)
    chunks = list(zip(k.split(CHUNK, 1), v.split(CHUNK, 1), strict=True))
    mirrored = [(k_chunk.flip(1), v_chunk.flip(1)) for k_chunk, v_chunk in reversed(chunks)]
    before, after = (  # the states (B, 3, C) before and after each chunk
        list(accumulate(seen[:-1], lambda state, chunk: run(_take_in, w, *chunk, state), initial=empty_state(k)))
        for seen in (chunks, mirrored)
    )
    joined = zip(chunks, before, reversed(after), strict=True)
    return torch.cat([run(_chunk, w, u, *chunk, *states) for chunk, *states in joined], 1)


def _take_in(w: Tensor, k: Tensor, v: Tensor, state: Tensor) -> Tensor:
    (a, b, p), (k, base) = state[:, :, None].unbind(1), _from_largest(k, state)
    length = k.shape[1]
    inside, before = k + (torch.arange(length, device=k.device)[:, None] + 1 - length) * w, p - base - length * w
    # Any shift cancels between numerator and denominator: the largest exponent, rounded, is taken as a constant.
    scale = base + torch.maximum(inside.amax(1, keepdim=True), before).detach()
    top = scale - base
    weights, past = (inside - top).exp(), (before - top).exp()
    a, b = (weights * v).sum(1, keepdim=True) + past * a, weights.sum(1, keepdim=True) + past * b
    return torch.cat([a, b, scale], 1)


def _chunk(w: Tensor, u: Tensor, k: Tensor, v: Tensor, before: Tensor, after: Tensor) -> Tensor:
    (a, b, p), (c, d, q) = before[:, :, None].unbind(1), after[:, :, None].unbind(1)  # (B, 1, C) each
    k, base = _from_largest(k, before, after)
    time = torch.arange(k.shape[1], device=k.device)
    distance = (time[:, None] - time).abs()[..., None]  # (n, n, 1)
    inside = k[:, None] + torch.where(distance > 0, (1 - distance) * w, u)  # (B, n, n, C)
    p, q = p - base - time[:, None] * w, q - base - time.flip(0)[:, None] * w  # (B, n, C)
    top = torch.maximum(inside.amax(2), torch.maximum(p, q)).detach()
    weights, p, q = (inside - top[:, :, None]).exp(), (p - top).exp(), (q - top).exp()
    return ((weights * v[:, None]).sum(2) + p * a + q * c) / (weights.sum(2) + p * b + q * d)


def _from_largest(k: Tensor, *states: Tensor) -> tuple[Tensor, Tensor]:
    """The keys as seen from the largest exponent (B, 1, C), and that: differences of what counts are then exact."""
    largest = torch.stack([k.amax(1), *(state[:, 2] for state in states)]).amax(0)[:, None].detach()
    return k - largest, largest


def _triton(w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The operator in Triton, imported here; InputError where it cannot run."""
    check("biwkv", k, v)
    from facerwkv.kernels.triton import biwkv as triton

    return triton.biwkv(w, u, k, v)


IMPLEMENTATIONS: dict[str, Callable[..., Tensor]] = {
    "reference": _reference,
    "chunked": _chunked,
    "native": partial(native, "wkv", "biwkv", shapes=True),
    "triton": _triton,
}
