"""Cutting long texts, so that encoding takes linear time and no library gives up.

The borders are Meta's (``models/llama4/tokenizer.py`` of meta-llama/llama-models), because they
decide ids: every 400,000 characters, and within those after every 25,000 characters of a run that
is all white space or has none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

WINDOW = 400_000
"""Characters that are cut off whatever they are."""

RUN = 25_000
"""Characters of a run without a change between white space and the rest."""

_SPACE = re.compile(r"\s*")
_OTHER = re.compile(r"\S*")


def pieces(text: str, *, window: int = WINDOW, run: int = RUN) -> Iterator[str]:
    """Parts of ``text``, in order; together they are the text.

    A run longer than ``run`` holds a multiple of it, so only runs around multiples are measured:
    for ordinary text this costs next to nothing.

    Args:
        text: of any length.
        window: most characters of a part.
        run: most characters of a run within a part; at least 1.
    """
    for start in range(0, len(text), window):
        yield from _cut(text[start : start + window], run)


def _cut(text: str, run: int) -> Iterator[str]:
    done = end = 0
    for point in range(0, len(text), run):
        if point < end:
            continue  # in the run that was just measured
        kind = _SPACE if text[point].isspace() else _OTHER
        begin = point - _length(kind, text[max(0, point - run) : point][::-1], 0)
        end = point + _length(kind, text, point)
        for border in range(begin + run, end, run):
            yield text[done:border]
            done = border
    if done < len(text):
        yield text[done:]


def _length(kind: re.Pattern[str], text: str, start: int) -> int:
    found = kind.match(text, start)
    return 0 if found is None else found.end() - start
