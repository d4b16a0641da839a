"""From whatever names a picture to the bytes of its file, at most as many as allowed.

Nothing here reaches the network.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import stat
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote_to_bytes

from llama4_core.errors import ModalityError
from llama4_vision.images.limits import Limits, too_many_bytes

SOURCES = "a path, bytes, an open binary file, a 'data:' URL or a Pillow image"
"""What a picture may be given as, for people."""

_DATA = re.compile(r"data:", re.IGNORECASE)
_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


def read_bytes(source: Any, limits: Limits) -> bytes:
    """The bytes of a picture's file.

    Args:
        source: a path, bytes, an open binary file (read from where it stands) or a ``data:`` URL.
        limits: at most ``limits.bytes`` are read, and one more to notice that there are more.

    Raises:
        ModalityError: there is no such file, it cannot be read or is too large, or the source is
            something else.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        size = source.nbytes if isinstance(source, memoryview) else len(source)
        if size > limits.bytes:
            raise ModalityError(too_many_bytes(limits.bytes))
        return bytes(source)
    if isinstance(source, str) and _DATA.match(source):
        return _from_data_url(source, limits)
    if isinstance(source, str) and _URL.match(source):
        raise ModalityError(
            f"the picture {_shown(source)} is a URL, and nothing here reaches the network; "
            "download it first and give the file's path"
        )
    if isinstance(source, str | os.PathLike):
        return _from_path(source, limits)
    if hasattr(source, "read"):
        return _from_file(source, limits)
    raise ModalityError(f"the picture is given as a {type(source).__name__}; expected {SOURCES}")


def _shown(source: Any) -> str:
    """The source in a message: a pasted picture must not fill the screen."""
    text = repr(source)
    return text if len(text) <= 120 else f"{text[:100]}... of {len(text):,} characters"


def _from_path(source: str | os.PathLike[Any], limits: Limits) -> bytes:
    name = os.fspath(source)
    if isinstance(name, bytes):
        name = os.fsdecode(name)
    if not name:
        raise ModalityError(f"the path of the picture is empty; expected {SOURCES}")
    try:
        found = Path(name).stat()
        if stat.S_ISDIR(found.st_mode):
            raise ModalityError(f"the picture {_shown(name)} is a folder; give one file in it")
        # Before it is opened: a large file costs nothing.
        if found.st_size > limits.bytes:
            raise ModalityError(too_many_bytes(limits.bytes))
        with Path(name).open("rb") as file:
            return _from_file(file, limits)
    except FileNotFoundError as missing:
        raise ModalityError(f"there is no picture {_shown(name)}; expected {SOURCES}") from missing
    except (OSError, ValueError) as problem:
        if isinstance(problem, ModalityError):
            raise
        # The text of an OSError would repeat the name.
        reason = getattr(problem, "strerror", None) or problem
        raise ModalityError(f"the picture {_shown(name)} cannot be read: {reason}") from problem


def _from_file(file: IO[bytes], limits: Limits) -> bytes:
    """Reads in pieces: a file may give fewer bytes than asked for, or grow while it is read."""
    pieces: list[bytes] = []
    left = limits.bytes + 1
    while left > 0:
        try:
            piece = file.read(min(left, 1 << 20))
        except (OSError, ValueError) as problem:
            raise ModalityError(f"the picture's file cannot be read: {problem}") from problem
        if not isinstance(piece, bytes):
            raise ModalityError(
                f"reading the picture's file gave a {type(piece).__name__}; open it in binary mode"
            )
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)
        left -= len(piece)
    raise ModalityError(too_many_bytes(limits.bytes))


def _from_data_url(url: str, limits: Limits) -> bytes:
    """Decodes ``data:[type];base64,...``; the type is not trusted, the bytes decide."""
    comma = url.find(",", 0, 1024)
    if comma < 0 or not url[:comma].lower().rstrip().endswith(";base64"):
        raise ModalityError(
            f"the picture {_shown(url[:80])} is no 'data:' URL of a picture; expected "
            "'data:image/png;base64,...'"
        )
    # Four characters are three bytes; line breaks and %-escapes only make a URL longer than that.
    if len(url) - comma > 8 * limits.bytes + 64:
        raise ModalityError(too_many_bytes(limits.bytes))
    try:
        text = url[comma + 1 :].encode("ascii")
    except UnicodeEncodeError as problem:
        raise ModalityError(_NOT_BASE64) from problem
    if b"%" in text:
        text = unquote_to_bytes(text)
    text = b"".join(text.split()).rstrip(b"=")
    if len(text) * 3 // 4 > limits.bytes:
        raise ModalityError(too_many_bytes(limits.bytes))
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except binascii.Error as problem:
        raise ModalityError(_NOT_BASE64) from problem


_NOT_BASE64 = (
    "the 'data:' URL of the picture is damaged: what follows ';base64,' is not base64; encode the "
    "file's bytes with base64.b64encode"
)
