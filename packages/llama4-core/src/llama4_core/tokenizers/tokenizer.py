"""The contract of a tokenizer, and the decoder that turns a stream of ids into whole characters."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from llama4_core.errors import TokenizerError

REPLACEMENT = "\ufffd".encode()
"""What an id without an entry adds to the text."""


def checked_text(text: str) -> None:
    """Refuses what is no text of Unicode.

    Raises:
        TokenizerError: not a string, or one with a lone surrogate.
    """
    if not isinstance(text, str):
        raise TokenizerError(f"the text is a {type(text).__name__}; expected a string")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise TokenizerError(
            f"the text holds a lone surrogate at character {error.start}, which is not valid "
            "Unicode; replace it first, e.g. text.encode('utf-8', 'replace').decode()"
        ) from error


class StreamDecoder:
    """Decodes ids one at a time without ever splitting a character.

    A token may hold any part of a character's UTF-8 bytes; they wait here until the character is
    complete. What :meth:`feed` and :meth:`finish` return concatenates to the decoding of all ids at
    once: invalid bytes become U+FFFD in the same places.

    Args:
        token_bytes: the bytes that an id adds to the text.
    """

    def __init__(self, token_bytes: Callable[[int], bytes]) -> None:
        self._token_bytes = token_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token: int) -> str:
        """The characters that ``token`` completes, possibly none."""
        return self._decoder.decode(self._token_bytes(token))

    def finish(self) -> str:
        """U+FFFD if the bytes of an incomplete character are left, else nothing."""
        return self._decoder.decode(b"", final=True)


class Tokenizer(Protocol):
    """Text to ids and back.

    Attributes:
        vocabulary: largest id plus 1.
        bos: the beginning-of-text id, or None.
        specials: special tokens by their spelling, e.g. ``{"<|eot|>": 200008}``.
    """

    @property
    def vocabulary(self) -> int:
        """Largest id plus 1."""

    @property
    def bos(self) -> int | None:
        """The beginning-of-text id, or None."""

    @property
    def specials(self) -> Mapping[str, int]:
        """Special tokens by their spelling."""

    def encode(self, text: str, *, bos: bool = True, specials: bool = False) -> list[int]:
        """Ids of ``text``.

        Args:
            text: any Unicode text.
            bos: begin with the beginning-of-text token, where the tokenizer has one.
            specials: let special tokens spelled in ``text`` become their ids. Only for text that
                the program itself wrote: without it nothing that a user types yields a special id.

        Raises:
            TokenizerError: the text cannot be encoded.
        """

    def decode(self, ids: Iterable[int], *, specials: bool = False) -> str:
        """Text of ``ids``; special tokens are spelled out with ``specials``, else left out.

        Invalid UTF-8 becomes U+FFFD, as does an id without an entry (models pad their
        vocabulary).

        Raises:
            TokenizerError: something in ``ids`` is no token id.
        """

    def stream(self, *, specials: bool = False) -> StreamDecoder:
        """A decoder for ids that arrive one at a time."""
