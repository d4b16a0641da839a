"""Shapes and colours as pixels: masks that any version of Pillow draws alike."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache
from types import ModuleType
from typing import TYPE_CHECKING

from llama4_train.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 40, 40),
    "green": (40, 150, 60),
    "blue": (40, 80, 220),
    "yellow": (235, 205, 40),
    "orange": (240, 135, 30),
    "purple": (140, 60, 175),
    "cyan": (60, 200, 215),
    "black": (20, 20, 20),
}
"""Red, green and blue of each colour, 0 to 255."""

SHAPES = ("circle", "square", "triangle", "star", "cross", "diamond")

PLURALS = {shape: shape + ("es" if shape.endswith("s") else "s") for shape in SHAPES}

BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "white": (255, 255, 255),
    "silver": (200, 200, 200),
}

_TIPS = 5  # of a star
_INNER = 0.45  # radius of a star's inner corners, of that of its tips: still one piece at 8 pixels

Box = tuple[int, int, int, int]
"""``x0, y0, x1, y1`` in pixels; the last column is ``x1 - 1`` and the last row ``y1 - 1``."""


def pillow() -> ModuleType:
    """Pillow's module of pictures.

    Raises:
        DataError: it is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise DataError(
            "this world draws pictures, which needs Pillow: pip install pillow"
        ) from error
    return Image


@lru_cache(maxsize=1 << 10)
def mask(shape: str, size: int) -> Picture:
    """A shape as a picture of one channel, 255 inside, cut to its outermost pixels.

    A pixel is inside when its centre is, so that there are no half-tones.

    Args:
        shape: one of :data:`SHAPES`.
        size: side in pixels of the square that the shape is drawn in.
    """
    places = [(2 * at + 1) / size - 1 for at in range(size)]
    inside = bytes(255 * _inside(shape, x, y) for y in places for x in places)
    picture = pillow().frombytes("L", (size, size), inside)
    cut: Picture = picture.crop(picture.getbbox())
    return cut


def draw(
    width: int,
    height: int,
    background: tuple[int, int, int],
    things: Iterable[tuple[str, Picture, int, int]],
) -> Picture:
    """A picture of some things.

    Args:
        width: in pixels.
        height: in pixels.
        background: its colour.
        things: colour, mask, and where the left column and the top row of the mask go.
    """
    picture: Picture = pillow().new("RGB", (width, height), background)
    for colour, shape, x, y in things:
        picture.paste(COLOURS[colour], (x, y), shape)
    return picture


def _inside(shape: str, x: float, y: float) -> bool:
    """Whether a place of the square from -1 to 1 belongs to the shape; y grows downwards."""
    if shape == "circle":
        return x * x + y * y <= 1
    if shape == "triangle":
        return abs(x) <= (y + 1) / 2
    if shape == "star":
        return _in_star(x, y)
    if shape == "cross":
        return min(abs(x), abs(y)) <= 1 / 3
    if shape == "diamond":
        return abs(x) + abs(y) <= 1
    return True  # a square


def _in_star(x: float, y: float) -> bool:
    # Within one tenth of the full turn, folded, a star is what lies on the inner side of the line
    # from a tip to its inner corner.
    half = math.pi / _TIPS
    angle = math.atan2(x, -y) % (2 * half)
    angle = min(angle, 2 * half - angle)
    radius = math.hypot(x, y)
    across, along = radius * math.sin(angle), radius * math.cos(angle)
    corner_across, corner_along = _INNER * math.sin(half), _INNER * math.cos(half)
    return along * corner_across + across * (1 - corner_along) <= corner_across
