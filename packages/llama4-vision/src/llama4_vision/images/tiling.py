"""How a picture is cut into tiles: the published rule. No torch here.

A *canvas* is a grid of ``rows x columns`` tiles with at most ``max_tiles`` of them; there are 50
for 16. A picture of ``w x h`` pixels is put on the canvas of ``W x H`` pixels by the scale
``s = min(W / w, H / h)``. Of all canvases

- the one with the smallest ``s >= 1`` is taken, so that nothing is lost and little is padded,
- or, when the picture fits on none, the one with the largest ``s``, so that least is lost,
- and among equal scales the smallest. That leaves one: if two canvases of equal area had the same
  scale, then the canvas of the smaller height and the smaller width would have it too, with less.

The picture is resized, keeping its shape, to fill ``min(max(side, tile), canvas)`` in one
direction: it grows to the size of one tile at most. The rest of the canvas, right and below, is
padding. A grid of more than one tile is followed by a global tile: the whole picture, squashed
into one.

Arithmetic: both published implementations compute in floating point, and so does this one, in
float64. For the choice of the canvas that makes no difference: equal fractions divide to equal
floats, and different scales of pictures under 10^12 pixels differ even in float32. For the resized
size it does: ``floor(h * (W / w))`` can fall one below the exact ``floor(h * W / w)``, for example
for 45 x 60 pixels (251 rows, not 252), and models have seen those sizes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from llama4_core.errors import ModalityError


@dataclass(frozen=True)
class TilePlan:
    """Where the pixels of one picture go.

    Attributes:
        width, height: of the picture, in pixels.
        tile: edge of a tile, in pixels.
        rows, columns: of the grid of tiles.
        resized_width, resized_height: of the picture on the grid's canvas, at its top left.
    """

    width: int
    height: int
    tile: int
    rows: int
    columns: int
    resized_width: int
    resized_height: int

    @property
    def has_global(self) -> bool:
        """Whether the whole picture follows as one more tile: when there is more than one."""
        return self.rows * self.columns > 1

    @property
    def tiles(self) -> int:
        """Tiles, the global one included."""
        return self.rows * self.columns + self.has_global


@lru_cache(maxsize=16)
def canvases(max_tiles: int) -> tuple[tuple[int, int], ...]:
    """All grids ``(rows, columns)`` of at most ``max_tiles`` tiles, the smallest area first."""
    grids = (
        (rows, columns)
        for rows in range(1, max_tiles + 1)
        for columns in range(1, max_tiles // rows + 1)
    )
    return tuple(sorted(grids, key=lambda grid: grid[0] * grid[1]))


def tile_plan(width: int, height: int, tile: int = 336, max_tiles: int = 16) -> TilePlan:
    """Chooses the grid for a picture by the published rule (see the top of this module).

    Args:
        width: of the picture, in pixels.
        height: of the picture, in pixels.
        tile: edge of a tile, in pixels; 336 in the published models.
        max_tiles: largest grid, without the global tile; 16 in the published models.

    Raises:
        ModalityError: a number is not a whole number from 1.
    """
    for name, value in (
        ("width", width), ("height", height), ("tile", tile), ("max_tiles", max_tiles),
    ):  # fmt: skip
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ModalityError(f"{name} is {value!r:.80}; expected a whole number from 1")
    rows, columns = _grid(width, height, tile, max_tiles)
    resized_width, resized_height = _fit(
        width,
        height,
        min(max(width, tile), columns * tile),
        min(max(height, tile), rows * tile),
    )
    return TilePlan(width, height, tile, rows, columns, resized_width, resized_height)


def _grid(width: int, height: int, tile: int, max_tiles: int) -> tuple[int, int]:
    """Rows and columns of the canvas."""
    best, grid = 0.0, (1, 1)
    # The smallest area comes first, so only a better scale may take its place.
    for rows, columns in canvases(max_tiles):
        scale = min(columns * tile / width, rows * tile / height)
        if (1 <= scale < best) if best >= 1 else scale > best:
            best, grid = scale, (rows, columns)
    return grid


def _fit(width: int, height: int, wide: int, high: int) -> tuple[int, int]:
    """The largest size of the picture's shape within ``wide x high``, at least one pixel."""
    across, down = wide / width, high / height
    if across < down:
        return wide, max(1, min(math.floor(height * across), high))
    return max(1, min(math.floor(width * down), wide)), high
