import pytest
import torch

from facerwkv.mixers.shift import half_shift
from facerwkv.mixers.vrwkv import quad_shift


def test_each_quarter_looks_one_way_and_beyond_the_border_is_nothing():
    image = torch.arange(1.0, 13).view(3, 4)
    x = image.view(1, 12, 1).expand(1, 12, 4)
    left, right, upper, lower = quad_shift(x, (3, 4))[0].T.view(4, 3, 4)
    assert left.tolist() == [[0, 1, 2, 3], [0, 5, 6, 7], [0, 9, 10, 11]]
    assert right.tolist() == [[2, 3, 4, 0], [6, 7, 8, 0], [10, 11, 12, 0]]
    assert upper.tolist() == [[0, 0, 0, 0], [1, 2, 3, 4], [5, 6, 7, 8]]
    assert lower.tolist() == [[5, 6, 7, 8], [9, 10, 11, 12], [0, 0, 0, 0]]


def test_widths_that_four_does_not_divide_are_cut_where_upstream_cuts_them():
    shifted = quad_shift(torch.ones(1, 2, 10), (1, 2))  # one row: nothing above and below
    assert shifted[0].tolist() == [[0] * 2 + [1] * 3 + [0] * 5, [1] * 2 + [0] * 8]


@pytest.mark.parametrize("grid", [(1, 1), (1, 6), (6, 1), (2, 3)])
def test_any_grid(grid):
    x = torch.randn(2, grid[0] * grid[1], 8)
    assert quad_shift(x, grid).shape == x.shape


@pytest.mark.parametrize("grid", [(1, 1), (1, 6), (6, 1), (3, 4)])
def test_half_of_the_channels_come_from_the_token_above(grid):
    rows, columns = grid
    x = torch.randn(2, rows * columns, 5)
    expected = x.clone()
    for row in range(rows):
        for column in range(columns):
            above = x[:, (row - 1) * columns + column, :2] if row else torch.zeros(2, 2)
            expected[:, row * columns + column, :2] = above
    assert torch.equal(half_shift(x, "row", grid), expected)
