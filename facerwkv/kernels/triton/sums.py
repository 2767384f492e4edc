"""Decaying sums over time in log space: the kernels of WKV-4 and of bidirectional WKV, forward and backward.

Sums (a, b, top, lag, da, db) represent two sums of terms x e^l and y e^l, l an exponent that falls by w per token: for
a e^p and b e^p, p = top - lag w the largest exponent, and with da and db for their derivatives by -w. As top is some
token's and lag is whole, exponents are exact but for one rounding, however far away that token is.
Sums of neighbouring stretches of time join to the sums of both, so time is cut in blocks of TOKENS: `summarise` sums
each block by itself, `carry` walks over the blocks and turns each one's sums into those of all before it, and then
`average` or `differentiate` finishes each block. So programs run over batch, blocks and CHANNELS at once, and the
tokens of a block stay in registers.

Read forward in time, a value v with key k is the term (v e^k, 1 e^k). Read backward, an output y of weight 1 / e^q
whose gradient is g is the term (g e^-q, g y e^-q): an earlier token's gradients read the sums of these. The gradient
of w weighs distances; as all weights of an output sum to 1, they are counted from its heaviest token, so that little
cancels.
"""

# Tuples grow by +, since Triton cannot unpack with *.
# ruff: noqa: RUF005
# mypy: disable-error-code="assignment"

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language import constexpr

TOKENS = 8  # of a block; with 16, differentiate takes Triton six times as long to compile
CHANNELS = 128  # of a program
GROUP = tl.constexpr(8)  # blocks that `carry` loads at once
EMPTY = tl.constexpr(-1e38)  # the exponent of empty sums


def blocks_of(k: Tensor) -> int:
    """The number of blocks of tokens in k (B, T, C)."""
    return (k.shape[1] + TOKENS - 1) // TOKENS


def empty_sums(k: Tensor, parts: int) -> Tensor:
    """Sums (B, parts, C) that are empty, for keys (B, T, C); parts is 4, or 6 with the derivatives."""
    sums = k.new_zeros(k.shape[0], parts, k.shape[2], dtype=torch.float32)
    sums[:, 2] = -1e38
    return sums


def block_sums(k: Tensor, parts: int) -> Tensor:
    """Memory for the sums of every block of k (B, T, C): (B, N, parts, C)."""
    return k.new_empty(k.shape[0], blocks_of(k), parts, k.shape[2], dtype=torch.float32)


def launch(kernel: triton.JITFunction, rows: int, k: Tensor, *tensors: Tensor, **choices: bool | int) -> None:
    """Run a kernel for `rows` (batch, or batch times blocks) of all channels of k (B, T, C)."""
    _, length, channels = k.shape
    programs = rows * triton.cdiv(channels, CHANNELS)
    if not programs:
        return
    sizes = (length, channels, blocks_of(k))
    with torch.cuda.device_of(k):
        kernel[(programs,)](*tensors, *sizes, TOKENS=TOKENS, CHANNELS=CHANNELS, **choices)


@triton.jit
def join(sums, passed, w, more):
    """`sums`, decayed by the tokens that have passed since, and more sums."""
    a, b, top, lag, da, db = sums
    more_a, more_b, more_top, more_lag, more_da, more_db = more
    lag += passed
    difference = (top - more_top) - (lag - more_lag) * w
    small = tl.exp(-tl.abs(difference))  # of the two factors one is always 1
    old, new = tl.where(difference > 0, 1.0, small), tl.where(difference > 0, small, 1.0)
    return (
        old * a + new * more_a,
        old * b + new * more_b,
        tl.where(difference > 0, top, more_top),
        tl.where(difference > 0, lag, more_lag),
        old * (da + passed * a) + new * more_da,
        old * (db + passed * b) + new * more_db,
    )


@triton.jit
def program(C, N, CHANNELS: constexpr):
    """This program's channels, its batch entry and its block."""
    blocks = tl.cdiv(C, CHANNELS)
    c = tl.program_id(0) % blocks * CHANNELS + tl.arange(0, CHANNELS)
    row = (tl.program_id(0) // blocks).to(tl.int64)
    return c, row // N, row % N


@triton.jit
def within(c, t, T, C):
    """The mask of channels c at token t. One comparison: in Triton 3.9's interpreter `&` of two masks is no mask."""
    return c < tl.where(t < T, C, 0)


@triton.jit
def load_tokens(x, c, batch, start, T, C, OTHER: constexpr, TOKENS: constexpr):
    """A block of x (B, T, C), a vector per token, OTHER after the last one: all loads come before any arithmetic."""
    vectors = ()
    for i in tl.static_range(TOKENS):
        t = start + i
        vectors = vectors + (tl.load(x + (batch * T + t) * C + c, within(c, t, T, C), OTHER).to(tl.float32),)
    return vectors


@triton.jit
def store_token(x, c, batch, t, T, C, value):
    tl.store(x + (batch * T + t) * C + c, value.to(x.dtype.element_ty), within(c, t, T, C))


@triton.jit
def load_sums(x, row, c, C, inside, PARTS: constexpr):
    """Row `row` of sums (rows, PARTS, C), empty where not inside; derivatives that are not stored are 0."""
    x += row * PARTS * C + c
    a, b = tl.load(x, inside, 0.0), tl.load(x + C, inside, 0.0)
    top, lag = tl.load(x + 2 * C, inside, EMPTY), tl.load(x + 3 * C, inside, 0.0)
    da, db = tl.zeros_like(a), tl.zeros_like(a)
    if PARTS == 6:
        da, db = tl.load(x + 4 * C, inside, 0.0), tl.load(x + 5 * C, inside, 0.0)
    return a, b, top, lag, da, db


@triton.jit
def store_sums(x, row, c, C, inside, sums, PARTS: constexpr):
    for part in tl.static_range(PARTS):
        tl.store(x + (row * PARTS + part) * C + c, sums[part], inside)


@triton.jit
def nothing(CHANNELS: constexpr):
    zero = tl.zeros([CHANNELS], tl.float32)
    return zero, zero, zero + EMPTY, zero, zero, zero


@triton.jit
def walk(sums, terms, w, start, T, REVERSE: constexpr, TOKENS: constexpr):
    """The sums before each token of a block, by token, and those after the walk."""
    before = ()
    for t in tl.static_range(TOKENS - 1 if REVERSE else 0, -1 if REVERSE else TOKENS, -1 if REVERSE else 1):
        before = (sums,) + before if REVERSE else before + (sums,)
        sums = join(sums, tl.where(start + t < T, 1.0, 0.0), w, terms[t])
    return before, sums


@triton.jit
def load_terms(k, v, c, batch, start, T, C, TOKENS: constexpr):
    """The terms of a block's keys and values; a token after the last one has none."""
    ks = load_tokens(k, c, batch, start, T, C, float("-inf"), TOKENS)
    vs = load_tokens(v, c, batch, start, T, C, 0.0, TOKENS)
    terms = ()
    for t in tl.static_range(TOKENS):
        terms = terms + ((vs[t], 1.0, ks[t], 0.0, 0.0, 0.0),)
    return terms


@triton.jit
def totals(u, w, past, future, terms, row, c, C, start, T, TOKENS: constexpr, BOTH: constexpr):
    """By token of a block: the sums before it, if BOTH those after it, and its own term with the bonus, joined."""
    before, _ = walk(load_sums(past, row, c, C, c < C, 4), terms, w, start, T, False, TOKENS)
    after = before
    if BOTH:
        after, _ = walk(load_sums(future, row, c, C, c < C, 4), terms, w, start, T, True, TOKENS)
    wholes = ()
    for t in tl.static_range(TOKENS):
        others = join(before[t], 0.0, w, after[t]) if BOTH else before[t]
        wholes = wholes + (join(others, 0.0, w, (terms[t][0], 1.0, u + terms[t][2], 0.0, 0.0, 0.0)),)
    return wholes


@triton.jit
def load_gradient_terms(grad, wholes, c, batch, start, T, C, TOKENS: constexpr):
    """The terms by which a block's outputs, of gradient grad (B, T, C), act on the gradients of other tokens."""
    gs = load_tokens(grad, c, batch, start, T, C, 0.0, TOKENS)
    terms = ()
    for t in tl.static_range(TOKENS):
        a, b, top, lag, _, _ = wholes[t]
        inside = within(c, start + t, T, C)
        scaled = gs[t] / b
        x, y = tl.where(inside, scaled, 0.0), tl.where(inside, scaled * (a / b), 0.0)
        terms = terms + ((x, y, tl.where(inside, -top, float("-inf")), -lag, -lag * x, -lag * y),)
    return terms


@triton.jit(do_not_specialize=["T", "N"])
def summarise(w, k, v, past, future, T, C, N, TOKENS: constexpr, CHANNELS: constexpr, BOTH: constexpr):
    """Each block's own sums of keys and values, for later tokens and, if BOTH, for earlier ones."""
    c, batch, block = program(C, N, CHANNELS)
    row, start, w = batch * N + block, block * TOKENS, tl.load(w + c, c < C, 0.0)
    terms = load_terms(k, v, c, batch, start, T, C, TOKENS)
    _, sums = walk(nothing(CHANNELS), terms, w, start, T, False, TOKENS)
    store_sums(past, row, c, C, c < C, sums, 4)
    if BOTH:
        _, sums = walk(nothing(CHANNELS), terms, w, start, T, True, TOKENS)
        store_sums(future, row, c, C, c < C, sums, 4)


@triton.jit(do_not_specialize=["T", "N"])
def carry(w, sums, first, last, T, C, N, TOKENS: constexpr, CHANNELS: constexpr, PARTS: constexpr, REVERSE: constexpr):
    """Turn each block's own sums (B, N, PARTS, C) into those of all blocks that the walk passes before it.

    The walk begins with `first` (B, PARTS, C) and ends with `last`. GROUP blocks are loaded at once.
    """
    c, batch, _ = program(C, 1, CHANNELS)
    w, held = tl.load(w + c, c < C, 0.0), load_sums(first, batch, c, C, c < C, PARTS)
    for group in range(0, N, GROUP):
        own = ()
        for i in tl.static_range(GROUP):
            block = N - 1 - group - i if REVERSE else group + i
            own = own + (load_sums(sums, batch * N + block, c, C, within(c, group + i, N, C), PARTS),)
        for i in tl.static_range(GROUP):
            block = N - 1 - group - i if REVERSE else group + i
            store_sums(sums, batch * N + block, c, C, within(c, group + i, N, C), held, PARTS)
            tokens = tl.where(group + i < N, tl.minimum(T - block * TOKENS, TOKENS), 0)
            held = join(held, tokens.to(tl.float32), w, own[i])
    store_sums(last, batch, c, C, c < C, held, PARTS)


@triton.jit(do_not_specialize=["T", "N"])
def average(w, u, k, v, past, future, y, T, C, N, TOKENS: constexpr, CHANNELS: constexpr, BOTH: constexpr):
    """y (B, T, C) from the sums before each block and, if BOTH, those after it."""
    c, batch, block = program(C, N, CHANNELS)
    start, w, u = block * TOKENS, tl.load(w + c, c < C, 0.0), tl.load(u + c, c < C, 0.0)
    terms = load_terms(k, v, c, batch, start, T, C, TOKENS)
    wholes = totals(u, w, past, future, terms, batch * N + block, c, C, start, T, TOKENS, BOTH)
    for t in tl.static_range(TOKENS):
        store_token(y, c, batch, start + t, T, C, wholes[t][0] / wholes[t][1])


@triton.jit(do_not_specialize=["T", "N"])
def summarise_gradients(
    w, u, k, v, past, future, grad, later, earlier, T, C, N, TOKENS: constexpr, CHANNELS: constexpr, BOTH: constexpr
):
    """Each block's own sums of gradients, for earlier tokens and, if BOTH, for later ones."""
    c, batch, block = program(C, N, CHANNELS)
    row, start, w, u = batch * N + block, block * TOKENS, tl.load(w + c, c < C, 0.0), tl.load(u + c, c < C, 0.0)
    terms = load_terms(k, v, c, batch, start, T, C, TOKENS)
    wholes = totals(u, w, past, future, terms, row, c, C, start, T, TOKENS, BOTH)
    terms = load_gradient_terms(grad, wholes, c, batch, start, T, C, TOKENS)
    _, sums = walk(nothing(CHANNELS), terms, w, start, T, True, TOKENS)
    store_sums(later, row, c, C, c < C, sums, 6)
    if BOTH:
        _, sums = walk(nothing(CHANNELS), terms, w, start, T, False, TOKENS)
        store_sums(earlier, row, c, C, c < C, sums, 6)


@triton.jit
def pull(sums, w, v, k):
    """The gradients of a token's k, v and, by its own term, w, from the sums of other tokens' gradient terms."""
    a, b, top, lag, da, db = sums
    weight = tl.exp((k + top) - lag * w)
    return weight * (v * a - b), weight * a, -weight * (v * da - db)


@triton.jit(do_not_specialize=["T", "N"])
def differentiate(
    w,
    u,
    k,
    v,
    past,
    future,
    grad,
    later,
    earlier,
    grad_w,
    grad_u,
    grad_k,
    grad_v,
    T,
    C,
    N,
    TOKENS: constexpr,
    CHANNELS: constexpr,
    BOTH: constexpr,
):
    """The gradients of k and v (B, T, C), and each block's share (B, N, C) in those of w and u."""
    c, batch, block = program(C, N, CHANNELS)
    row, start, w, u = batch * N + block, block * TOKENS, tl.load(w + c, c < C, 0.0), tl.load(u + c, c < C, 0.0)
    terms = load_terms(k, v, c, batch, start, T, C, TOKENS)
    wholes = totals(u, w, past, future, terms, row, c, C, start, T, TOKENS, BOTH)
    of_y = load_gradient_terms(grad, wholes, c, batch, start, T, C, TOKENS)
    after, _ = walk(load_sums(later, row, c, C, c < C, 6), of_y, w, start, T, True, TOKENS)
    before = after
    if BOTH:
        before, _ = walk(load_sums(earlier, row, c, C, c < C, 6), of_y, w, start, T, False, TOKENS)
    sum_w, sum_u = tl.zeros([CHANNELS], tl.float32), tl.zeros([CHANNELS], tl.float32)
    for t in tl.static_range(TOKENS):
        value, _, key, _, _, _ = terms[t]
        a, b, top, lag, _, _ = wholes[t]
        own = tl.exp((u + key - top) + lag * w) * of_y[t][0]
        of_u = own * (value - a / b)
        of_k, of_v, of_w = pull(after[t], w, value, key)
        if BOTH:
            more_k, more_v, more_w = pull(before[t], w, value, key)
            of_k, of_v, of_w = of_k + more_k, of_v + more_v, of_w + more_w
        store_token(grad_k, c, batch, start + t, T, C, of_k + of_u)
        store_token(grad_v, c, batch, start + t, T, C, of_v + own)
        inside = within(c, start + t, T, C)
        sum_w += tl.where(inside, of_w + lag * of_u, 0.0)
        sum_u += tl.where(inside, of_u, 0.0)
    tl.store(grad_w + row * C + c, sum_w, c < C)
    tl.store(grad_u + row * C + c, sum_u, c < C)
