"""What the recurrences with a matrix state share: chunks of tokens, decays inside a chunk, a walk over a long sequence.

Between tokens s < t of a chunk a channel decays by w_{s+1} ... w_{t-1}. Of the smallest block of 2, 4, 8, ... tokens
that holds both, the middle cuts this product into a factor that belongs to s and one that belongs to t: so every pair
comes out of matrix products, and nothing is divided by a decay, which may be as small as 0.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache, partial
from importlib import import_module
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from facerwkv.core.errors import InputError
from facerwkv.kernels.calls import constant, refusal, transformed

CHUNK = 16  # tokens; a power of two
FEW = 8  # tokens up to which one by one is faster than a chunk
CACHED = 80_000  # numbers of one input worked on at once: what a CPU's second-level cache holds of all inputs
Recurrence = Callable[..., tuple[Tensor, Tensor]]
Visit = Callable[[Tensor, Tensor], None]


def empty_state(k: Tensor, exact: torch.dtype = torch.float32) -> Tensor:
    """The state (B, H, N, N) before the first of keys k (B, T, H, N): zeros."""
    return k.new_zeros(k.shape[0], k.shape[2], k.shape[3], k.shape[3], dtype=exact)


def walk(segment: Recurrence, inputs: list[Tensor], state: Tensor) -> tuple[Tensor, Tensor]:
    """Run `segment(*pieces, state) -> (y, state)` along time, a few chunks at once.

    inputs and y (B, T, H, N); the last piece is filled up with zeros to whole chunks. What a segment computes inside is
    computed again in the backward pass, so that training keeps little more than inputs and outputs.
    """
    batch, length, heads, size = inputs[0].shape
    if not length:
        return inputs[0].clone(), state
    remade = partial(checkpoint, segment, use_reentrant=False, preserve_rng_state=False)
    exporting = torch.compiler.is_exporting()
    run = remade if torch.is_grad_enabled() and not exporting else segment
    if exporting:  # at once: a program for any batch cannot depend on its size
        tokens = length
    else:
        budget = CACHED if state.device.type == "cpu" else 100 * CACHED
        tokens = max(1, budget // max(1, batch * heads * size * CHUNK)) * CHUNK
    outputs = []
    for pieces in zip(*(x.split(tokens, 1) for x in inputs), strict=True):
        if lacking := -pieces[0].shape[1] % CHUNK:
            pieces = tuple(functional.pad(piece, (0, 0, 0, 0, 0, lacking)) for piece in pieces)
        y, state = run(*pieces, state)
        outputs.append(y)
    return torch.cat(outputs, 1)[:, :length], state


def cut(x: Tensor) -> Tensor:
    """(B, T, H, N) → chunks (M, n, N), M = T/n * B * H, in new memory."""
    x = x.unflatten(1, (-1, CHUNK)).permute(1, 0, 3, 2, 4)
    return x.clone(memory_format=torch.contiguous_format).flatten(0, 2)


def join(x: Tensor, shape: torch.Size) -> Tensor:
    """Chunks (M, n, N) → (B, T, H, N), the given shape."""
    batch, length, heads, size = shape
    return x.view(length // CHUNK, batch, heads, CHUNK, size).permute(1, 0, 3, 2, 4).flatten(1, 2)


def steps(x: Tensor, shape: torch.Size) -> tuple[Tensor, ...]:
    """Chunks (M, ...) of a sequence of the given shape (B, T, H, N) → those of one time after the other, (B H, ...)."""
    return x.unflatten(0, (shape[1] // CHUNK, shape[0] * shape[2])).unbind()


def halve(left: Tensor, right: Tensor, w: Tensor, visit: Visit) -> tuple[Tensor, Tensor, Tensor]:
    """Decay pairs of tokens by what lies between them, in blocks of 2, 4, 8, ... tokens.

    left (M, n, p, N), right (M, n, q, N): p and q vectors per token; decays w (M, n, N) in [0, 1]. For each block size
    calls visit(later, earlier): later (blocks, p * half, N), the left vectors of the second halves, decayed since the
    middle; earlier (blocks, q * half, N), the right vectors of the first halves, decayed until there. Returns left
    decayed since the chunk's start, right decayed until its end, and the chunk's whole decay (M, N). Overwrites left
    and right where no gradient is wanted.
    """
    (chunks, length, p, size), q = left.shape, right.shape[2]
    blocks, half, inplace = chunks * length, 1, not torch.is_grad_enabled() or torch.compiler.is_exporting()
    while half < length:
        blocks //= 2
        left, right = left.view(blocks, 2, half * p, size), right.view(blocks, 2, half * q, size)
        first, second = w.view(blocks, 2, 1, size).unbind(1)
        visit(left[:, 1], right[:, 0])
        if inplace:
            left[:, 1].mul_(first)
            right[:, 0].mul_(second)
        else:
            left = torch.stack([left[:, 0], left[:, 1] * first], 1)
            right = torch.stack([right[:, 0] * second, right[:, 1]], 1)
        w, half = first * second, 2 * half
    return left.view(chunks, length, p, size), right.view(chunks, length, q, size), w.view(chunks, size)


def products(x: Tensor, y: Tensor) -> Tensor:
    """x (M, n, N) times y^T (M, N, m)."""
    if x.shape[1] <= 2:  # too small for a matrix product to pay
        return (x[:, :, None] * y[:, None]).sum(-1)
    return x @ y.mT


def full_precision(x: Tensor) -> AbstractContextManager:
    """Keeps autocast away from the products inside a recurrence."""
    kind = x.device.type
    running = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)  # the meta device knows neither
    return torch.autocast(kind, enabled=False) if running else nullcontext()


def heads_refusal(k: Tensor) -> str | None:
    """Why the C kernels cannot take heads like those of k (B, T, H, N); None when they can."""
    if k.shape[-1] % 16 or not 0 < k.shape[-1] <= 256:
        return f"The native form runs with heads of 16, 32, ... 256 channels, not {k.shape[-1]}."
    return None


def fastest(name: str, k: Tensor, exact: torch.dtype) -> str:
    """The implementation of the operator called `name` that "auto" means, with keys like k (B, T, H, N).

    fla's products are taken in half precision or tf32, so it is chosen for half-precision inputs only.
    """
    if transformed():
        return "reference"
    half = k.is_cuda and exact == torch.float32 and k.dtype in (torch.float16, torch.bfloat16)
    if half and k.shape[1] > FEW and k.shape[0] and 16 <= k.shape[-1] <= 256 and _has_fla(name):
        return "fla"
    if not (refusal(name, k, dtype=exact) or heads_refusal(k)):
        return "native"
    return "reference" if k.shape[1] <= FEW else "chunked"


def fla_operator(name: str, x: Tensor) -> Callable:
    """fla-core's form of wkv6 or wkv7 for tensors like x, or InputError with what is missing."""
    if x.device.type != "cuda":
        raise InputError(f"The implementation 'fla' runs on CUDA, not on {x.device}; use 'chunked'.")
    if find_spec("fla") is None:
        raise InputError("The implementation 'fla' needs fla-core: pip install 'facerwkv[fla]'. Or use 'chunked'.")
    operator = _from_fla(name)
    if isinstance(operator, str):
        raise InputError(f"fla-core cannot be loaded ({operator}): install another version of it, or use 'chunked'.")
    return operator


@constant
def _has_fla(name: str) -> bool:
    return find_spec("fla") is not None and not isinstance(_from_fla(name), str)


@cache
def _from_fla(name: str) -> Callable | str:
    """fla-core's operator, or why there is none: what it imports depends on the versions of PyTorch and Triton."""
    generation = name.replace("wkv", "rwkv")
    try:
        return getattr(import_module(f"fla.ops.{generation}"), f"chunk_{generation}")
    except Exception as error:
        return f"{type(error).__name__}: {error}"
