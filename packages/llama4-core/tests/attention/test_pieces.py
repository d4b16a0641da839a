"""The cutting of masks into pieces, against the masks' own brute-force definition."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama4_core.attention.pieces import Piece, pieces_of
from llama4_core.errors import ComponentError
from llama4_core.protocols.attention import Segment
from llama4_core.protocols.masks import (
    Causal,
    Chunked,
    Everything,
    Place,
    SameDocument,
    SlidingWindow,
)

from .batches import masks, segments


def brute(segment, mask):
    """The visible pairs of (query, key) indices within the segment."""
    return {
        (query, key)
        for query in range(segment.query_length)
        for key in range(segment.key_length)
        if mask.visible(Place(segment.query_start + query, 0), Place(segment.key_start + key, 0))
    }


def pairs(pieces):
    found = []
    for piece in pieces:
        for i in range(piece.queries):
            for j in range(piece.keys):
                behind = not piece.causal or j - i <= piece.keys - piece.queries
                if behind and (not piece.banded or j >= i):
                    found.append((piece.query + i, piece.key + j))
    return found


# Integers only, so many examples are cheap: every composition of the masks has to come up.
@settings(max_examples=300)
@given(segments(), masks(), st.integers(1, 9))
def test_pieces_are_exactly_what_the_mask_shows(segment, mask, window_queries):
    pieces = pieces_of(segment, mask, window_queries)
    found = pairs(pieces)
    assert len(found) == len(set(found))
    assert set(found) == brute(segment, mask)
    rows = [piece.query + i for piece in pieces for i in range(piece.queries)]
    assert rows == list(range(segment.query_length))
    for piece in pieces:
        assert piece.key >= 0
        assert piece.keys >= 1
        assert piece.key + piece.keys <= segment.key_length


@pytest.mark.parametrize(
    ("start", "length", "expected"),
    [
        (0, 4, [Piece(0, 4, 0, 4, True)]),
        (0, 5, [Piece(0, 4, 0, 4, True), Piece(4, 1, 4, 1, False)]),
        (3, 2, [Piece(0, 1, 0, 4, False), Piece(1, 1, 4, 1, False)]),
        (4, 1, [Piece(0, 1, 4, 1, False)]),
        (6, 3, [Piece(0, 2, 4, 4, True), Piece(2, 1, 8, 1, False)]),
    ],
)
def test_chunk_boundaries(start, length, expected):
    segment = Segment(start, length, 0, start + length)
    assert pieces_of(segment, Causal() & Chunked(4) & SameDocument()) == expected


def test_keys_before_the_horizon_are_ignored():
    segment = Segment(query_start=9, query_length=2, key_start=2, key_length=9)
    assert pieces_of(segment, Causal() & Chunked(4)) == [Piece(0, 2, 6, 3, True)]


def test_a_window_is_blocks_that_share_a_shape():
    pieces = pieces_of(Segment(0, 1000, 0, 1000), Causal() & SlidingWindow(100))
    assert pieces[0] == Piece(0, 100, 0, 100, True)
    assert {(piece.queries, piece.keys) for piece in pieces[1:-1]} == {(256, 355)}
    assert all(piece.banded for piece in pieces[1:])


def test_a_window_without_causal_is_open_to_the_right():
    pieces = pieces_of(Segment(4, 3, 0, 7), SlidingWindow(2))
    assert pieces == [Piece(0, 3, 3, 4, causal=False, banded=True)]
    assert set(pairs(pieces)) == brute(Segment(4, 3, 0, 7), SlidingWindow(2))


def test_everything_is_one_piece():
    assert pieces_of(Segment(0, 7, 0, 7), Everything() & SameDocument()) == [
        Piece(0, 7, 0, 7, False)
    ]


def test_an_unknown_mask_is_refused_with_the_backends_that_take_it():
    @dataclass(frozen=True)
    class Odd:
        def visible(self, query, key):
            return True

        def horizon(self, position):
            return 0

    with pytest.raises(ComponentError, match=r"Odd.*expected.*use the eager or flex"):
        pieces_of(Segment(0, 1, 0, 1), Odd())
