"""RWKV-4's weighted key-value: per channel a decaying, key-weighted mean of the values seen so far.

y_t = (sum_{i<t} e^{k_i-(t-1-i)w} v_i + e^{u+k_t} v_t) / (sum_{i<t} e^{k_i-(t-1-i)w} + e^{u+k_t})

Source: RWKV (arXiv 2305.13048), equation 14. The state is (a, b, p): numerator and denominator, both divided by e^p.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from facerwkv.kernels.calls import Inputs, choose, fastest, narrowed, native
from facerwkv.kernels.triton import check

INPUTS = Inputs("wkv4", "w C, u C, k B T C, v B T C, state? B 3 C")
CHUNK = 16
EMPTY = -1e38  # the exponent of a state that holds nothing


def wkv4(
    w: Tensor, u: Tensor, k: Tensor, v: Tensor, state: Tensor | None = None, implementation: str = "auto"
) -> tuple[Tensor, Tensor]:
    """Mix values over time; linear in T, constant state.

    w (C,) the decay rate, above 0; u (C,) the bonus of the present token; k, v (B, T, C); state (B, 3, C) from an
    earlier call, or None. Returns y (B, T, C) in v's dtype and the state after the last token, in float32 or float64.
    implementation: "reference" (token by token), "chunked" (16 tokens at once), "native" (C; CPU, float32) or "triton"
    (CUDA, float32 or less); "auto" is native or triton where they can run, else chunked.
    """
    exact = INPUTS.check(w, u, k, v, state)
    name = fastest("wkv4", k, exact) if implementation == "auto" else implementation
    form = choose(IMPLEMENTATIONS, name)
    y, state = form(*narrowed(name, exact, w, u, k, v), state if state is None else state.to(exact))
    return y.to(v.dtype), state


def empty_state(k: Tensor) -> Tensor:
    """The state before the first token, (B, 3, C), for keys (B, T, C)."""
    state = k.new_zeros(k.shape[0], 3, k.shape[2], dtype=torch.promote_types(k.dtype, torch.float32))
    state[:, 2] = EMPTY
    return state


def _reference(w: Tensor, u: Tensor, k: Tensor, v: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
    a, b, p = (empty_state(k) if state is None else state).unbind(1)
    outputs = []
    for k_t, v_t in zip(k.unbind(1), v.unbind(1), strict=True):
        q = torch.maximum(p, u + k_t)
        past, present = (p - q).exp(), (u + k_t - q).exp()
        outputs.append((past * a + present * v_t) / (past * b + present))
        q = torch.maximum(p - w, k_t)
        past, present = (p - w - q).exp(), (k_t - q).exp()
        a, b, p = past * a + present * v_t, past * b + present, q
    y = torch.stack(outputs, 1) if outputs else v.clone()
    return y, torch.stack([a, b, p], 1)


def _chunked(w: Tensor, u: Tensor, k: Tensor, v: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
    if not k.shape[1]:
        return _reference(w, u, k, v, state)
    state, outputs = empty_state(k) if state is None else state, []
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


def _triton(w: Tensor, u: Tensor, k: Tensor, v: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
    """The operator in Triton, imported here; InputError where it cannot run."""
    check("wkv4", k, v)
    from facerwkv.kernels.triton import wkv4 as triton

    return triton.wkv4(w, u, k, v, empty_state(k) if state is None else state)


IMPLEMENTATIONS: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "reference": _reference,
    "chunked": _chunked,
    "native": partial(native, "wkv", "wkv4", shapes=True),
    "triton": _triton,
}
