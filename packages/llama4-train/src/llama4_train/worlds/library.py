"""The world ``source``: the sources of Python's own library, found where they are installed.

The one real text of the worlds. It depends on the version of Python that is installed, which
:func:`fingerprint` tells apart.
"""

from __future__ import annotations

import sysconfig
from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from itertools import accumulate
from pathlib import Path
from typing import ClassVar

from llama4_core.chat.messages import Text
from llama4_train.errors import DataError
from llama4_train.protocols import Piece, Record
from llama4_train.worlds.sample import Sample
from llama4_train.worlds.streams import check_number, check_stream, in_split, stream

ONE_IN = 10
"""One file of so many is held out, by the hash of its path in the library."""

LEFT_OUT = frozenset({"site-packages", "dist-packages", "test", "tests", "__pycache__"})
"""Folders without sources of the library itself, or full of tables that tests compare with."""

LONGEST = 120
"""Longer lines are no filler."""


@dataclass(frozen=True)
class Source:
    """Pieces of source text, from a line that is drawn at random on; every character carries loss.

    Attributes:
        seed, split: see :class:`~llama4_train.worlds.sample.World`; a file is in one split only.
        characters: longest piece. It ends with a line, or with the file.

    Raises:
        DataError: a setting is wrong; when sampled: the library has no sources here.
    """

    seed: int = 0
    split: str = "train"
    characters: int = 1000

    name: ClassVar[str] = "source"

    def __post_init__(self) -> None:
        check_stream(self.seed, self.split)
        check_number("characters of source", self.characters, 1, 1 << 24)

    def sample(self, index: int) -> Sample:
        """See :class:`~llama4_train.worlds.sample.World`. Asks nothing."""
        numbers = stream(self.name, self.seed, self.split, index)
        texts, ends = _texts(self.split)
        place = numbers.below(ends[-1])
        at = bisect_right(ends, place)
        path, text = texts[at]
        start = text.rfind("\n", 0, place - (ends[at] - len(text))) + 1
        end = text.rfind("\n", start, start + self.characters) + 1
        if start + self.characters >= len(text):
            end = len(text)
        if end <= start:  # a line longer than a piece
            end = start + self.characters
        line = text.count("\n", 0, start) + 1
        record = Record(
            pieces=(Piece(Text(text[start:end])),), source=self.name, origin=f"{path}, line {line}"
        )
        return Sample(record)


@lru_cache(maxsize=4)
def lines(split: str) -> tuple[str, ...]:
    """Lines of the library's sources for filler: neither empty nor long, ASCII, each with its end.

    Raises:
        DataError: the library has no sources here.
    """
    found = []
    for _, text in _texts(split)[0]:
        for line in text.splitlines():
            # What ends in white space, or is nothing else, would run together with the next line.
            bare = line.rstrip()
            if bare and len(bare) <= LONGEST and bare.isascii() and bare.isprintable():
                found.append(bare + "\n")
    return tuple(found)


def fingerprint() -> str:
    """A hash of all sources: equal where samples of ``source`` and filler are equal."""
    whole = blake2b(digest_size=16)
    for split in ("train", "held-out"):
        for path, text in _texts(split)[0]:
            whole.update(f"{path}\0{text}\0".encode())
    return whole.hexdigest()


@lru_cache(maxsize=4)
def _texts(split: str) -> tuple[tuple[tuple[str, str], ...], tuple[int, ...]]:
    """Paths and texts of the files of a split, sorted, and where each ends in the whole."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    paths = sorted(
        path.relative_to(folder)
        for path in folder.rglob("*.py")
        if not LEFT_OUT.intersection(path.relative_to(folder).parts)
    )
    found = []
    for path in paths:
        if not in_split(path.as_posix(), ONE_IN, split):
            continue
        try:
            text = (folder / path).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a few files of the library declare another encoding
        except OSError as error:
            raise DataError(f"{folder / path} cannot be read: {error.strerror}") from error
        if text:
            found.append((path.as_posix(), text))
    if not found:
        raise DataError(
            f"{folder} holds no sources of Python's library; install Python with its library"
        )
    return tuple(found), tuple(accumulate(len(text) for _, text in found))
