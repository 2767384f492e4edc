"""Where a token looks besides itself before it is projected."""

import torch
from torch import Tensor
from torch.nn.functional import pad


def token_shift(x: Tensor, last: Tensor | None = None) -> Tensor:
    """y_t = x_{t-1} for x (B, T, D); `last` (B, D) comes before the first token, zeros if None."""
    first = torch.zeros_like(x[:, :1]) if last is None else last[:, None]
    return torch.cat([first, x[:, :-1]], 1)


def half_shift(x: Tensor, last: Tensor | None = None) -> Tensor:
    """RWKV-1's shift: the first half of the channels comes from the token before. Shapes as in `token_shift`."""
    half = x.shape[-1] // 2
    return torch.cat([token_shift(x, last)[..., :half], x[..., half:]], -1)


def row_shift(x: Tensor, grid: tuple[int, int]) -> Tensor:
    """The first half of the channels comes from the token above, zeros in the first row; x is (B, T, D).

    Source: RWKV-LM's README, which advises a shift of N tokens for an image of N x N.
    """
    half, columns = x.shape[-1] // 2, grid[1]
    return torch.cat([pad(x[:, :-columns, :half], (0, 0, columns, 0)), x[..., half:]], -1)
