"""Where a film is: a file that is read bit by bit, its bytes, or a folder. No torch here."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Any

from llama4_core.errors import ModalityError
from llama4_vision.images.limits import Limits
from llama4_vision.images.sources import read_bytes

HEAD = 16
"""Bytes at the beginning of a file that tell what it is."""

_ADDRESS = re.compile(r"data:|[a-z][a-z0-9+.-]*://", re.IGNORECASE)


def find(source: Any, limits: Limits) -> Path | bytes:
    """A folder, a file that exists and is small enough, or bytes.

    Raises:
        ModalityError: there is no such file or folder, it cannot be read or is too large, or the
            source is something else.
    """
    if hasattr(source, "tobytes") and hasattr(source, "mode"):
        raise ModalityError(
            "the film is given as one opened picture; expected its file, or a list of pictures"
        )
    name = os.fspath(source) if isinstance(source, str | os.PathLike) else ""
    name = os.fsdecode(name)
    if not name or (isinstance(source, str) and _ADDRESS.match(name)):
        return read_bytes(source, limits)
    path = Path(name)
    try:
        found = path.stat()
    except FileNotFoundError as missing:
        raise ModalityError(
            f"there is no film {name!r:.120}; expected a file, a folder or a list of pictures"
        ) from missing
    except (OSError, ValueError) as problem:
        raise ModalityError(unreadable(path, problem)) from problem
    if stat.S_ISDIR(found.st_mode):
        return path
    if not stat.S_ISREG(found.st_mode):
        raise ModalityError(f"{name!r:.120} is neither a file nor a folder; expected a film")
    if found.st_size > limits.bytes:
        raise ModalityError(
            f"the film has {found.st_size:,} bytes; the limit is {limits.bytes:,}: cut it shorter, "
            "or raise Limits.bytes"
        )
    return path


def head_of(found: Path | bytes) -> bytes:
    """The first :data:`HEAD` bytes.

    Raises:
        ModalityError: the file cannot be read.
    """
    if isinstance(found, bytes):
        return found[:HEAD]
    try:
        with found.open("rb") as file:
            return file.read(HEAD)
    except OSError as problem:
        raise ModalityError(unreadable(found, problem)) from problem


def unreadable(path: Path, problem: Exception) -> str:
    """What is said about a file or folder that cannot be read."""
    reason = getattr(problem, "strerror", None) or problem
    return f"the film {str(path)!r:.120} cannot be read: {reason}; expected a file or a folder"
