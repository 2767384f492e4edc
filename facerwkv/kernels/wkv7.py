"""RWKV-7's weighted key-value: per head a matrix, keys by values, that decays, unlearns along a direction, learns.

S_t = diag(w_t) S_{t-1} + b_t (a_t^T S_{t-1}) + k_t v_t^T,   y_t = r_t^T S_t

Source: Goose (arXiv 2503.14456), section 3, with S transposed so that it lies as in wkv6. Unlike wkv6, the output reads
the state that its own token has written.
"""

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from facerwkv.kernels.calls import Inputs, cast, choose, native, require
from facerwkv.kernels.chunks import (
    Recurrence,
    cut,
    empty_state,
    fastest,
    fla_operator,
    full_precision,
    halve,
    heads_refusal,
    join,
    products,
    steps,
    walk,
)

INPUTS = Inputs("wkv7", "r B T H N, w* B T H N, k B T H N, v B T H N, a B T H N, b B T H N, state? B H N N")


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

    r, k, v, a, b (B, T, H, N); w, the logarithm of the decay, at most 0, of that shape or one that broadcasts to it;
    state (B, H, N, N) from an earlier call, or None. RWKV-7 has a = -kk and b = rate * kk for unit vectors kk and rates
    in (0, 1); longer ones may let the state grow without bound. Returns y (B, T, H, N) in v's dtype and the state after
    the last token, in float32 or float64.
    implementation: "reference" (token by token), "chunked" (16 tokens at once), "native" (C; CPU, float32) or "fla"
    (fla-core's kernels; CUDA, log decays of -5 and above: RWKV-7's lie above -0.61). "auto" is native where it can run,
    fla for half-precision inputs on CUDA where it is installed, else chunked, and the reference for a few tokens.
    """
    exact = INPUTS.check(r, w, k, v, a, b, state)
    name = fastest("wkv7", k, exact) if implementation == "auto" else implementation
    form, narrow = choose(IMPLEMENTATIONS, name), k.dtype if name == "fla" else exact
    state = empty_state(k, exact) if state is None else state.to(exact)
    r, *others = cast(narrow, r, k, v, a, b)
    with full_precision(k):
        y, state = form(r, *cast(exact, w.expand_as(k)), *others, state)
    return y.to(v.dtype), state


def wkv7_both(r: Tensor, w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, implementation: str = "auto") -> Tensor:
    """Every token reads what it and those before it wrote, and what those after it wrote. Shapes as in `wkv7`."""
    before, _ = wkv7(r, w, k, v, a, b, implementation=implementation)
    r, w, k, v, a, b = (x.flip(1) for x in (r, w.expand_as(k), k, v, a, b))
    # From the end a token must read the state before its own writing, which is what the token just passed wrote.
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
    return torch.stack(outputs, 1) if outputs else v.clone(), state


def _segment(r: Tensor, w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """With s the rows a_t^T S_{t-1}: s = inverse (a S_0 + a_k v), where a_k, like a_b, r_b and r_k, contains decayed
    products of the chunk's a's and k's, and inverse is that of 1 - a_b; then y = r S_0 + r_b s + r_k v."""
    shape = r.shape
    r, w, k, v, a, b = (cut(x) for x in (r, w, k, v, a, b))  # (M, n, N)
    w, right = w.exp(), torch.stack([b, k], 2)
    own = (r[:, :, None] * right).sum(-1)
    pairs = _Pairs(torch.stack([torch.zeros_like(own), own], 2).flatten(0, 1))
    left, right, w = halve(torch.stack([a, r * w], 2), right, w, pairs.grow)
    a, r, b, k, w = left[:, :, 0], left[:, :, 1], right[:, :, 0].mT, right[:, :, 1].mT, w[:, :, None]
    grown = pairs.products.unflatten(2, (-1, 2)).unflatten(1, (-1, 2))  # (M, n, a or r, n, b or k)
    (_, r_b), (a_k, r_k) = grown.permute(4, 2, 0, 1, 3).contiguous()
    a, of_v, y = pairs.inverse @ a, pairs.inverse @ (a_k @ v), r_k @ v
    outputs, reads, held = [], [], state.flatten(0, 1)
    chunks = (steps(x, shape) for x in (a, of_v, w, b, k, v, y, r))
    for a_c, of_v_c, w_c, b_c, k_c, v_c, y_c, r_c in zip(*chunks, strict=True):
        outputs.append(torch.baddbmm(y_c, r_c, held))
        reads.append(torch.baddbmm(of_v_c, a_c, held))
        held = (w_c * held).baddbmm_(b_c, reads[-1]).baddbmm_(k_c, v_c)
    y = torch.cat(outputs).baddbmm_(r_b, torch.cat(reads))
    return join(y, shape), held.view_as(state)


class _Pairs:
    """The products of a and r with b and k in ever larger blocks, and the inverse of 1 - a_b that grows with them.

    The inverse of [[1 - A, 0], [-C, 1 - B]] is [[A', 0], [B' C A', B']], A' and B' those of its parts: stable.
    The product (1 + a_b)(1 + a_b^2)(1 + a_b^4)... is not: for keys that repeat, its factors grow to 1e4 in 16 tokens.
    """

    def __init__(self, own: Tensor):
        self.products = own  # (M n, 2, 2), rows a and r, columns b and k
        self.inverse = torch.ones_like(own[:, :1, :1])

    def grow(self, later: Tensor, earlier: Tensor) -> None:
        def join_blocks(first: Tensor, corner: Tensor, second: Tensor) -> Tensor:
            """Square blocks (M, h, h) → [[first, 0], [corner, second]]."""
            above = functional.pad(first, (0, first.shape[-1]))
            return torch.cat([above, torch.cat([corner, second], -1)], -2)

        corner = products(later, earlier)
        first, second = self.inverse.unflatten(0, (-1, 2)).unbind(1)
        self.inverse = join_blocks(first, second @ (corner[:, ::2, ::2] @ first), second)
        first, second = self.products.unflatten(0, (-1, 2)).unbind(1)
        self.products = join_blocks(first, corner, second)


def _operator(
    kind: str, r: Tensor, w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """The operator of fla-core or that in C, imported here; InputError where it cannot run."""
    if kind == "fla":
        fla = fla_operator("wkv7", k)
        return fla(r, w.contiguous(), k, v, a, b, scale=1.0, initial_state=state, output_final_state=True)
    require(heads_refusal(k), "chunked")
    return native("matrix_state", "wkv7", r, w, k, v, a, b, state)


IMPLEMENTATIONS: dict[str, Recurrence] = {
    "reference": _reference,
    "chunked": lambda *inputs: walk(_segment, [*inputs[:-1]], inputs[-1]),
    "native": partial(_operator, "native"),
    "fla": partial(_operator, "fla"),
}
