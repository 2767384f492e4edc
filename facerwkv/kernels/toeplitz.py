"""RWKV-1's time weighting: a free-form causal Toeplitz table over positions, with an undecayed denominator.

y_t = sum_{u<=t} w[T-1-(t-u)] alpha_u beta_t e_u v_u / sum_{u<=t} e_u,   e = exp(clamp(k, -60, 30))

Source: RWKV-v1 (2021), src/model.py, RWKV_TimeMix. The table is free, so no finite state exists. The reference takes
time and memory quadratic in T; "blocked" takes memory linear in T; "fft" also takes time of order T log(T)^2.

A Fourier transform over all of T is of no use: its error follows the largest e anywhere, and what comes before a large
key drowns in it. "fft" transforms only from an earlier half to the later half beside it (Hairer, Lubich & Schlichte
1985), so that the error at t follows the largest e up to t, which the denominator holds too.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from facerwkv.errors import InputError
from facerwkv.kernels import choose
from facerwkv.kernels.native import library, problem

STRIP = 64  # rows of the table that one matrix product takes
LEAF, NATIVE_LEAF = 128, 1024  # tokens, at most, that are left to plain products
FFT_FROM, FFT_RATIO = 128, 40  # measured: with fewer tokens than these for a column, "blocked" is faster
KEY_MIN, KEY_MAX = -60.0, 30.0


def toeplitz(w: Tensor, alpha: Tensor, beta: Tensor, k: Tensor, v: Tensor, implementation: str = "auto") -> Tensor:
    """Weigh values by position and key.

    w, alpha, beta (H, T); k, v (B, T, H, S). Returns y (B, T, H, S) in v's dtype.
    implementation: "reference" (the whole table), "blocked" (strips of it, in matrix products), "fft" (hierarchical) or
    "native" (hierarchical, with C in place of matrix products; CPU, float32); "auto" is native where it can run, else
    fft for long sequences of few columns, else blocked.
    """
    exact = torch.promote_types(k.dtype, torch.float32)
    native = library() is not None and k.device.type == "cpu" and exact == torch.float32
    auto = "native" if native else "fft" if _fits_fft(k) else "blocked"
    form = choose(IMPLEMENTATIONS, implementation, auto)
    return form(*(tensor.to(exact) for tensor in (w, alpha, beta, k, v))).to(v.dtype)


def table(w: Tensor, start: int, stop: int) -> Tensor:
    """Rows start..stop of the causal Toeplitz matrix of w (H, T): entry (t, u) is w[T-1-(t-u)], 0 for u > t.

    Returns (H, stop - start, stop).
    """
    time = torch.arange(stop, device=w.device)
    lag = time[start:, None] - time
    newest = w.shape[1] - 1
    return w[:, (newest - lag).clamp(max=newest)] * (lag >= 0)


def _fits_fft(k: Tensor) -> bool:
    batch, length, _, size = k.shape
    return length >= FFT_FROM and length > FFT_RATIO * batch * size


def _reference(w: Tensor, alpha: Tensor, beta: Tensor, k: Tensor, v: Tensor) -> Tensor:
    e = k.clamp(KEY_MIN, KEY_MAX).exp()
    sums = torch.einsum("htu,buhs->bths", table(w, 0, k.shape[1]), e * v * alpha.T[..., None])
    return sums * beta.T[..., None] / e.cumsum(1)


class Near(NamedTuple):
    """A causal product y_t = sum_{u<=t} c[t-u] x_u without transforms: weights by lag c (H, L), rows x (H, R, L)."""

    leaf: int | None
    """The longest rows that it is given; None is all."""
    product: Callable[[Tensor, Tensor, bool], Tensor]
    """c, x, and whether time runs backwards (y_t = sum_{u>=t} c[u-t] x_u) → y."""
    weights: Callable[[Tensor, Tensor], Tensor]
    """x and the gradient of y → the gradient of c."""


class _Weighting(torch.autograd.Function):
    """The whole formula; a table over T x T exists in neither direction."""

    @staticmethod
    def forward(ctx: Any, near: Near, w: Tensor, alpha: Tensor, beta: Tensor, k: Tensor, v: Tensor) -> Tensor:
        keys, values = _columns(k), _columns(v)
        e = keys.clamp(KEY_MIN, KEY_MAX).exp_()
        x = (e * values).mul_(alpha[:, None])
        total = e.cumsum(-1)
        mean = _product(near, w.flip(1), x).div_(total)
        ctx.near, ctx.shape = near, k.shape
        ctx.save_for_backward(w, alpha, beta, keys, values, e, x, total, mean)
        return _tokens(mean * beta[:, None], k.shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        w, alpha, beta, keys, values, e, x, total, mean = ctx.saved_tensors
        grad = _columns(grad)
        grad_beta = (grad * mean).sum(1)
        grad = (grad * beta[:, None]).div_(total)  # of the product's sums
        grad_c, grad_x = _gradients(ctx.near, w.flip(1), x, grad)
        grad_total = grad.mul_(mean).flip(-1).cumsum(-1).flip(-1)
        grad_values = grad_x * e
        grad_alpha = (grad_values * values).sum(1)
        grad_values.mul_(alpha[:, None])
        grad_k = torch.addcmul(grad_total.mul_(e).neg_(), grad_values, values)
        grad_k.masked_fill_((keys < KEY_MIN) | (keys > KEY_MAX), 0)
        return None, grad_c.flip(1), grad_alpha, grad_beta, _tokens(grad_k, ctx.shape), _tokens(grad_values, ctx.shape)


def _columns(x: Tensor) -> Tensor:
    """(B, T, H, S) → (H, B S, T), contiguous."""
    batch, length, heads, size = x.shape
    return x.permute(2, 0, 3, 1).reshape(heads, batch * size, length).contiguous()


def _tokens(x: Tensor, shape: torch.Size) -> Tensor:
    """(H, B S, T) → (B, T, H, S), which is `shape`."""
    batch, length, heads, size = shape
    return x.view(heads, batch, size, length).permute(1, 3, 0, 2)


def _product(near: Near, c: Tensor, x: Tensor) -> Tensor:
    """y_t = sum_{u<=t} c[t-u] x_u for c (H, T), x (H, N, T)."""
    length = x.shape[-1]
    leaf, doublings = _leaf(length, near.leaf)
    c, x = _padded(leaf << doublings, c, x)
    y = near.product(c[:, :leaf], _spans(x, leaf).flatten(1, 2), False).view_as(x)
    for half in (leaf << level for level in range(doublings)):
        spectra = _spectra(half, c, _spans(x, 2 * half)[..., :half])
        sums = torch.fft.irfft(spectra[:, 1:].mul_(spectra[:, :1]), n=2 * half)
        later = _spans(y, 2 * half)[..., half:]
        later += sums[..., half:].reshape(later.shape)
    return y[..., :length]


def _gradients(near: Near, c: Tensor, x: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of c and x for that of y."""
    length = x.shape[-1]
    leaf, doublings = _leaf(length, near.leaf)
    c, x, grad = _padded(leaf << doublings, c, x, grad)
    rows = _spans(grad, leaf).flatten(1, 2)
    grad_x = near.product(c[:, :leaf], rows, True).view_as(x)
    grad_c = pad(near.weights(_spans(x, leaf).flatten(1, 2), rows), (0, x.shape[-1] - leaf))
    for half in (leaf << level for level in range(doublings)):
        spectra = _spectra(half, c, _spans(grad, 2 * half)[..., half:], _spans(x, 2 * half)[..., :half])
        later, earlier = spectra[:, 1:].chunk(2, 1)
        of_x = later * spectra[:, :1].conj_physical_()
        of_c = later.mul_(earlier.conj_physical_()).sum(1, keepdim=True)
        # The later halves were transformed as if they began at 0, so the results stand `half` too far left.
        sums = torch.fft.irfft(torch.cat([of_c, of_x], 1), n=2 * half).roll(half, -1)
        grad_c[:, : 2 * half] += sums[:, 0]
        earlier_x = _spans(grad_x, 2 * half)[..., :half]
        earlier_x += sums[:, 1:, :half].reshape(earlier_x.shape)
    return grad_c[:, :length], grad_x[..., :length]


def _leaf(length: int, longest: int | None) -> tuple[int, int]:
    """The length of a leaf, one whose doubles transform quickly, and how often it is doubled to hold `length`."""
    doublings = 0
    while longest and length > longest << doublings:
        doublings += 1
    leaf = -(-length >> doublings)
    while doublings and not _smooth(leaf):
        leaf += 1
    return leaf, doublings


def _smooth(number: int) -> bool:
    """Whether a number has no prime factor above 5."""
    for prime in (2, 3, 5):
        while number % prime == 0:
            number //= prime
    return number == 1


def _padded(length: int, *tensors: Tensor) -> list[Tensor]:
    return [pad(tensor, (0, length - tensor.shape[-1])) if tensor.shape[-1] < length else tensor for tensor in tensors]


def _spans(x: Tensor, length: int) -> Tensor:
    """(H, N, T) → (H, N, T / length, length), a view."""
    return x.unflatten(-1, (x.shape[-1] // length, length))


def _spectra(half: int, c: Tensor, *signals: Tensor) -> Tensor:
    """The spectra, of 2 half points, of c's first values and of each signal (H, N, n, half): (H, 1 + ..., half + 1)."""
    counts = [signal.shape[1] * signal.shape[2] for signal in signals]
    points = c.new_zeros(len(c), 1 + sum(counts), 2 * half)
    points[:, 0] = c[:, : 2 * half]
    for part, signal in zip(points[:, 1:, :half].split(counts, 1), signals, strict=True):
        part.unflatten(1, signal.shape[1:3]).copy_(signal)
    return torch.fft.rfft(points)


def _strips(length: int) -> list[tuple[int, int]]:
    """Spans of STRIP tokens, counted from the end; the first may be shorter."""
    return [(max(stop - STRIP, 0), stop) for stop in range(length, 0, -STRIP)]


def _strip_product(c: Tensor, x: Tensor, backwards: bool) -> Tensor:
    if backwards:
        return _strip_product(c, x.flip(-1), False).flip(-1)
    length = x.shape[-1]
    # All strips of the table are its newest one, moved: each reads a part of it in place.
    newest = pad(c.flip(1), (0, STRIP)).unfold(1, length, 1)[:, : min(STRIP, length)].flip(1).mT.contiguous()
    y = torch.empty_like(x)
    for start, stop in _strips(length):
        y[..., start:stop] = x[..., :stop] @ newest[:, length - stop :, start - stop :]
    return y


def _strip_weights(x: Tensor, grad: Tensor) -> Tensor:
    heads, _, length = x.shape
    rows = min(STRIP, length)
    pairs = x.new_zeros(heads, rows, length)  # as in the newest strip
    for start, stop in _strips(length):
        pairs[:, start - stop :, length - stop :].baddbmm_(grad[..., start:stop].mT, x[..., :stop])
    # Writing rows one element longer than they are read shifts row r right by r: diagonals become columns.
    skewed = pad(pairs.flip(1), (0, rows)).flatten(1)[:, :-rows].view(heads, rows, length + rows - 1)
    return skewed.sum(1)[:, :length].flip(1)


STRIPS = Near(None, _strip_product, _strip_weights)


def _native(*inputs: Tensor) -> Tensor:
    if library() is None:
        raise InputError(f"{problem()} Or use implementation='fft'.")
    if inputs[3].device.type != "cpu" or inputs[3].dtype != torch.float32:
        where = f"{inputs[3].device} in {inputs[3].dtype}"
        raise InputError(f"The native toeplitz runs on the CPU in float32, not on {where}; use 'fft'.")
    from facerwkv.kernels.native.toeplitz import product, weights

    return _Weighting.apply(Near(NATIVE_LEAF, product, weights), *inputs)


def _blocked(*inputs: Tensor) -> Tensor:
    return _Weighting.apply(STRIPS, *inputs)


def _fft(*inputs: Tensor) -> Tensor:
    return _Weighting.apply(STRIPS._replace(leaf=LEAF), *inputs)


IMPLEMENTATIONS: dict[str, Callable[..., Tensor]] = {
    "reference": _reference,
    "blocked": _blocked,
    "fft": _fft,
    "native": _native,
}
