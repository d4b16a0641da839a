"""The demo's picture: what it says of its things is what its pixels show."""

from __future__ import annotations

import struct
import zlib

import pytest

from llama4_core.demo.picture import COLOURS, SIDE, THINGS, Thing, overlap, png

WHITE = (255, 255, 255)


def pixels(file: bytes) -> list[list[tuple[int, ...]]]:
    """The pixels of a PNG that filters nothing, by row."""
    assert file[:8] == b"\x89PNG\r\n\x1a\n"
    at, chunks = 8, {}
    while at < len(file):
        (size,) = struct.unpack_from(">I", file, at)
        name, data = file[at + 4 : at + 8], file[at + 8 : at + 8 + size]
        assert struct.unpack_from(">I", file, at + 8 + size)[0] == zlib.crc32(name + data)
        chunks[name] = data
        at += 12 + size
    width, height = struct.unpack_from(">II", chunks[b"IHDR"])
    raw = zlib.decompress(chunks[b"IDAT"])
    assert len(raw) == height * (1 + 3 * width)
    rows = [raw[y * (1 + 3 * width) :][: 1 + 3 * width] for y in range(height)]
    assert all(row[0] == 0 for row in rows)
    return [[tuple(row[1 + 3 * x : 4 + 3 * x]) for x in range(width)] for row in rows]


@pytest.mark.parametrize("thing", THINGS, ids=lambda thing: thing.name)
def test_a_box_holds_all_pixels_of_its_thing_and_touches_them(thing: Thing) -> None:
    """Of the file: the outermost pixels of a colour are the edges of its box."""
    rows = pixels(png())
    places = [
        (x, y)
        for y, row in enumerate(rows)
        for x, c in enumerate(row)
        if c == COLOURS[thing.colour]
    ]
    columns, lines = [x for x, _ in places], [y for _, y in places]
    edges = (min(columns), min(lines), max(columns) + 1, max(lines) + 1)
    assert thing.box == tuple(1000 * edge / SIDE for edge in edges)
    middle = ((edges[0] + edges[2]) // 2 * 3 // SIDE, (edges[1] + edges[3]) // 2 * 3 // SIDE)
    names = {(0, 0): "top left", (2, 1): "right", (1, 2): "bottom"}
    assert thing.cell == names[middle]


def test_a_larger_copy_shows_the_same() -> None:
    """Every pixel becomes a block."""
    small, large = pixels(png()), pixels(png(scale=3))
    assert len(large) == 3 * SIDE
    assert large == [[c for c in row for _ in range(3)] for row in small for _ in range(3)]
    assert {c for row in small for c in row} == {WHITE, *COLOURS.values()}


def test_overlap_by_hand() -> None:
    """A quarter shared of two squares, none, and all."""
    assert overlap((0, 0, 2, 2), (1, 1, 3, 3)) == pytest.approx(1 / 7)
    assert overlap((0, 0, 1, 1), (1, 0, 2, 1)) == 0
    assert overlap((0, 0, 2, 3), (0, 0, 2, 3)) == 1
    assert overlap((1, 1, 1, 1), (1, 1, 1, 1)) == 0
