"""Pairs of colour and shape, some of which are kept out of training."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from llama4_train.errors import DataError
from llama4_train.worlds.pictures import COLOURS, SHAPES

ALL_PAIRS = tuple((colour, shape) for colour in COLOURS for shape in SHAPES)

HELD_OUT_PAIRS = (
    ("red", "star"),
    ("green", "circle"),
    ("blue", "triangle"),
    ("yellow", "cross"),
    ("purple", "square"),
    ("cyan", "diamond"),
)
"""One pair for each shape, all of different colours: every colour and shape stays well known."""

PAIRS = ("all", "train", "held-out")


def check_pairs(pairs: Iterable[Iterable[str]]) -> tuple[tuple[str, str], ...]:
    """Pairs as tuples.

    Raises:
        DataError: something is no pair of a known colour and a known shape.
    """
    found = []
    for pair in pairs:
        both = tuple(pair)
        if both not in ALL_PAIRS:
            raise DataError(
                f"a held-out pair is {both!r:.80}; expected a colour of {', '.join(COLOURS)} and a "
                f"shape of {', '.join(SHAPES)}"
            )
        found.append((both[0], both[1]))
    return tuple(found)


@lru_cache(maxsize=64)
def pairs_of(
    split: str, which: str, held_out: tuple[tuple[str, str], ...]
) -> tuple[tuple[str, str], ...]:
    """The pairs that may be used.

    Args:
        split: "train" never gets a held-out pair.
        which: of :data:`PAIRS`.
        held_out: pairs that are kept out of training.

    Raises:
        DataError: held-out pairs are asked of the train split.
    """
    if split == "train" and which == "held-out":
        raise DataError(
            "pairs is 'held-out' in the split 'train', which never shows them; use the split "
            "'held-out'"
        )
    if which == "held-out":
        return held_out
    if split == "train" or which == "train":
        return tuple(pair for pair in ALL_PAIRS if pair not in held_out)
    return ALL_PAIRS
