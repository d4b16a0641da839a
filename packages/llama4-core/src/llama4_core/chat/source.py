"""Text that arrives in chunks, read with patterns as if it were whole."""

from __future__ import annotations

import re
from collections.abc import Generator

Reading = Generator[None, None, str]

_SPACE = re.compile(r"[ \t\r\n]*+")
_WORD = re.compile(r"""[^\s\[\](){}"',:=<;]{1,400}+""")
_BODIES = {
    # What a string holds, per delimiter. Where a chunk ends after a backslash or within three
    # quotes nothing is decided, so these stop there.
    '"': re.compile(r'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL),
    "'": re.compile(r"[^'\\]*+(?:\\.[^'\\]*+)*+", re.DOTALL),
    '"""': re.compile(r'[^"\\]*+(?:(?:\\.|"{1,2}+(?=[^"]))[^"\\]*+)*+', re.DOTALL),
    "'''": re.compile(r"[^'\\]*+(?:(?:\\.|'{1,2}+(?=[^']))[^'\\]*+)*+", re.DOTALL),
}


class Source:
    """A window on the text.

    What was read since :meth:`mark` can be had back as :meth:`raw`. A method that needs more text
    than there is yields; whoever drives the reader then calls :meth:`feed` or :meth:`end` and goes
    on. Each character is looked at a bounded number of times, whatever the chunks.

    Attributes:
        text: the window.
        at: index of the next character in it.
        ended: whether nothing follows the window.
    """

    def __init__(self) -> None:
        self.text = ""
        self.at = 0
        self.ended = False
        self._marked = 0
        self._kept: list[str] = []

    def feed(self, chunk: str) -> None:
        """Appends ``chunk``; what was read already leaves the window."""
        if self.at > self._marked:
            self._kept.append(self.text[self._marked : self.at])
        self.text = self.text[self.at :] + chunk
        self.at = self._marked = 0

    def end(self) -> None:
        """Says that no more text comes."""
        self.ended = True

    def mark(self) -> None:
        """Forgets what was read so far."""
        self._kept.clear()
        self._marked = self.at

    def raw(self) -> str:
        """What was read since the mark, character by character."""
        return "".join(self._kept) + self.text[self._marked : self.at]

    def symbol(self) -> Reading:
        """Skips whitespace and returns the next character, unread; "" at the end."""
        while True:
            text, at = self.text, self.at
            if at < len(text):
                character = text[at]
                if character not in " \t\r\n":
                    return character
                self.at = _SPACE.match(text, at).end()  # type: ignore[union-attr]
            elif self.ended:
                return ""
            else:
                yield

    def word(self) -> Reading:
        """Reads a number, a constant or an identifier, at most 400 characters; "" if there is none.

        The word ends before whitespace, brackets, quotes, and ``, : = < ;``.
        """
        while True:
            match = _WORD.match(self.text, self.at)
            end = match.end() if match else self.at
            if end < len(self.text) or self.ended:
                found = self.text[self.at : end]
                self.at = end
                return found
            yield

    def literal(self, expected: str) -> Generator[None, None, bool]:
        """Reads ``expected`` if it is what follows."""
        while True:
            if self.text.startswith(expected, self.at):
                self.at += len(expected)
                return True
            rest = self.text[self.at : self.at + len(expected)]
            if self.ended or not expected.startswith(rest):
                return False
            yield

    def quoted(self) -> Generator[None, None, tuple[str, str] | None]:
        """Reads a string whose opening quote is next; returns what it holds, and its delimiter.

        One quote or three, ``"`` or ``'``. Escapes are left as they are. None when the text ends
        within the string.
        """
        quote = self.text[self.at]
        # Two quotes may be an empty string, or the front of three.
        while not self.ended and self.text[self.at : self.at + 3] in (quote, quote * 2):
            yield
        delimiter = quote * 3 if self.text.startswith(quote * 3, self.at) else quote
        self.at += len(delimiter)
        body = _BODIES[delimiter]
        pieces = []
        while True:
            end = body.match(self.text, self.at).end()  # type: ignore[union-attr]
            pieces.append(self.text[self.at : end])
            self.at = end
            if self.text.startswith(delimiter, end):
                self.at += len(delimiter)
                return "".join(pieces), delimiter
            if self.ended:
                return None
            yield
