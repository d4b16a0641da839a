"""Cuts the attention of a segment into rectangles that need no dense mask. Pure integers.

Of every mask composed of Everything, Causal, Chunked, SlidingWindow and SameDocument, the keys
that one query sees are an interval of positions. Cut at chunk boundaries, queries share its
ends, or the ends move by one key per query; those are the shapes of a :class:`Piece`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from llama4_core.errors import ComponentError
from llama4_core.protocols.attention import Segment
from llama4_core.protocols.masks import (
    Causal,
    Chunked,
    Everything,
    Mask,
    SameDocument,
    SlidingWindow,
    parts_of,
)

# Queries per block of a sliding window: the block's mask is [256, 256 + window - 1]. More queries
# share more keys but compute more scores that the mask throws away.
WINDOW_QUERIES = 256


@dataclass(frozen=True)
class Piece:
    """Some queries of a segment, and every key that one of them sees.

    With i counted from the first query and j from the first key of the piece, query i sees key j
    if ``(not causal or j - i <= keys - queries) and (not banded or j >= i)``. So a causal piece is
    aligned at the bottom right: its first ``keys - queries`` keys are seen by all of its queries.

    Attributes:
        query: index of the first query within the segment.
        queries: number of queries, T.
        key: index of the first key within the segment.
        keys: number of keys, S.
        causal: the end of the visible interval moves with the query.
        banded: so does its start.
    """

    query: int
    queries: int
    key: int
    keys: int
    causal: bool
    banded: bool = False


def pieces_of(segment: Segment, mask: Mask, window_queries: int = WINDOW_QUERIES) -> list[Piece]:
    """The pieces of one segment: each query is in exactly one, queries ascending.

    Raises:
        ComponentError: the mask has a kind other than the five named above.
    """
    causal, chunks, window = _read(mask)
    key_end = segment.key_start + segment.key_length
    pieces = []
    for start, stop in _runs(segment.query_start, segment.query_length, chunks):
        low, high = segment.key_start, key_end
        for chunk in chunks:
            low = max(low, start // chunk * chunk)
            high = min(high, (start // chunk + 1) * chunk)
        if window is not None and not causal:
            for first in range(start, stop, window_queries):
                last = min(first + window_queries, stop)
                pieces += _open_window(segment, first, last, low, high, window)
            continue
        # The first `window` queries after `low` see everything from `low` on.
        plain = stop if window is None else min(stop, max(start, low + window))
        if start < plain:
            pieces.append(_piece(segment, start, plain, low, plain if causal else high, causal))
        if window is not None:
            for first in range(plain, stop, window_queries):
                last = min(first + window_queries, stop)
                piece = _piece(segment, first, last, first - window + 1, last, True, banded=True)
                pieces.append(piece)
    return pieces


def _read(mask: Mask) -> tuple[bool, list[int], int | None]:
    causal, chunks, window = False, [], None
    for part in parts_of(mask):
        if isinstance(part, Causal):
            causal = True
        elif isinstance(part, Chunked):
            chunks.append(part.size)
        elif isinstance(part, SlidingWindow):
            window = part.size if window is None else min(window, part.size)
        elif not isinstance(part, Everything | SameDocument):
            raise ComponentError(
                f"cannot cut the mask {part!r} into pieces; expected a combination of Everything, "
                "Causal, Chunked, SlidingWindow and SameDocument: use the eager or flex backend"
            )
    return causal, chunks, window


def _runs(start: int, length: int, chunks: list[int]) -> Iterator[tuple[int, int]]:
    """Cuts the query positions where any of the chunk sizes has a boundary."""
    stop = start + length
    while start < stop:
        end = min([stop] + [(start // chunk + 1) * chunk for chunk in chunks])
        yield start, end
        start = end


def _piece(
    segment: Segment,
    first: int,
    last: int,
    low: int,
    high: int,
    causal: bool,
    banded: bool = False,
) -> Piece:
    """The piece of query positions first..last-1 and key positions low..high-1."""
    piece = Piece(
        query=first - segment.query_start,
        queries=last - first,
        key=low - segment.key_start,
        keys=high - low,
        causal=causal,
        banded=banded,
    )
    return _without_band(piece)


def _without_band(piece: Piece) -> Piece:
    """A single query sees one interval: neither of its ends moves."""
    if piece.queries == 1 and (piece.causal or piece.banded):
        return Piece(piece.query, 1, piece.key, piece.keys, causal=False)
    return piece


def _open_window(
    segment: Segment, first: int, last: int, low: int, high: int, window: int
) -> list[Piece]:
    """A window without Causal: the start of the interval moves, its end does not."""
    plain = min(last, max(first, low + window))
    pieces = []
    if first < plain:
        pieces.append(_piece(segment, first, plain, low, high, False))
    if plain < last:
        pieces.append(_piece(segment, plain, last, plain - window + 1, high, False, banded=True))
    return pieces
