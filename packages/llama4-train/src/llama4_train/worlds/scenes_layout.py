"""Scenes: coloured shapes that do not touch, in different cells of a grid of 3 x 3."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from llama4_train.worlds.pictures import Box, mask
from llama4_train.worlds.streams import Stream
from llama4_train.worlds.targets import SCALE, Corners

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

GRID = 3

CELLS = (
    "top left",
    "top",
    "top right",
    "left",
    "centre",
    "right",
    "bottom left",
    "bottom",
    "bottom right",
)
"""Names of the cells, row by row."""

GAP = 1
"""Pixels of background between two things, at least."""

TRIES = 6
"""Places that are tried for a thing, and again when it was made as small as it may be."""


@dataclass(frozen=True, slots=True)
class Thing:
    """A coloured shape in a picture.

    Attributes:
        colour, shape: names.
        size: of its mask, see :func:`~llama4_train.worlds.pictures.mask`.
        box: its outermost pixels.
        cell: number of the cell that its middle is in, row by row.
    """

    colour: str
    shape: str
    size: int
    box: Box
    cell: int

    @property
    def name(self) -> str:
        """Colour and shape."""
        return f"{self.colour} {self.shape}"

    def corners(self, width: int, height: int) -> Corners:
        """The box in thousandths of a picture's width and height."""
        x0, y0, x1, y1 = self.box
        return x0 * SCALE / width, y0 * SCALE / height, x1 * SCALE / width, y1 * SCALE / height


@dataclass(frozen=True, slots=True)
class Scene:
    """Some things and their picture.

    Attributes:
        things: from left to right, those of one column from top to bottom.
        picture: of Pillow, RGB.
    """

    things: tuple[Thing, ...]
    picture: Picture


def layout(
    stream: Stream,
    pairs: Sequence[tuple[str, str]],
    width: int,
    height: int,
    sizes: tuple[int, int],
    margin: int,
) -> tuple[Thing, ...]:
    """Things of the given colours and shapes, placed at random.

    First different cells are drawn, each as likely, so that a position is as likely as any other;
    then a size and a place within the cell. Where a thing does not fit beside the others it becomes
    smaller, and where that does not help all of them move to the middles of their cells.

    Args:
        stream: of random numbers.
        pairs: colour and shape of each; at most as many as there are cells.
        width: of the picture.
        height: of the picture.
        sizes: smallest and largest; the largest leaves 2 pixels of a cell free.
        margin: pixels between a thing's middle and the border to another cell, at least.
    """
    cells = stream.some(range(len(CELLS)), len(pairs))
    drawn = [stream.between(*sizes) for _ in pairs]
    found: list[Thing] = []
    for (colour, shape), cell, size in zip(pairs, cells, drawn, strict=True):
        for attempt in range(2 * TRIES):
            used = size if attempt < TRIES else sizes[0]
            box = _place(stream, shape, used, cell, width, height, margin)
            if all(_apart(box, thing.box) for thing in found):
                found.append(Thing(colour, shape, used, box, cell))
                break
        else:
            found = [
                Thing(*pair, size, _middle(pair[1], size, cell, width, height), cell)
                for pair, cell, size in zip(pairs, cells, drawn, strict=True)
            ]
            break
    return tuple(sorted(found, key=_reading))


def cell_of(box: Box, width: int, height: int) -> int:
    """The cell that the middle of a box is in."""
    column = min(GRID * (box[0] + box[2]) // (2 * width), GRID - 1)
    row = min(GRID * (box[1] + box[3]) // (2 * height), GRID - 1)
    return GRID * row + column


def clear_of_borders(box: Box, width: int, height: int, margin: int) -> bool:
    """Whether the middle of a box is at least ``margin`` pixels from the borders between cells."""
    return all(
        abs((low + high) / 2 - size * border / GRID) >= margin
        for low, high, size in ((box[0], box[2], width), (box[1], box[3], height))
        for border in range(1, GRID)
    )


def _reading(thing: Thing) -> tuple[int, int]:
    return thing.box[0], thing.box[1]


def _place(
    stream: Stream, shape: str, size: int, cell: int, width: int, height: int, margin: int
) -> Box:
    across, down = mask(shape, size).size
    x = _along(stream, across, cell % GRID, width, margin)
    y = _along(stream, down, cell // GRID, height, margin)
    return x, y, x + across, y + down


def _along(stream: Stream, length: int, cell: int, whole: int, margin: int) -> int:
    return stream.between(*_bounds(length, cell, whole, margin))


@lru_cache(maxsize=1 << 12)
def _bounds(length: int, cell: int, whole: int, margin: int) -> tuple[int, int]:
    low = max(0, math.ceil(whole * cell / GRID + margin - length / 2))
    high = min(whole - length, math.floor(whole * (cell + 1) / GRID - margin - length / 2))
    return low, high


def _middle(shape: str, size: int, cell: int, width: int, height: int) -> Box:
    across, down = mask(shape, size).size
    x = round(width * (cell % GRID + 0.5) / GRID - across / 2)
    y = round(height * (cell // GRID + 0.5) / GRID - down / 2)
    return x, y, x + across, y + down


def _apart(one: Box, other: Box) -> bool:
    return (
        one[2] + GAP <= other[0]
        or other[2] + GAP <= one[0]
        or one[3] + GAP <= other[1]
        or other[3] + GAP <= one[1]
    )
