"""What tells tokens where in the image they are."""

import torch
from torch import Tensor, nn
from torch.nn import functional

Grid = tuple[int, int]


class NoPosition(nn.Module):
    """Nothing: a recurrent mixer knows the order."""

    def __init__(self, grid: Grid, width: int):
        super().__init__()

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        return x


class LearnedPosition(nn.Module):
    """One learned vector per token, as the authors tried (section 5.4.1); N(0, 1) at first, as in their code."""

    def __init__(self, grid: Grid, width: int):
        super().__init__()
        self.grid = grid
        self.table = nn.Parameter(torch.randn(1, grid[0] * grid[1], width))

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        table: Tensor = self.table
        if grid != self.grid:
            image = table.mT.unflatten(-1, self.grid)
            table = functional.interpolate(image, grid, mode="bicubic", align_corners=False).flatten(2).mT
        return x + table


class UnusedPosition(LearnedPosition):
    """The published models count a table that they never add; it is kept, so that the counts agree, and frozen."""

    def __init__(self, grid: Grid, width: int):
        super().__init__(grid, width)
        self.table.requires_grad_(False)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        return x


class GridPosition(nn.Module):
    """One vector per row plus one per column, zero at first: RWKV's author's advice for images (RWKV-LM, README)."""

    def __init__(self, grid: Grid, width: int):
        super().__init__()
        self.rows = nn.Parameter(torch.zeros(1, grid[0], width))
        self.columns = nn.Parameter(torch.zeros(1, grid[1], width))

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        rows, columns = _resize(self.rows, grid[0]), _resize(self.columns, grid[1])
        return x + (rows[:, :, None] + columns[:, None]).flatten(1, 2)


def _resize(line: Tensor, length: int) -> Tensor:
    if line.shape[1] == length:
        return line
    return functional.interpolate(line.mT, length, mode="linear", align_corners=False).mT
