"""Images of another size: bilinear, antialiased, in whole numbers, so that every machine gives the same bytes.

They are PyTorch's bytes (`interpolate` of uint8, antialias=True), which are Pillow's but for weights of 15 bits. Where
PyTorch is in the process its own form runs, ten times as fast.
"""

from functools import lru_cache
from typing import Any

import numpy as np

from facerwkv.core.packages import imported_pytorch

BITS = 15  # of the largest weight
POINT = 22  # at most so many bits behind the point


def resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """RGB uint8 (H, W, 3) → (h, w, 3); size: h and w."""
    if image.shape[:2] == tuple(size):
        return image
    if torch := imported_pytorch():
        return _by_torch(torch, image, size)
    image = _along_rows(image, size[1]).swapaxes(0, 1)  # first the width, then the height, each rounded to bytes
    return np.ascontiguousarray(_along_rows(image, size[0]).swapaxes(0, 1))


def _by_torch(torch: Any, image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    torch.get_num_threads()  # else a new thread's first kernels take all cores, whatever was set
    # The batch is made before the permutation: only its stride lets torch answer in this layout, in half the time.
    channels_last = torch.from_numpy(np.ascontiguousarray(image))[None].permute(0, 3, 1, 2)
    made = torch.nn.functional.interpolate(channels_last, size=size, mode="bilinear", antialias=True)
    return made[0].permute(1, 2, 0).contiguous().numpy()


def _along_rows(image: np.ndarray, length: int) -> np.ndarray:
    """(H, W, 3) → (H, length, 3)."""
    if image.shape[1] == length:
        return image
    first, weights, bits = _weights(image.shape[1], length)
    columns = np.ascontiguousarray(image.swapaxes(0, 1))
    total = np.full((length, *columns.shape[1:]), 1 << (bits - 1), np.int32)
    part = np.empty_like(total)
    for tap in range(weights.shape[1]):
        taken = columns.take(first + tap, 0, mode="clip")  # beyond the last one the weight is 0
        total += np.multiply(taken, weights[:, tap, None, None], out=part)
    total >>= bits
    return total.astype(np.uint8).swapaxes(0, 1)


@lru_cache(maxsize=256)
def _weights(old: int, new: int) -> tuple[np.ndarray, np.ndarray, int]:
    """What makes a line of `new` pixels of `old` ones: the first that counts for each (new,), the weights of that and
    the next ones, int32 (new, taps), and how many of their bits are behind the point."""
    scale = old / new
    support = max(scale, 1.0)
    centre = scale * (np.arange(new) + 0.5)
    first = np.maximum((centre - support + 0.5).astype(np.int64), 0)
    count = np.minimum((centre + support + 0.5).astype(np.int64), old) - first
    taps = np.arange(count.max())
    weights = np.maximum(1 - np.abs((first[:, None] + taps - centre[:, None] + 0.5) / support), 0)
    weights *= taps < count[:, None]
    weights /= weights.sum(1, keepdims=True)
    bits = next(
        bits for bits in range(POINT + 1) if bits == POINT or int(0.5 + weights.max() * 2 ** (bits + 1)) >> BITS
    )
    return first, (0.5 + weights * 2**bits).astype(np.int32), bits
