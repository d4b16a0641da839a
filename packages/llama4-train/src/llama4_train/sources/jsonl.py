"""The data sources ``jsonl``, ``chat-jsonl`` and ``image-text-jsonl``: one JSON object per line."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llama4_train.errors import DataError
from llama4_train.protocols import Record
from llama4_train.sources.files import files_of, fingerprint_of
from llama4_train.sources.finite import Finite, Joined
from llama4_train.sources.index import Index, lines
from llama4_train.sources.rows import ChatRow, ReadRow, TextRow, row_reader
from llama4_train.sources.text import decoded

Files = str | Path | Sequence[str | Path]

_DOT = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
)


class Jsonl(Finite[Record]):
    """Texts in a field of JSON lines; the loss is on all of each.

    Args:
        files: path, glob, or a list of them.
        field: that holds the text.
        epochs: how often all is read; 0 for without end.
        shuffle: another order in each epoch.
        seed: of the orders.

    Raises:
        DataError: a setting is wrong, a file is missing, or there is no line.
    """

    def __init__(
        self,
        files: Files,
        field: str = "text",
        epochs: int = 1,
        shuffle: bool = False,
        seed: int = 0,
    ) -> None:
        if not isinstance(field, str) or not field:
            raise DataError(f"field is {field!r:.80}; expected the name of the field with the text")
        super().__init__(json_lines(files, TextRow(field)), epochs, shuffle, seed)

    @staticmethod
    def sample_settings(folder: Path) -> Mapping[str, Any]:
        """See :class:`~llama4_train.protocols.DataSource`."""
        return _sample(folder, [{"text": f"text {number}"} for number in range(11)])

    @staticmethod
    def damage(folder: Path) -> str:
        """See :class:`~llama4_train.protocols.DataSource`."""
        return _damaged(folder)


class ChatJsonl(Finite[Record]):
    """Conversations in OpenAI's form, ``{"messages": [...], "tools": [...]}`` in each line.

    The loss is on what the assistant says: its texts, its calls, and the end of its turns.

    Args:
        files: path, glob, or a list of them. Pictures are looked for relative to a file's folder.
        messages: field of the messages.
        tools: field of the tools on offer; may be missing in a line.
        epochs: how often all is read; 0 for without end.
        shuffle: another order in each epoch.
        seed: of the orders.

    Raises:
        DataError: a setting is wrong, a file is missing, or there is no line.
    """

    def __init__(
        self,
        files: Files,
        messages: str = "messages",
        tools: str = "tools",
        epochs: int = 1,
        shuffle: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(json_lines(files, ChatRow(messages, tools)), epochs, shuffle, seed)

    @staticmethod
    def sample_settings(folder: Path) -> Mapping[str, Any]:
        """See :class:`~llama4_train.protocols.DataSource`."""
        rows = [
            {
                "messages": [
                    {"role": "user", "content": f"say {number}"},
                    {"role": "assistant", "content": str(number)},
                ]
            }
            for number in range(11)
        ]
        return _sample(folder, rows)

    @staticmethod
    def damage(folder: Path) -> str:
        """See :class:`~llama4_train.protocols.DataSource`."""
        return _damaged(folder)


class ImageTextJsonl(Finite[Record]):
    """Pictures or films, and words about them, in JSON lines.

    ``{"image": "a.png", "text": "a caption"}``, ``{"image": ..., "question": ..., "answer": ...}``
    or ``{"image": ..., "questions": [{"question": ..., "answer": ...}, ...]}``; ``image`` may be a
    list, and ``video`` stand in its place. See :class:`~llama4_train.sources.rows.PictureRow`.

    Args:
        files: path, glob, or a list of them. Pictures are looked for relative to a file's folder.
        columns: names of the fields, where they are others: ``{"text": "caption"}``.
        epochs: how often all is read; 0 for without end.
        shuffle: another order in each epoch.
        seed: of the orders.

    Raises:
        DataError: a setting is wrong, a file is missing, or there is no line.
    """

    def __init__(
        self,
        files: Files,
        columns: Mapping[str, str] | None = None,
        epochs: int = 1,
        shuffle: bool = False,
        seed: int = 0,
    ) -> None:
        read = row_reader("image-text", columns or {})
        super().__init__(json_lines(files, read), epochs, shuffle, seed)

    @staticmethod
    def sample_settings(folder: Path) -> Mapping[str, Any]:
        """See :class:`~llama4_train.protocols.DataSource`."""
        (folder / "dot.png").write_bytes(_DOT)
        rows = [{"image": "dot.png", "text": f"dot {number}"} for number in range(11)]
        rows[3] = {"image": "dot.png", "question": "what is it?", "answer": "a dot"}
        return _sample(folder, rows)

    @staticmethod
    def damage(folder: Path) -> str:
        """See :class:`~llama4_train.protocols.DataSource`."""
        return _damaged(folder)


def json_lines(files: Files, read: ReadRow) -> Joined[Record]:
    """The lines of files as records.

    Raises:
        DataError: a file is missing or damaged as a whole, or there is no line.
    """
    paths = files_of(files)
    rows = [_Lines(Index(path, lines), read) for path in paths]
    if not any(map(len, rows)):
        raise DataError(f"{', '.join(map(str, paths[:4]))}: nothing but white space in there")
    return Joined(rows, fingerprint_of(paths, read))


class _Lines:
    """Lines of one file."""

    blocks = ()
    fingerprint = ""

    def __init__(self, index: Index, read: ReadRow) -> None:
        self._index = index
        self._read = read

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, number: int) -> Record:
        found = self._index[number]
        origin = f"{self._index.path}, line {found.line}"
        try:
            row = json.loads(decoded(found.content, origin))
        except DataError:
            raise
        except (ValueError, RecursionError) as error:
            raise DataError(f"{origin}: is no valid JSON ({error})") from error
        if not isinstance(row, dict):
            raise DataError(f"{origin}: holds a {type(row).__name__}; expected a JSON object")
        return self._read(row, origin, self._index.path.parent)


def _sample(folder: Path, rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    for name, part in (("a.jsonl", rows[:4]), ("b.jsonl", rows[4:])):
        text = "".join(json.dumps(row) + "\n" for row in part)
        (folder / name).write_text(text, encoding="utf-8")
    return {"files": [str(folder / "a.jsonl"), str(folder / "b.jsonl")]}


def _damaged(folder: Path) -> str:
    path = folder / "b.jsonl"
    rows = path.read_text(encoding="utf-8").split("\n")
    rows[2] = rows[2][:-3]
    path.write_text("\n".join(rows), encoding="utf-8")
    return "b.jsonl, line 3"
