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
    """The first half of the channels comes from the token above, zeros in the first row; x as in `quad_shift`.

    Source: RWKV-LM's README, which advises a shift of N tokens for an image of N x N.
    """
    half, columns = x.shape[-1] // 2, grid[1]
    return torch.cat([pad(x[:, :-columns, :half], (0, 0, columns, 0)), x[..., half:]], -1)


def quad_shift(x: Tensor, grid: tuple[int, int]) -> Tensor:
    """Vision-RWKV's shift on the grid (Hp, Wp): the four quarters of the channels come from the left, right, upper and
    lower neighbour, zeros beyond the border. x (B, T, D) with T = Hp·Wp in raster order.
    """
    width = x.shape[-1]
    quarters = x.unflatten(1, grid).tensor_split([width // 4, width // 2, 3 * width // 4], -1)  # (B, Hp, Wp, D / 4)
    left, right = pad(quarters[0], (0, 0, 1, -1)), pad(quarters[1], (0, 0, -1, 1))
    upper, lower = pad(quarters[2], (0, 0, 0, 0, 1, -1)), pad(quarters[3], (0, 0, 0, 0, -1, 1))
    return torch.cat([left, right, upper, lower], -1).flatten(1, 2)
