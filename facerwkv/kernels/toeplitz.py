"""RWKV-1's time weighting: a free-form causal Toeplitz table over positions, with an undecayed denominator.

y_t = sum_{u<=t} w[T-1-(t-u)] alpha_u beta_t e_u v_u / sum_{u<=t} e_u,   e = exp(clamp(k, -60, 30))

Source: RWKV-v1 (2021), src/model.py, RWKV_TimeMix. The table is free, so no finite state exists: time is quadratic
in T. The reference also needs memory quadratic in T; the blocked form builds the table in strips and keeps none.
"""

import torch
from torch import Tensor

from facerwkv.kernels import choose

BLOCK = 64
KEY_MIN, KEY_MAX = -60.0, 30.0


def toeplitz(w: Tensor, alpha: Tensor, beta: Tensor, k: Tensor, v: Tensor, implementation: str = "auto") -> Tensor:
    """Weigh values by position and key.

    w, alpha, beta (H, T); k, v (B, T, H, S). Returns y (B, T, H, S).
    implementation: "reference" (the whole table) or "blocked" (strips of 64 rows); "auto" is blocked.
    """
    product = choose(IMPLEMENTATIONS, implementation, auto="blocked")
    e = k.clamp(KEY_MIN, KEY_MAX).exp()
    weighted = e * v * alpha.T[..., None]
    return product(w, weighted) * beta.T[..., None] / e.cumsum(1)


def table(w: Tensor, start: int, stop: int) -> Tensor:
    """Rows start..stop of the causal Toeplitz matrix of w (H, T): entry (t, u) is w[T-1-(t-u)], 0 for u > t.

    Returns (H, stop - start, stop).
    """
    time = torch.arange(stop, device=w.device)
    lag = time[start:, None] - time
    newest = w.shape[1] - 1
    return w[:, (newest - lag).clamp(max=newest)] * (lag >= 0)


def _reference(w: Tensor, x: Tensor) -> Tensor:
    return torch.einsum("htu,buhs->bths", table(w, 0, x.shape[1]), x)


def _blocked(w: Tensor, x: Tensor) -> Tensor:
    batch, length, heads, size = x.shape
    columns = x.permute(2, 1, 0, 3).reshape(heads, length, batch * size)
    y = _CausalProduct.apply(w, columns)
    return y.view(heads, length, batch, size).permute(2, 1, 0, 3)


class _CausalProduct(torch.autograd.Function):
    """y_t = sum_{u<=t} w[T-1-(t-u)] x_u for w (H, T), x (H, T, N); the table is built again in the backward pass."""

    @staticmethod
    def forward(ctx, w: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(w, x)
        return _product(w, x)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        w, x = ctx.saved_tensors
        grad_w = _table_gradient(grad, x) if ctx.needs_input_grad[0] else None
        grad_x = _product(w, grad.flip(1)).flip(1) if ctx.needs_input_grad[1] else None
        return grad_w, grad_x


def _strips(length: int) -> list[tuple[int, int]]:
    return [(start, min(start + BLOCK, length)) for start in range(0, length, BLOCK)]


def _product(w: Tensor, x: Tensor) -> Tensor:
    length = x.shape[1]
    padded = torch.nn.functional.pad(w, (0, BLOCK))  # what lies above the diagonal reads zeros
    y = torch.empty_like(x)
    for start, stop in _strips(length):
        # Row r of the strip, counted from its end, is w shifted by r: a window of the padded table.
        rows = padded.unfold(1, stop, 1)[:, length - stop : length - start]  # (H, rows, stop)
        y[:, start:stop] = (rows @ x[:, :stop]).flip(1)
    return y


def _table_gradient(grad: Tensor, x: Tensor) -> Tensor:
    heads, length, _ = x.shape
    total = x.new_zeros(heads, length + BLOCK)
    for start, stop in _strips(length):
        rows = stop - start
        pairs = grad[:, start:stop].flip(1) @ x[:, :stop].mT  # (H, rows, stop)
        # Writing rows one element longer than they are read shifts row r right by r: diagonals become columns.
        skewed = torch.nn.functional.pad(pairs, (0, rows)).flatten(1)[:, :-rows].view(heads, rows, stop + rows - 1)
        total[:, length - stop : length + rows - 1] += skewed.sum(1)
    return total[:, :length]


IMPLEMENTATIONS = {"reference": _reference, "blocked": _blocked}
