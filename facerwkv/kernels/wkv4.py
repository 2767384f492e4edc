"""RWKV-4's weighted key-value: per channel a decaying, key-weighted mean of the values seen so far.

y_t = (sum_{i<t} e^{k_i-(t-1-i)w} v_i + e^{u+k_t} v_t) / (sum_{i<t} e^{k_i-(t-1-i)w} + e^{u+k_t})

Source: RWKV (arXiv 2305.13048), equation 14. The state is (a, b, p): numerator and denominator, both divided by e^p.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from facerwkv.core.errors import InputError
from facerwkv.kernels import choose
from facerwkv.kernels.native import SHAPED, call, refusal, require
from facerwkv.kernels.triton import check, runs

CHUNK = 16
EMPTY = -1e38  # the exponent of a state that holds nothing


def wkv4(
    w: Tensor, u: Tensor, k: Tensor, v: Tensor, state: Tensor | None = None, implementation: str = "auto"
) -> tuple[Tensor, Tensor]:
    """Mix values over time; linear in T, constant state.

    w (C,) the decay rate, above 0; u (C,) the bonus of the present token; k, v (B, T, C); state (B, 3, C) from an
    earlier call, or None. Returns y (B, T, C) in v's dtype and the state after the last token, in float32 or float64.
    implementation: "reference" (token by token), "chunked" (16 tokens at once), "native" (C; CPU, float32, no gradient
    of the state) or "triton" (CUDA, float32 or less); "auto" is native or triton where they can run, else chunked.
    """
    check_shapes("wkv4", w, u, k, v)
    if state is not None and state.shape != (k.shape[0], 3, k.shape[2]):
        raise InputError(f"The state must be (B, 3, C), here {(k.shape[0], 3, k.shape[2])}, not {tuple(state.shape)}.")
    exact = torch.promote_types(k.dtype, torch.float32)
    carried = state is not None and state.requires_grad and torch.is_grad_enabled()
    name = implementation
    if name == "auto":
        portable = "chunked" if carried or refusal("wkv4", k, devices=SHAPED, cast=True) else "native"
        name = "triton" if runs(k) else portable
    form, kept = choose(IMPLEMENTATIONS, name), name == "triton"  # whose loads convert
    state = empty_state(k) if state is None else state
    y, state = form(w.to(exact), u.to(exact), k if kept else k.to(exact), v if kept else v.to(exact), state)
    return y.to(v.dtype), state


def check_shapes(name: str, w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> None:
    """InputError unless w and u are (C,), k and v (B, T, C), for the call named: C code cannot find out."""
    if k.ndim != 3 or v.shape != k.shape or w.shape != k.shape[2:] or u.shape != w.shape:
        shapes = ", ".join(str(tuple(x.shape)) for x in (w, u, k, v))
        raise InputError(f"{name} takes w and u (C,), k and v (B, T, C), not {shapes}.")


def empty_state(k: Tensor) -> Tensor:
    """The state before the first token, (B, 3, C), for keys (B, T, C)."""
    state = k.new_zeros(k.shape[0], 3, k.shape[2], dtype=torch.promote_types(k.dtype, torch.float32))
    state[:, 2] = EMPTY
    return state


def _reference(w: Tensor, u: Tensor, k: Tensor, v: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    a, b, p = state.unbind(1)
    outputs = []
    for k_t, v_t in zip(k.unbind(1), v.unbind(1), strict=True):
        q = torch.maximum(p, u + k_t)
        past, present = (p - q).exp(), (u + k_t - q).exp()
        outputs.append((past * a + present * v_t) / (past * b + present))
        q = torch.maximum(p - w, k_t)
        past, present = (p - w - q).exp(), (k_t - q).exp()
        a, b, p = past * a + present * v_t, past * b + present, q
    y = torch.stack(outputs, 1) if outputs else torch.empty_like(v)
    return y, torch.stack([a, b, p], 1)


def _chunked(w: Tensor, u: Tensor, k: Tensor, v: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    outputs = []
    for k_chunk, v_chunk in zip(k.split(CHUNK, 1), v.split(CHUNK, 1), strict=True):
        if torch.is_grad_enabled():  # keep training memory linear in T with a small constant
            y, state = checkpoint(_chunk, w, u, k_chunk, v_chunk, state, use_reentrant=False)
        else:
            y, state = _chunk(w, u, k_chunk, v_chunk, state)
        outputs.append(y)
    return torch.cat(outputs, 1), state


def _chunk(w: Tensor, u: Tensor, k: Tensor, v: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    a, b, p = state[:, :, None].unbind(1)  # (B, 1, C)
    length = k.shape[1]
    time = torch.arange(length, device=k.device)
    lag = (time[:, None] - time)[..., None]  # (n, n, 1)
    inside = k[:, None] + torch.where(lag > 0, (1 - lag) * w, u)  # (B, n, n, C)
    inside = inside.masked_fill(lag < 0, -torch.inf)
    before = p - time[:, None] * w  # (B, n, C)
    # Any shift cancels between numerator and denominator, so the largest exponent is taken as a constant.
    top = torch.maximum(inside.amax(2), before).detach()
    weights, past = (inside - top[:, :, None]).exp(), (before - top).exp()
    y = ((weights * v[:, None]).sum(2) + past * a) / (weights.sum(2) + past * b)

    inside, before = k - (length - 1 - time)[:, None] * w, p - length * w
    top = torch.maximum(inside.amax(1, keepdim=True), before).detach()
    weights, past = (inside - top).exp(), (before - top).exp()
    a, b = (weights * v).sum(1, keepdim=True) + past * a, weights.sum(1, keepdim=True) + past * b
    return y, torch.cat([a, b, top], 1)


def _operator(kind: str, w: Tensor, u: Tensor, k: Tensor, v: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """The operator in Triton or in C, imported here; InputError where it cannot run."""
    if kind == "triton":
        check("wkv4", k)
        from facerwkv.kernels.triton import wkv4 as triton

        return triton.wkv4(w, u, k, v, state)
    require(refusal("wkv4", k, devices=SHAPED), "chunked")
    from facerwkv.kernels.native import wkv as native

    return call(native.wkv4, w, u, k, v, state)


IMPLEMENTATIONS: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "reference": _reference,
    "chunked": _chunked,
    "native": partial(_operator, "native"),
    "triton": partial(_operator, "triton"),
}
