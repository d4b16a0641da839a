"""Where the records of a text file begin, without holding the file."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple

from llama4_train.errors import DataError
from llama4_train.sources.files import unreadable

STRIDE = 8
"""The index keeps the place of every eighth record: two bytes for each, and seven to pass over."""

LONGEST = 1 << 26
"""Most bytes of a record, 64 MiB: a file without line ends must not fill the memory."""

_MARK = b"\xef\xbb\xbf"


class Found(NamedTuple):
    """A record in a file.

    Attributes:
        offset: byte that it begins at.
        line: number of its first line, from 1.
        content: its bytes.
    """

    offset: int
    line: int
    content: bytes


Splitter = Callable[[BufferedReader, int], Iterator[Found]]
"""Finds records from where the file stands, which is at the start of a record and of the line whose
number is given; from each of them on it finds the same as from the start of the file."""


class Index:
    """Records of one file by number.

    The file is read once when the index is made, and once for each record that is asked for.

    Args:
        path: of the file.
        split: finds its records.

    Raises:
        DataError: it cannot be read, or a record is too long.
    """

    def __init__(self, path: Path, split: Splitter) -> None:
        self.path = path
        self._split = split
        self._offsets, self._lines = array("Q"), array("Q")
        self._count = 0
        try:
            with path.open("rb") as file:
                if file.read(len(_MARK)) != _MARK:
                    file.seek(0)
                for found in split(file, 1):
                    if self._count % STRIDE == 0:
                        self._offsets.append(found.offset)
                        self._lines.append(found.line)
                    self._count += 1
        except OSError as error:
            raise unreadable(path, error) from error
        except DataError as error:
            raise DataError(f"{path}, {error}") from error

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> Found:
        """One record.

        Raises:
            DataError: the file cannot be read, or has become shorter.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(self._offsets[number // STRIDE])
                records = self._split(file, self._lines[number // STRIDE])
                for _ in range(number % STRIDE):
                    next(records, None)
                found = next(records, None)
        except OSError as error:
            raise unreadable(self.path, error) from error
        if found is None:
            raise DataError(
                f"{self.path} has fewer records than when it was opened; leave the files alone "
                "while they are read"
            )
        return found


def lines(file: BufferedReader, line: int) -> Iterator[Found]:
    """Each line that is not blank, without its end.

    Raises:
        DataError: a line is longer than :data:`LONGEST`.
    """
    for found in _parts(file, line, LONGEST):
        if len(found.content) >= LONGEST:
            raise DataError(
                f"line {found.line} is longer than {LONGEST >> 20} MiB; expected one record in "
                "each line: is this another kind of file?"
            )
        if not found.content.isspace():
            yield found._replace(content=found.content.rstrip(b"\r\n"))


def documents(until: str, longest: int | None) -> Splitter:
    """Finds documents of running text; what is only white space is none.

    Args:
        until: where a document ends: "file", "blank-line", or "line". A document is its bytes,
            without the line end at its own end unless it is a file.
        longest: in bytes; longer documents come in pieces of whole lines, and longer lines in
            pieces of whole characters. None for whole documents.
    """

    def split(file: BufferedReader, line: int) -> Iterator[Found]:
        begun: list[Found] = []
        size = 0
        for part in _parts(file, line, longest or LONGEST):
            blank = until == "blank-line" and part.content.isspace()
            full = longest is not None and size + len(part.content) > longest
            if begun and (blank or full or until == "line"):
                yield _document(begun, strip=blank or until == "line")
                begun, size = [], 0
            if not blank:
                begun.append(part)
                size += len(part.content)
            if longest is None and size >= LONGEST:
                raise DataError(
                    f"line {begun[0].line} begins a document of more than {LONGEST >> 20} MiB; set "
                    "longest, so that it comes in pieces"
                )
        if begun:
            yield _document(begun, strip=until != "file")

    def written(file: BufferedReader, line: int) -> Iterator[Found]:
        return (found for found in split(file, line) if found.content.strip())

    return written


def _document(parts: list[Found], strip: bool) -> Found:
    content = b"".join(part.content for part in parts)
    return parts[0]._replace(content=content.rstrip(b"\r\n") if strip else content)


def _parts(file: BufferedReader, line: int, most: int) -> Iterator[Found]:
    """Lines with their ends; longer ones in parts of at most ``most`` bytes."""
    offset = file.tell()
    while part := file.readline(most):
        if len(part) == most and not part.endswith(b"\n"):
            part = part[: _whole(part)]
            file.seek(offset + len(part))
        yield Found(offset, line, part)
        offset += len(part)
        line += part.endswith(b"\n")


def _whole(part: bytes) -> int:
    """Length of ``part`` without a UTF-8 character that is cut at its end."""
    for back in range(1, min(4, len(part))):
        byte = part[-back]
        if byte >= 0xC0:
            needed = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(part) - back if needed > back else len(part)
        if byte < 0x80:
            break
    return len(part)
