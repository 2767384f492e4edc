"""RWKV-1's time weighting: a free-form causal Toeplitz table over positions, with an undecayed denominator.

y_t = sum_{u<=t} w[T-1-(t-u)] alpha_u beta_t e_u v_u / sum_{u<=t} e_u,   e = exp(clamp(k, -60, 30))

Source: RWKV-v1 (2021), src/model.py, RWKV_TimeMix. The table is free, so no finite state exists. The reference takes
time and memory quadratic in T; "blocked" takes memory linear in T; "fft" also takes time of order T log(T)^2.

A Fourier transform over all of T is of no use: its error follows the largest e anywhere, and what comes before a large
key drowns in it. "fft" transforms only from an earlier half to the later half beside it (Hairer, Lubich & Schlichte
1985), so that the error at t follows the largest e up to t, which the denominator contains too.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from facerwkv.kernels.calls import Inputs, cast, choose, gradients_again, native, pays, refusal, require, transformed

INPUTS = Inputs("toeplitz", "w H T, alpha H T, beta H T, k B T H S, v B T H S")
STRIP = 64  # rows of the table that one matrix product takes
LEAF, NATIVE_LEAF = 128, 1024  # tokens, at most, that are left to plain products
NATIVE_FEW, FEW_COLUMNS = 2400, 4  # up to this many tokens of this few columns C needs no transforms
FFT_FROM, FFT_RATIO = 128, 40  # measured: with fewer tokens than these for a column, "blocked" is faster
KEY_MIN, KEY_MAX = -60.0, 30.0


def toeplitz(w: Tensor, alpha: Tensor, beta: Tensor, k: Tensor, v: Tensor, implementation: str = "auto") -> Tensor:
    """Weigh values by position and key.

    w, alpha, beta (H, T); k, v (B, T, H, S). Returns y (B, T, H, S) in v's dtype.
    implementation: "reference" (the whole table), "blocked" (strips of it, in matrix products), "fft" (hierarchical) or
    "native" (hierarchical, all but the transforms in C; CPU, float32); "auto" is native where it can run and pays, else
    fft for long sequences of few columns, else blocked.
    """
    exact = INPUTS.check(w, alpha, beta, k, v)
    (batch, length, _, size), auto = k.shape, "native"
    if transformed():
        auto = "reference"
    elif refusal("toeplitz", k, dtype=exact) or not pays("toeplitz"):
        auto = "fft" if length >= FFT_FROM and length > FFT_RATIO * batch * size else "blocked"
    form = choose(IMPLEMENTATIONS, implementation, auto)
    return form(*cast(exact, w, alpha, beta, k, v)).to(v.dtype)


def table(w: Tensor, start: int, stop: int) -> Tensor:
    """Rows start..stop of the causal Toeplitz matrix of w (H, T): entry (t, u) is w[T-1-(t-u)], 0 for u > t.

    Returns (H, stop - start, stop).
    """
    time = torch.arange(stop, device=w.device)
    lag = time[start:, None] - time
    newest = w.shape[1] - 1
    return w[:, (newest - lag).clamp(max=newest)] * (lag >= 0)


def _reference(w: Tensor, alpha: Tensor, beta: Tensor, k: Tensor, v: Tensor) -> Tensor:
    e = k.clamp(KEY_MIN, KEY_MAX).exp()
    sums = torch.einsum("htu,buhs->bths", table(w, 0, k.shape[1]), e * v * alpha.T[..., None])
    return sums * beta.T[..., None] / e.cumsum(1)


class Steps(NamedTuple):
    """What a form does between transforms. Columns are (H, N, T) with N = B S; rows (H, R, L) are pieces of them."""

    leaf: int | None
    """The longest rows that are multiplied without transforms; None is all."""
    product: Callable[[Tensor, Tensor, bool], Tensor]
    """Weights by lag c (H, L), rows x, whether time runs backwards → y_t = sum_{u<=t} c[t-u] x_u, or u >= t, c[u-t]."""
    weights: Callable[[Tensor, Tensor], Tensor]
    """Rows x and the gradient of y → the gradient of c."""
    enter: Callable[[Tensor, Tensor, Tensor, int], tuple[Tensor, Tensor]]
    """k, v, alpha, a length → columns alpha e v, zeros up to that length, and the sums of e in any order."""
    leave: Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
    """Product's columns, sums of e, beta, something of k's shape → y of that shape, and the columns over the sums."""
    leave_back: Callable[[Tensor, Tensor, Tensor, Tensor, int], tuple[Tensor, Tensor]]
    """The gradient of y, sums of e, columns over them, beta, a length → gradients of the columns, and of beta."""
    enter_back: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
    """Gradients of x and of the columns `leave` took, its second result, k, v, alpha → gradients of k, v, alpha."""


class _Weighting(torch.autograd.Function):
    """The whole formula; a table over T x T exists in neither direction."""

    @staticmethod
    def forward(ctx: Any, steps: Steps, w: Tensor, alpha: Tensor, beta: Tensor, k: Tensor, v: Tensor) -> Tensor:
        leaf, doublings = _leaf(k.shape[1], steps.leaf)
        x, total = steps.enter(k, v, alpha, leaf << doublings)
        tiny = w.abs() < torch.finfo(w.dtype).tiny  # such numbers slow each product they take part in a hundred times
        c = pad(w.masked_fill(tiny, 0).flip(1), (0, (leaf << doublings) - k.shape[1]))
        y, mean = steps.leave(_product(steps, c, x, leaf), total, beta, k)
        ctx.steps, ctx.leaf = steps, leaf
        ctx.save_for_backward(w, alpha, beta, k, v, c, x, total, mean)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, c, x, total, mean = ctx.saved_tensors
        if torch.is_grad_enabled():
            return None, *gradients_again(_reference, inputs, [grad])
        _, alpha, beta, k, v = inputs
        grad_sums, grad_beta = ctx.steps.leave_back(grad, total, mean, beta, x.shape[-1])
        grad_c, grad_x = _gradients(ctx.steps, c, x, grad_sums, ctx.leaf)
        grad_k, grad_v, grad_alpha = ctx.steps.enter_back(grad_x, grad_sums, mean, k, v, alpha)
        return None, grad_c[:, : k.shape[1]].flip(1), grad_alpha, grad_beta, grad_k, grad_v


def _product(steps: Steps, c: Tensor, x: Tensor, leaf: int) -> Tensor:
    """y_t = sum_{u<=t} c[t-u] x_u for c (H, T) and columns x; T is the leaf's length, doubled some times."""
    y, half = steps.product(c[:, :leaf], _spans(x, leaf).flatten(1, 2), False).view_as(x), leaf
    while half < x.shape[-1]:  # transforms join ever longer halves
        of_c = torch.fft.rfft(c[:, None, : 2 * half])
        sums = torch.fft.irfft(_spectra(_spans(x, 2 * half)[..., :half]).mul_(of_c), n=2 * half)
        later = _spans(y, 2 * half)[..., half:]
        later += sums[..., half:].reshape(later.shape)
        half *= 2
    return y


def _gradients(steps: Steps, c: Tensor, x: Tensor, grad: Tensor, leaf: int) -> tuple[Tensor, Tensor]:
    """The gradients of c and x for that of y."""
    rows = _spans(grad, leaf).flatten(1, 2)
    grad_x = steps.product(c[:, :leaf], rows, True).view_as(x)
    grad_c = pad(steps.weights(_spans(x, leaf).flatten(1, 2), rows), (0, x.shape[-1] - leaf))
    half = leaf
    while half < x.shape[-1]:
        later, earlier = _spectra(_spans(grad, 2 * half)[..., half:]), _spectra(_spans(x, 2 * half)[..., :half])
        of_c = earlier.conj_physical_().mul_(later).sum(1)
        of_x = later.mul_(torch.fft.rfft(c[:, None, : 2 * half]).conj_physical_())
        # The later halves were transformed as if they began at 0, so the results are `half` too far left.
        grad_c[:, : 2 * half] += torch.fft.irfft(of_c, n=2 * half).roll(half, -1)
        earlier_x = _spans(grad_x, 2 * half)[..., :half]
        earlier_x += torch.fft.irfft(of_x, n=2 * half)[..., half:].reshape(earlier_x.shape)
        half *= 2
    return grad_c, grad_x


def _leaf(length: int, longest: int | None) -> tuple[int, int]:
    """The length of a leaf, one whose doubles transform quickly, and how often it is doubled to reach `length`."""
    doublings, length = 0, max(length, 1)
    while longest and length > longest << doublings:
        doublings += 1
    leaf = -(-length >> doublings)
    while doublings and 30 ** leaf.bit_length() % leaf:  # until it has no prime factors but 2, 3 and 5
        leaf += 1
    return leaf, doublings


def _spans(x: Tensor, length: int) -> Tensor:
    """(H, N, T) → (H, N, T / length, length), a view."""
    return x.unflatten(-1, (x.shape[-1] // length, length))


def _spectra(x: Tensor) -> Tensor:
    """The spectra, of twice as many points, of rows (H, N, n, half): (H, N n, half + 1)."""
    points = x.new_empty(*x.shape[:-1], 2 * x.shape[-1])
    points[..., : x.shape[-1]] = x
    points[..., x.shape[-1] :] = 0
    return torch.fft.rfft(points.flatten(1, 2))


def _strip_product(c: Tensor, x: Tensor, backwards: bool) -> Tensor:
    if backwards:
        return _strip_product(c, x.flip(-1), False).flip(-1)
    length = x.shape[-1]
    # All strips of the table are its newest one, moved: each reads a stretch of it in place.
    newest = pad(c.flip(1), (0, STRIP)).unfold(1, length, 1)[:, : min(STRIP, length)].flip(1).mT.contiguous()
    y = torch.empty_like(x)
    for stop in range(length, 0, -STRIP):  # the first strip may be shorter
        start = max(stop - STRIP, 0)
        y[..., start:stop] = x[..., :stop] @ newest[:, length - stop :, start - stop :]
    return y


def _strip_weights(x: Tensor, grad: Tensor) -> Tensor:
    heads, _, length = x.shape
    rows = min(STRIP, length)
    pairs = x.new_zeros(heads, rows, length)  # as in the newest strip
    for stop in range(length, 0, -STRIP):
        start = max(stop - STRIP, 0)
        pairs[:, start - stop :, length - stop :].baddbmm_(grad[..., start:stop].mT, x[..., :stop])
    # Writing rows one element longer than they are read shifts row r right by r: diagonals become columns.
    skewed = pad(pairs.flip(1), (0, rows)).flatten(1)[:, :-rows].view(heads, rows, length + rows - 1)
    return skewed.sum(1)[:, :length].flip(1)


def _columns(x: Tensor) -> Tensor:
    """(B, T, H, S) → (H, B S, T), contiguous."""
    batch, length, heads, size = x.shape
    return x.permute(2, 0, 3, 1).reshape(heads, batch * size, length).contiguous()


def _tokens(x: Tensor, like: Tensor) -> Tensor:
    """(H, B S, T) → (B, T, H, S), the shape of `like`."""
    return x.unflatten(1, (like.shape[0], like.shape[3])).permute(1, 3, 0, 2)


def _enter(k: Tensor, v: Tensor, alpha: Tensor, length: int) -> tuple[Tensor, Tensor]:
    e = _columns(k).clamp(KEY_MIN, KEY_MAX).exp_()
    x = (e * _columns(v)).mul_(alpha[:, None])
    return pad(x, (0, length - k.shape[1])), e.cumsum(-1)


def _leave(sums: Tensor, total: Tensor, beta: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    mean = sums[..., : total.shape[-1]] / total
    return _tokens(mean * beta[:, None], like), mean


def _leave_back(grad: Tensor, total: Tensor, mean: Tensor, beta: Tensor, length: int) -> tuple[Tensor, Tensor]:
    grad = _columns(grad)
    return pad((grad * beta[:, None]).div_(total), (0, length - total.shape[-1])), (grad * mean).sum(1)


def _enter_back(
    grad_x: Tensor, grad_sums: Tensor, mean: Tensor, k: Tensor, v: Tensor, alpha: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    keys, values, length = _columns(k), _columns(v), k.shape[1]
    e = keys.clamp(KEY_MIN, KEY_MAX).exp_()
    grad_total = (grad_sums[..., :length] * mean).flip(-1).cumsum(-1).flip(-1)
    grad_values = grad_x[..., :length] * e
    grad_alpha = (grad_values * values).sum(1)
    grad_values.mul_(alpha[:, None])
    grad_keys = torch.addcmul(grad_total.mul_(e).neg_(), grad_values, values)
    grad_keys.masked_fill_((keys < KEY_MIN) | (keys > KEY_MAX), 0)
    return _tokens(grad_keys, k), _tokens(grad_values, k), grad_alpha


def _native(w: Tensor, alpha: Tensor, beta: Tensor, k: Tensor, v: Tensor) -> Tensor:
    if k.shape[1] <= (NATIVE_FEW if k.shape[0] * k.shape[3] <= FEW_COLUMNS else NATIVE_LEAF):
        return native("toeplitz", "toeplitz", w.flip(1), alpha, beta, k, v, instead="fft")[0]
    require(refusal("toeplitz", w, alpha, beta, k, v), "fft")
    from facerwkv.kernels.native import toeplitz as c

    steps = Steps(NATIVE_LEAF, c.product, c.weights, c.enter, c.leave, c.leave_back, c.enter_back)
    return _Weighting.apply(steps, w, alpha, beta, k, v)


STRIPS = Steps(None, _strip_product, _strip_weights, _enter, _leave, _leave_back, _enter_back)


IMPLEMENTATIONS: dict[str, Callable[..., Tensor]] = {
    "reference": _reference,
    "blocked": partial(_Weighting.apply, STRIPS),
    "fft": partial(_Weighting.apply, STRIPS._replace(leaf=LEAF)),
    "native": _native,
}
