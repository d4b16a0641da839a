"""The texts of records, as a tokenizer will see them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from llama4_core.chat.format import Llama4Format
from llama4_core.chat.messages import Text
from llama4_core.errors import ChatError
from llama4_train.data.skipping import Skipping
from llama4_train.errors import DataError
from llama4_train.protocols import Record


class Records(Protocol):
    """Records one after the other; a data source, or less than one."""

    def __next__(self) -> Record:
        """The next record."""


def texts_of(record: Record) -> list[str]:
    """All texts of a record; a conversation's as its format writes them, tools included.

    Raises:
        DataError: a conversation is malformed.
    """
    if record.pieces:
        return [piece.part.text for piece in record.pieces if isinstance(piece.part, Text)]
    try:
        written = Llama4Format().render(record.messages, record.tools, generation=False)
    except ChatError as error:
        raise DataError(f"{record.origin or record.source}: {error}") from error
    return [segment for segment in written.segments if isinstance(segment, str)]


def source_texts(
    source: Records, usable: Skipping | None = None, limit: int | None = None
) -> Iterator[str]:
    """The texts of a source's records, until it ends or ``limit`` records were read.

    Args:
        source: of records.
        usable: what to do at a record that cannot be used; it also counts. None to stop there.
        limit: most records; None for all.

    Raises:
        DataError: a source without an end has no limit, gives tokens instead of text, or a record
            cannot be used.
    """
    if limit is None and getattr(source, "endless", False):
        raise DataError("the source never ends; say how many records to read")
    if hasattr(source, "prepare"):
        raise DataError("the source gives tokens; name the source that it keeps the tokens of")
    read = usable or Skipping()
    taken = 0
    while limit is None or taken < limit:
        try:
            yield from read(lambda: texts_of(next(source)))
        except StopIteration:
            return
        taken += 1
