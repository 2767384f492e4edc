"""What tells tokens where in the image they are."""

import torch
from torch import Tensor, nn
from torch.nn import functional

Grid = tuple[int, int]


class Position(nn.Module):
    """Tokens (B, T, D) and their grid → tokens with their positions; `kind` is a name in POSITIONS."""

    def __init__(self, kind: str, grid: Grid, width: int):
        super().__init__()
        self.kind, self.grid = kind, grid
        if kind in ("learned", "unused"):  # N(0, 1), as in the authors' code
            table = torch.randn(1, grid[0] * grid[1], width)
            self.table = nn.Parameter(table, requires_grad=kind == "learned")
        elif kind == "2d":
            self.rows = nn.Parameter(torch.zeros(1, grid[0], width))
            self.columns = nn.Parameter(torch.zeros(1, grid[1], width))

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        """Tables are interpolated to another grid than that of the configuration."""
        if self.kind == "learned":
            table: Tensor = self.table
            if grid != self.grid:
                image = table.mT.unflatten(-1, self.grid)
                table = functional.interpolate(image, grid, mode="bicubic", align_corners=False).flatten(2).mT
            return x + table
        if self.kind == "2d":
            rows, columns = (
                line if line.shape[1] == length else functional.interpolate(line.mT, length, mode="linear").mT
                for line, length in zip((self.rows, self.columns), grid, strict=True)
            )
            return x + (rows[:, :, None] + columns[:, None]).flatten(1, 2)
        return x
