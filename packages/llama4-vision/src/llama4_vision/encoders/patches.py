"""Tiles as rows of patches, and back."""

from __future__ import annotations

from torch import Tensor


def patches_of(tiles: Tensor, size: int) -> Tensor:
    """Cuts tiles into squares, one row of numbers each.

    Args:
        tiles: ``[B, C, height, width]``; height and width are multiples of ``size``.
        size: edge of a square.

    Returns:
        ``[P, B, C size size]``: places row-major over the grid, and in each the numbers by channel,
        then row, then column. Places come before tiles, as in the stream of an encoder.
    """
    B, C, height, width = tiles.shape
    rows, columns = height // size, width // size
    split = tiles.reshape(B, C, rows, size, columns, size)
    return split.permute(2, 4, 0, 1, 3, 5).reshape(rows * columns, B, C * size * size)


def tiles_of(patches: Tensor, grid: tuple[int, int], size: int) -> Tensor:
    """Puts patches together again: the inverse of :func:`patches_of`.

    Args:
        patches: ``[P, B, C size size]``.
        grid: rows and columns of places.
        size: edge of a square.

    Returns:
        ``[B, C, rows size, columns size]``.
    """
    _, B, numbers = patches.shape
    rows, columns = grid
    C = numbers // size**2
    split = patches.reshape(rows, columns, B, C, size, size)
    return split.permute(2, 3, 0, 4, 1, 5).reshape(B, C, rows * size, columns * size)
