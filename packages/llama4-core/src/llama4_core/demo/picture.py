"""A small picture of coloured shapes, as a PNG that needs no library to be written.

Colours and shapes are those that the small trained model knows: it was taught by pictures of 64 by
64 pixels, shapes of 12 to 19 pixels on white, each in a cell of its own of a 3 x 3 grid.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

SIDE = 64
"""Pixels of the picture's side."""

COLOURS = {"red": (220, 40, 40), "green": (40, 150, 60), "blue": (40, 80, 220)}

_CELLS = (
    ("top left", "top", "top right"),
    ("left", "centre", "right"),
    ("bottom left", "bottom", "bottom right"),
)
_TIPS, _INNER = 5, 0.45  # of a star: its tips, and its inner radius as a share of the outer


@dataclass(frozen=True)
class Thing:
    """A coloured shape.

    Attributes:
        colour: one of :data:`COLOURS`.
        shape: "circle", "square" or "star".
        left, top: pixels left of it and above it.
        size: side in pixels of the square that it is drawn in.
    """

    colour: str
    shape: str
    left: int
    top: int
    size: int

    @property
    def name(self) -> str:
        """Colour and shape."""
        return f"{self.colour} {self.shape}"

    @property
    def cell(self) -> str:
        """In which of the nine parts of the picture its middle is."""
        row, column = (int((start + self.size / 2) * 3 / SIDE) for start in (self.top, self.left))
        return _CELLS[row][column]

    @property
    def box(self) -> tuple[float, float, float, float]:
        """``x0, y0, x1, y1`` of its outermost pixels, in thousandths of the picture's side."""
        places = [(x, y) for y in range(self.size) for x in range(self.size) if self._covers(x, y)]
        columns, rows = [x for x, _ in places], [y for _, y in places]
        edges = (
            self.left + min(columns),
            self.top + min(rows),
            self.left + max(columns) + 1,
            self.top + max(rows) + 1,
        )
        x0, y0, x1, y1 = (1000 * edge / SIDE for edge in edges)
        return x0, y0, x1, y1

    def holds(self, x: int, y: int) -> bool:
        """Whether a pixel of the picture belongs to it."""
        inside = 0 <= x - self.left < self.size and 0 <= y - self.top < self.size
        return inside and self._covers(x - self.left, y - self.top)

    def _covers(self, x: int, y: int) -> bool:
        across, down = ((2 * at + 1) / self.size - 1 for at in (x, y))
        if self.shape == "circle":
            return across * across + down * down <= 1
        if self.shape == "star":
            return _in_star(across, down)
        return True


THINGS = (
    Thing("red", "circle", 3, 4, 16),
    Thing("blue", "star", 40, 23, 18),
    Thing("green", "square", 24, 46, 15),
)
"""What the demo draws."""


def png(things: Sequence[Thing] = THINGS, scale: int = 1) -> bytes:
    """The file of a picture, 8 bits of red, green and blue for each pixel.

    Args:
        things: in it, on white.
        scale: pixels of the file for each pixel of the picture, across and down.
    """
    lines = []
    for y in range(SIDE):
        line = bytearray(b"\0")  # filtered by nothing
        for x in range(SIDE):
            over = [COLOURS[thing.colour] for thing in things if thing.holds(x, y)]
            line += bytes(over[-1] if over else (255, 255, 255)) * scale
        lines.append(bytes(line) * scale)
    side = SIDE * scale
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = zlib.compress(b"".join(lines))
    chunks = ((b"IHDR", head), (b"IDAT", body), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, data) for name, data in chunks)


def overlap(one: Sequence[float], other: Sequence[float]) -> float:
    """Area that two boxes ``x0, y0, x1, y1`` share, over the area of both together."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0.0) * max(height, 0.0)
    union = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)) - shared
    return shared / union if union > 0 else 0.0


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _in_star(x: float, y: float) -> bool:
    """Folded into a tenth of the turn: inside is inwards of the line from a tip to its corner."""
    half = math.pi / _TIPS
    angle = math.atan2(x, -y) % (2 * half)
    angle = min(angle, 2 * half - angle)
    across, along = math.hypot(x, y) * math.sin(angle), math.hypot(x, y) * math.cos(angle)
    corner_across, corner_along = _INNER * math.sin(half), _INNER * math.cos(half)
    return along * corner_across + across * (1 - corner_along) <= corner_across
