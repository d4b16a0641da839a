"""The files that a data source names."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from pathlib import Path

from llama4_train.errors import DataError

SAMPLED = 1 << 16
"""Bytes at both ends of a file that its fingerprint looks at."""


def files_of(files: str | Path | Sequence[str | Path]) -> tuple[Path, ...]:
    """The files that paths and globs name, each once, those of a glob in the order of their names.

    Args:
        files: one path or glob, or several; ``**`` stands for any folders.

    Raises:
        DataError: nothing is named, a file is missing or empty, a glob matches no file, or a path
            is a folder.
    """
    named = [files] if isinstance(files, str | Path) else files
    if not isinstance(named, Sequence) or not named:
        raise DataError(f"files are {files!r:.80}; expected a path, a glob, or a list of them")
    found: dict[Path, None] = {}
    for one in named:
        if not isinstance(one, str | Path) or not str(one):
            raise DataError(f"one of the files is {one!r:.80}; expected a path or a glob")
        found.update(dict.fromkeys(_named(str(one))))
    return tuple(found)


def _named(name: str) -> Iterable[Path]:
    path = Path(name).expanduser()
    if "\0" in name:
        raise DataError(f"one of the files is {name!r:.80}; expected a path or a glob")
    if path.is_dir():
        raise DataError(f"{path} is a folder; expected files, as in {path / '**' / '*.txt'}")
    if path.exists():
        if not _size(path):
            raise DataError(f"{path} is empty; expected records in it, or leave it out")
        return (path,)
    if not glob.has_magic(name):
        raise DataError(f"{path} does not exist; expected a file with training data")
    matches = [Path(each) for each in sorted(_glob(str(path)))]
    matches = [each for each in matches if each.is_file() and _size(each)]
    if not matches:
        raise DataError(f"no file that is not empty matches {name}; expected at least one")
    return matches


def _glob(pattern: str) -> list[str]:
    # Path.glob takes no absolute patterns, and finds hidden files.
    return glob.glob(pattern, recursive=True)  # noqa: PTH207


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: OSError) -> DataError:
    """What to raise where a file cannot be read."""
    return DataError(f"{path} cannot be read ({error.strerror or error})")


def fingerprint_of(paths: Iterable[Path], settings: object = None) -> str:
    """Of files, by their names, sizes and both ends, and of settings by their ``repr``.

    A change inside a large file that keeps its size is not seen: that would take reading all of it.

    Raises:
        DataError: a file cannot be read.
    """
    digest = blake2b(repr(settings).encode("utf-8", "backslashreplace"), digest_size=8)
    for path in paths:
        try:
            with path.open("rb") as file:
                start = file.read(SAMPLED)
                size = file.seek(0, 2)
                file.seek(max(len(start), size - SAMPLED))
                digest.update(f"{path.name} {size} {len(start)} ".encode("utf-8", "replace"))
                digest.update(start + file.read(SAMPLED))
        except OSError as error:
            raise unreadable(path, error) from error
    return digest.hexdigest()
