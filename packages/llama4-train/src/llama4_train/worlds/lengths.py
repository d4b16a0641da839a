"""Texts of an exact length in tokens, whatever counts them."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from llama4_train.errors import DataError

Count = Callable[[str], int]
"""Tokens of a text that is tokenised for itself, without a beginning-of-text token."""

NEAR = 40
"""Characters to both sides of the place where a count that grows evenly would have a cut."""


def counter(count: Count | None, tokenizer: str) -> Count:
    """What counts the tokens of a text.

    Args:
        count: a function, or None.
        tokenizer: folder or file of a tokenizer; empty for none. Without either, characters count.

    Raises:
        DataError: both are given, or the folder has no tokenizer.
    """
    if count is not None:
        if tokenizer:
            raise DataError("both count and tokenizer are given; expected one of them")
        return count
    return _tokens(tokenizer) if tokenizer else len


@lru_cache(maxsize=8)
def _tokens(folder: str) -> Count:
    from llama4_core.tokenizers.load import load_tokenizer

    tokenizer = load_tokenizer(folder)
    if tokenizer is None:
        raise DataError(f"{folder} holds no tokenizer; name a folder with a tokenizer.json")
    return lambda text: len(tokenizer.encode(text, bos=False))


@lru_cache(maxsize=1 << 17)
def counted(count: Count, text: str) -> int:
    """``count(text)``, remembered: for lines that come again and again."""
    return count(text)


def added(count: Count, line: str) -> int:
    """Tokens that a line adds behind another: one may hold a line end and what follows it."""
    return counted(count, "\n" + line) - counted(count, "\n")


def cut_to(count: Count, text: str, tokens: int, behind: str = "") -> str | None:
    """The beginning of ``text`` that adds ``tokens`` with a line end behind it, or None.

    Looks near the place where a count that grows evenly would have it: adding a character may add
    two tokens or take one away.

    Args:
        count: what counts.
        text: to be cut.
        tokens: that the beginning and its line end add in front of ``behind``.
        behind: what follows; tokens may reach from one into the other.
    """
    wanted = tokens + (count(behind) if behind else 0)
    low, high = 0, len(text)
    while low < high:
        middle = (low + high) // 2
        if count(text[:middle] + "\n" + behind) < wanted:
            low = middle + 1
        else:
            high = middle
    for near in range(NEAR):
        for at in (low + near, low - near)[: 1 + (near > 0)]:
            if 0 <= at <= len(text) and count(text[:at] + "\n" + behind) == wanted:
                return text[:at] + "\n"
    return None
