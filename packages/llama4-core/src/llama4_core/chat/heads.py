"""Where a tool call may begin, as patterns: each for the whole beginning, and for one cut short.

Every pattern takes linear time: repeats are possessive and bounded, and what one attempt reads
cannot be read again by more than a fixed number of later ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from llama4_core.chat.messages import NAME

FORMS = ("pythonic", "json", "function")
"""``[f(a=1)]``; ``{"name": ..., "parameters": ...}``; ``<function=f>{...}</function>``."""

LONGEST = 640
"""More characters than the longest beginning has."""

PYTHON_START = "<|python_start|>"
PYTHON_END = "<|python_end|>"

_SPACE = r"[ \t\r\n]{0,64}+"
_HEADS: dict[str, tuple[tuple[str, ...], ...]] = {
    "pythonic": ((r"\[", _SPACE, NAME, _SPACE, r"\("),),
    # A list of objects before a single one: at the same place the list is the longer beginning.
    "json": ((r"\[", _SPACE, r"\{", _SPACE, '"'), (r"\{", _SPACE, '"')),
    "function": ((*"<function=", NAME, ">"),),
}
_START = (*(re.escape(character) for character in PYTHON_START), _SPACE)
_END = (_SPACE, *(re.escape(character) for character in PYTHON_END))
_SEPARATOR = (_SPACE, "[;,]?+", _SPACE)


class Heads:
    """The patterns for some forms.

    Attributes:
        head: a beginning. It ends with "(", '"' or ">", which tells the forms apart.
        cut_head: what may become a beginning, at the end of the text.
        end: the marker that closes calls, whitespace before it included.
        cut_end: what may become that, up to the end of the text.
        next: a further beginning right after a call, with what separates them.
        cut_next: what may become that, up to the end of the text.
    """

    def __init__(self, forms: Iterable[str]) -> None:
        bare = [body for form in FORMS if form in forms for body in _HEADS[form]]
        # Few alternatives, each beginning with one character: the search skips at full speed.
        forms_alone = "|".join("".join(body) for body in bare)
        whole = f"{''.join(_START)}(?:{forms_alone})|{forms_alone}"
        cut = "|".join([*(_cut((*_START, *body)) for body in bare), *map(_cut, bare)])
        self.head = re.compile(whole)
        self.cut_head = re.compile(rf"(?:{cut})\Z")
        self.next = re.compile(f"{''.join(_SEPARATOR)}(?:{whole})")
        self.cut_next = re.compile(rf"{''.join(_SEPARATOR)}(?:{cut})?\Z")
        self.end = re.compile("".join(_END))
        self.cut_end = re.compile(rf"(?:{_cut(_END)})\Z")


def _cut(parts: tuple[str, ...]) -> str:
    """A pattern for the fronts of ``parts``, all but the whole."""
    found = ""
    for part in reversed(parts[:-1]):
        found = f"{part}(?:{found})?" if found else part
    return found


@lru_cache(maxsize=16)
def heads(forms: tuple[str, ...]) -> Heads:
    """The patterns for ``forms``, compiled once."""
    return Heads(forms)
