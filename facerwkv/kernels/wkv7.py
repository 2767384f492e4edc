"""RWKV-7's weighted key-value: per head a matrix of values by keys that forgets, unlearns along a direction, and writes.

S_t = diag(w_t) S_{t-1} + b_t (a_t^T S_{t-1}) + k_t v_t^T,   y_t = r_t^T S_t

Source: Goose (arXiv 2503.14456), equations 17-19, with S transposed (keys by values, as in wkv6). The output reads the
state that token t has written.
"""

import torch
from torch import Tensor

from facerwkv.kernels import choose
from facerwkv.kernels.chunks import cut, fla_operator, full_precision, halve, join, lower, products, walk
from facerwkv.kernels.wkv6 import FEW, empty_state


def wkv7(
    r: Tensor,
    w: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    b: Tensor,
    state: Tensor | None = None,
    implementation: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Mix values over time; linear in T, constant state.

    r, k, v, a, b (B, T, H, N); w, the logarithm of the decay, at most 0, of that shape or one that broadcasts to it; state
    (B, H, N, N), keys by values, from an earlier call, or None. RWKV-7 gives a = -kk and b = kk * rate with a unit vector
    kk and a rate in (0, 1); longer ones can make the state grow without bound. Returns y (B, T, H, N) in v's dtype and the
    state after the last token, in float32 or float64.
    implementation: "reference" (token by token), "chunked" (32 tokens at once) or "fla" (fla-core's kernels; CUDA, no
    float64); "auto" is chunked, and the reference for a few tokens.
    """
    exact = torch.promote_types(k.dtype, torch.float32)
    form = choose(IMPLEMENTATIONS, implementation, auto="reference" if k.shape[1] <= FEW else "chunked")
    with full_precision(k):
        state = empty_state(k) if state is None else state
        y, state = form(*(x.to(exact) for x in (r, w.expand_as(k), k, v, a, b)), state)
    return y.to(v.dtype), state


def wkv7_both(
    r: Tensor, w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, implementation: str = "auto"
) -> Tensor:
    """Each token reads a state written by the tokens up to itself, and one written by those after it. Shapes as in `wkv7`."""
    before, _ = wkv7(r, w, k, v, a, b, implementation=implementation)
    r, w, k, v, a, b = (x.flip(1) for x in (r, w.expand_as(k), k, v, a, b))
    # From the end, the state that token t must read is the one before its own writing: the next token's r reads it.
    after, _ = wkv7(r.roll(-1, 1), w, k, v, a, b, implementation=implementation)
    after = torch.cat([torch.zeros_like(after[:, :1]), after[:, :-1]], 1)
    return before + after.flip(1)


def _reference(
    r: Tensor, w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    outputs = []
    for r_t, w_t, k_t, v_t, a_t, b_t in zip(*(x.unbind(1) for x in (r, w.exp(), k, v, a, b)), strict=True):  # (B, H, N)
        read = a_t[..., None, :] @ state  # (B, H, 1, N)
        state = w_t[..., None] * state + b_t[..., None] * read + k_t[..., None] * v_t[..., None, :]
        outputs.append((r_t[..., None, :] @ state).squeeze(-2))
    return torch.stack(outputs, 1) if outputs else torch.empty_like(v), state


def _chunked(
    r: Tensor, w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    return walk(_segment, [r, w, k, v, a, b], state)


def _segment(
    r: Tensor, w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    batch, _, heads, _ = r.shape
    r, w, k, v, a, b = (cut(x) for x in (r, w, k, v, a, b))  # (M, n, N)
    w, right = w.exp(), torch.stack([b, k], 2)
    own = (r[:, :, None] * right).sum(-1)
    pairs = torch.stack([torch.zeros_like(own), own], 2).flatten(0, 1)  # (M n, 2, 2): a, r by b, k
    inverse = torch.ones_like(pairs[:, :1, :1])  # of 1 - a b^T

    def grow(later: Tensor, earlier: Tensor) -> None:
        nonlocal pairs, inverse
        corner = products(later, earlier)
        first, second = inverse.unflatten(0, (-1, 2)).unbind(1)
        inverse = lower(first, second @ (corner[:, ::2, ::2] @ first), second)
        first, second = pairs.unflatten(0, (-1, 2)).unbind(1)
        pairs = lower(first, corner, second)

    left, right, w = halve(torch.stack([a, r * w], 2), right, w, grow)
    a, r, b, k = left[:, :, 0], left[:, :, 1], right[:, :, 0].mT, right[:, :, 1].mT
    pairs = pairs.unflatten(2, (-1, 2)).unflatten(1, (-1, 2)).permute(4, 2, 0, 1, 3)  # (b or k, a or r, M, n, n)
    (_, r_b), (a_k, r_k) = pairs.contiguous()
    inverse = inverse.view_as(r_b)
    a, read, y = inverse @ a, inverse @ (a_k @ v), r_k @ v
    reads, outputs, held, rows = [], [], state.flatten(0, 1), batch * heads
    chunks = (x.split(rows) for x in (a, read, w[..., None], b, k, v, y, r))
    for a_c, read_c, w_c, b_c, k_c, v_c, y_c, r_c in zip(*chunks, strict=True):
        outputs.append(torch.baddbmm(y_c, r_c, held))
        reads.append(torch.baddbmm(read_c, a_c, held))
        held = (w_c * held).baddbmm_(b_c, reads[-1]).baddbmm_(k_c, v_c)
    y = torch.cat(outputs).baddbmm_(r_b, torch.cat(reads))
    return join(y, batch, heads), held.view_as(state)


def _fla(r: Tensor, w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    operator = fla_operator("rwkv7", "chunk_rwkv7", k)
    return operator(r, w.contiguous(), k, v, a, b, scale=1.0, initial_state=state, output_final_state=True)


IMPLEMENTATIONS = {"reference": _reference, "chunked": _chunked, "fla": _fla}
