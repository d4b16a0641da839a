"""The data source ``text``: files of running text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llama4_core.chat.messages import Text as TextPart
from llama4_core.specs.suggest import nearest
from llama4_train.errors import DataError
from llama4_train.protocols import Piece, Record
from llama4_train.sources.files import files_of, fingerprint_of
from llama4_train.sources.finite import Finite, Joined
from llama4_train.sources.index import Index, documents

ENDS = ("file", "blank-line", "line")
"""Where a document may end."""

SHORTEST = 64
"""Least bytes of ``longest``."""


class Text(Finite[Record]):
    """Documents of text files in UTF-8; the loss is on all of each.

    Files are read once at the start, to find where documents begin; the text is not kept.

    Args:
        files: path, glob, or a list of them.
        until: where a document ends: with its "file", with a "blank-line", or with its "line".
        longest: in bytes; longer documents come in pieces of whole lines where they have lines, so
            that nothing of a long file is cut off. None for whole documents.
        epochs: how often all is read; 0 for without end.
        shuffle: another order in each epoch.
        seed: of the orders.

    Raises:
        DataError: a setting is wrong, a file is missing, or there is no text.
    """

    def __init__(
        self,
        files: str | Path | Sequence[str | Path],
        until: str = "file",
        longest: int | None = None,
        epochs: int = 1,
        shuffle: bool = False,
        seed: int = 0,
    ) -> None:
        if until not in ENDS:
            raise DataError(
                f"until is {until!r:.80}{nearest(until, ENDS)}; expected one of {', '.join(ENDS)}"
            )
        if longest is not None and (type(longest) is not int or longest < SHORTEST):
            raise DataError(
                f"longest is {longest!r:.80}; expected at least {SHORTEST} bytes, or None"
            )
        paths = files_of(files)
        split = documents(until, longest)
        rows = [_Documents(Index(path, split)) for path in paths]
        if not any(map(len, rows)):
            raise DataError(f"{', '.join(map(str, paths[:4]))}: nothing but white space in there")
        about = ("text", until, longest)
        super().__init__(Joined(rows, fingerprint_of(paths, about)), epochs, shuffle, seed)

    @staticmethod
    def sample_settings(folder: Path) -> Mapping[str, Any]:
        """See :class:`~llama4_train.protocols.DataSource`."""
        for name in ("a", "b"):
            text = "\n\n".join(f"{name}{number}\nsecond" for number in range(7))
            (folder / f"{name}.txt").write_text(text, encoding="utf-8")
        return {"files": str(folder / "*.txt"), "until": "blank-line"}

    @staticmethod
    def damage(folder: Path) -> str:
        """See :class:`~llama4_train.protocols.DataSource`."""
        path = folder / "b.txt"
        path.write_bytes(path.read_bytes().replace(b"b2", b"b\xff"))
        return "b.txt, line 7"


class _Documents:
    """Documents of one file."""

    blocks = ()
    fingerprint = ""

    def __init__(self, index: Index) -> None:
        self._index = index

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, number: int) -> Record:
        found = self._index[number]
        origin = f"{self._index.path}, line {found.line}"
        return Record(pieces=(Piece(TextPart(decoded(found.content, origin))),), origin=origin)


def decoded(content: bytes, origin: str) -> str:
    """Text of UTF-8.

    Raises:
        DataError: it is no UTF-8; names the origin.
    """
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{origin}: byte {error.start} of what begins there is no UTF-8 ({error.reason}); "
            "convert the file, or skip such records with on_error"
        ) from error
