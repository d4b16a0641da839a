"""The special tokens that a small model gets."""

from __future__ import annotations

from collections.abc import Sequence

from llama4_core.specs.suggest import nearest
from llama4_core.tokenizers.specials import (
    BEGIN_OF_TEXT,
    END_OF_TEXT,
    END_OF_TURN,
    PAD,
    SPECIALS,
)
from llama4_train.errors import DataError

SMALL = (
    BEGIN_OF_TEXT,
    END_OF_TEXT,
    "<|header_start|>",
    "<|header_end|>",
    "<|eom|>",
    END_OF_TURN,
    "<|python_start|>",
    "<|python_end|>",
    PAD,
    "<|image_start|>",
    "<|image_end|>",
    "<|tile_x_separator|>",
    "<|tile_y_separator|>",
    "<|image|>",
    "<|patch|>",
)
"""What text, chats, tool calls, padding and pictures need, in the order of Llama 4's vocabulary.

The other 2,033 of its special tokens are reserved, or of uses that a small model does not have."""

CHOICES: dict[str, Sequence[str]] = {"all": SPECIALS, "small": SMALL}
"""The sets by name."""


def specials_named(name: str) -> tuple[str, ...]:
    """The special tokens of a set.

    Raises:
        DataError: there is no such set.
    """
    if name not in CHOICES:
        raise DataError(
            f"specials are {name!r:.80}{nearest(name, CHOICES)}; expected 'all' "
            f"({len(SPECIALS):,}) or 'small' ({len(SMALL)})"
        )
    return tuple(CHOICES[name])
