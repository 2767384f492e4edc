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
        if self.kind in ("none", "unused"):
            return x
        tables = self.resized(grid)
        if self.kind == "learned":
            return x + tables["table"]
        return x + (tables["rows"][:, :, None] + tables["columns"][:, None]).flatten(1, 2)

    def resized(self, grid: Grid) -> dict[str, Tensor]:
        """The tables by name, for a grid."""
        tables: dict[str, Tensor] = dict(self.named_parameters())
        if "table" in tables and grid != self.grid:
            image = tables["table"].mT.unflatten(-1, self.grid)
            tables["table"] = functional.interpolate(image, grid, mode="bicubic", align_corners=False).flatten(2).mT
        for name, length in zip(("rows", "columns"), grid, strict=True):
            if name in tables and tables[name].shape[1] != length:
                tables[name] = functional.interpolate(tables[name].mT, length, mode="linear").mT
        return tables
