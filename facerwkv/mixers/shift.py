"""Where a token looks besides itself before it is projected."""

import torch
from torch import Tensor
from torch.nn.functional import pad


def token_shift(x: Tensor, last: Tensor | None = None) -> Tensor:
    """y_t = x_{t-1} for x (B, T, D); `last` (B, D) comes before the first token, zeros if None."""
    first = torch.zeros_like(x[:, :1]) if last is None else last[:, None]
    return torch.cat([first, x[:, :-1]], 1)


def half_shift(x: Tensor, shift: str = "token", grid: tuple[int, int] = (0, 0), last: Tensor | None = None) -> Tensor:
    """RWKV-1's shift: the first half of the channels comes from the token before, as in `token_shift`.

    With the shift "row" it comes from the token above on the grid (Hp, Wp), zeros in the first row. Source: RWKV-LM's
    README, which advises a shift of N tokens for an image of N x N.
    """
    half, columns = x.shape[-1] // 2, grid[1]
    neighbours = pad(x[:, :-columns, :half], (0, 0, columns, 0)) if shift == "row" else token_shift(x, last)[..., :half]
    return torch.cat([neighbours, x[..., half:]], -1)
