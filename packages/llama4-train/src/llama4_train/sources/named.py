"""Data sources by what stands on a command line: a file, a glob, or ``hf:REPO``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama4_train.errors import DataError
from llama4_train.sources.hub import PREFIX
from llama4_train.sources.rows import READERS

_JSON = {"text": "jsonl", "chat": "chat-jsonl", "image-text": "image-text-jsonl"}


def sources_named(
    words: Sequence[str], rows: str = "text", field: str | None = None
) -> list[tuple[str, dict[str, Any]]]:
    """Component and settings for each of ``words``, by its beginning or its suffix.

    Args:
        words: ``hf:REPO``; a path or glob that ends in ``.jsonl`` or ``.parquet``; anything else
            is a path or glob of files of text.
        rows: what rows of tables and JSON lines hold: "text", "chat" or "image-text".
        field: with the text, where it is not "text".

    Raises:
        DataError: there is no such kind of rows, or a field of other rows than text.
    """
    if rows not in READERS:
        raise DataError(f"rows are {rows!r:.80}; expected one of {', '.join(READERS)}")
    if field is not None and rows != "text":
        raise DataError(f"the field {field!r:.80} was named, which only rows of text have")
    found: list[tuple[str, dict[str, Any]]] = []
    for word in words:
        table: dict[str, Any] = {"rows": rows}
        if field is not None:
            table["columns"] = {"field": field}
        if word.startswith(PREFIX):
            found.append(("hub", {"repo": word, **table}))
        elif word.endswith(".parquet"):
            found.append(("parquet", {"files": word, **table}))
        elif word.endswith(".jsonl"):
            settings = {"files": word}
            if field is not None:
                settings["field"] = field
            found.append((_JSON[rows], settings))
        else:
            found.append(("text", {"files": word}))
    return found
