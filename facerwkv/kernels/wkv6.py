"""RWKV-6's weighted key-value: per head a matrix, keys by values, that decays per key channel as the data say.

y_t = r_t^T (S_{t-1} + diag(u) k_t v_t^T),   S_t = diag(w_t) S_{t-1} + k_t v_t^T

Source: Eagle and Finch (arXiv 2404.05892), section 4; with a w that does not change over time it is RWKV-5's.
"""

from functools import partial

import torch
from torch import Tensor

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

INPUTS = Inputs("wkv6", "r B T H N, k B T H N, v B T H N, w* B T H N, u* H N, state? B H N N")


def wkv6(
    r: Tensor, k: Tensor, v: Tensor, w: Tensor, u: Tensor, state: Tensor | None = None, implementation: str = "auto"
) -> tuple[Tensor, Tensor]:
    """Mix values over time; linear in T, constant state.

    r, k, v (B, T, H, N); w, the logarithm of the decay, at most 0, of that shape or one that broadcasts to it;
    u (H, N), the bonus of the present token; state (B, H, N, N) from an earlier call, or None. Returns y (B, T, H, N)
    in v's dtype and the state after the last token, in float32 or float64.
    implementation: "reference" (token by token), "chunked" (16 tokens at once), "native" (C; CPU, float32) or "fla"
    (fla-core's kernels; CUDA). "auto" is native where it can run, fla for half-precision inputs on CUDA where it is
    installed, else chunked, and the reference for a few tokens.
    """
    exact = INPUTS.check(r, k, v, w, u, state)
    name = fastest("wkv6", k, exact) if implementation == "auto" else implementation
    form, narrow = choose(IMPLEMENTATIONS, name), k.dtype if name == "fla" else exact
    state = empty_state(k, exact) if state is None else state.to(exact)
    inputs = *cast(narrow, r, k, v), *cast(exact, w.expand_as(k), u.expand(k.shape[2:]))
    with full_precision(k):
        y, state = form(*inputs, state)
    return y.to(v.dtype), state


def wkv6_both(r: Tensor, k: Tensor, v: Tensor, w: Tensor, u: Tensor, implementation: str = "auto") -> Tensor:
    """Every token sees those before it, itself by the bonus, and those after it, each once. Shapes as in `wkv6`.

    Source: Vision-RWKV's VRWKV6: a second scan from the last token to the first, without bonus, is added.
    """
    before, _ = wkv6(r, k, v, w, u, implementation=implementation)
    r, k, v, w = (x.flip(1) for x in (r, k, v, w.expand_as(k)))
    after, _ = wkv6(r, k, v, w, torch.zeros_like(u), implementation=implementation)
    return before + after.flip(1)


def _reference(r: Tensor, k: Tensor, v: Tensor, w: Tensor, u: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    outputs = []
    for r_t, k_t, v_t, w_t in zip(*(x.unbind(1) for x in (r, k, v, w.exp())), strict=True):  # (B, H, N)
        written = k_t[..., None] * v_t[..., None, :]
        outputs.append((r_t[..., None, :] @ (state + u[..., None] * written)).squeeze(-2))
        state = w_t[..., None] * state + written
    return torch.stack(outputs, 1) if outputs else v.clone(), state


def _segment(u: Tensor, r: Tensor, k: Tensor, v: Tensor, w: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    shape = r.shape
    bonus = (r * u * k).sum(-1, keepdim=True)
    r, k, v, w, bonus = (cut(x) for x in (r, k, v, w, bonus))  # (M, n, N); bonus (M, n, 1)
    y = bonus * v
    r, k, w = halve(r[:, :, None], k[:, :, None], w.exp(), partial(_read_earlier, y, v))
    r, k, w = r[:, :, 0], k[:, :, 0].mT, w[:, :, None]
    outputs, held = [], state.flatten(0, 1)
    for y_c, r_c, k_c, v_c, w_c in zip(*(steps(x, shape) for x in (y, r, k, v, w)), strict=True):
        outputs.append(torch.baddbmm(y_c, r_c, held))
        held = (w_c * held).baddbmm_(k_c, v_c)
    return join(torch.cat(outputs), shape), held.view_as(state)


def _read_earlier(y: Tensor, v: Tensor, later: Tensor, earlier: Tensor) -> None:
    """Adds to y, in each block's second half, what its first half contains."""
    weights = products(later, earlier)
    blocks, half, _ = weights.shape
    shape = (blocks, 2, half, v.shape[-1])
    y, v = y.view(shape)[:, 1], v.view(shape)[:, 0]
    if half > 2:
        y.baddbmm_(weights, v)
    else:
        for s in range(half):
            y.addcmul_(weights[:, :, s, None], v[:, s, None])


def _operator(kind: str, r: Tensor, k: Tensor, v: Tensor, w: Tensor, u: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """The operator of fla-core or that in C, imported here; InputError where it cannot run."""
    if kind == "fla":
        fla = fla_operator("wkv6", k)
        w = w.clamp(min=-100)  # e^-100 is 0 in float32, and fla multiplies logarithms by 0: of -inf that gave NaN
        return fla(r, k, v, w, u, scale=1.0, initial_state=state, output_final_state=True)
    require(heads_refusal(k), "chunked")
    return native("matrix_state", "wkv6", r, k, v, w, u, state)


IMPLEMENTATIONS: dict[str, Recurrence] = {
    "reference": _reference,
    "chunked": lambda r, k, v, w, u, state: walk(partial(_segment, u), [r, k, v, w], state),
    "native": partial(_operator, "native"),
    "fla": partial(_operator, "fla"),
}
