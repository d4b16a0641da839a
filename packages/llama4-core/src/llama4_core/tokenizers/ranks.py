"""Files of ranks, Meta's ``tokenizer.model``: one line ``base64-of-the-token rank`` per token.

A token's rank is its id and the order in which byte pairs are merged. The published file has
200,000 lines; its licence does not allow shipping it, so it is read from the user's own copy.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path

from llama4_core.errors import TokenizerError

LONGEST = 1024
"""Most bytes of a token. The published longest has 113; merges are derived in squared time."""

# The rank of a line: at most so many digits, so that no damaged line asks for gigabytes.
_DIGITS = 8


def read_ranks(path: str | PathLike[str]) -> tuple[bytes, ...]:
    """The tokens of a file of ranks, each at the index that is its rank.

    Raises:
        TokenizerError: the file cannot be read, a line is damaged, a rank is missing or given
            twice, a token is given twice, or one of the 256 single bytes has no token. Names the
            file and the line.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise TokenizerError(f"{path} cannot be read ({error}); fetch the file again") from error
    tokens: dict[int, bytes] = {}
    lines: dict[bytes, int] = {}
    places: dict[int, int] = {}
    for number, line in enumerate(data.split(b"\n"), start=1):
        fields = line.split()
        if not fields:
            continue
        token, rank = _entry(fields, f"{path}, line {number}")
        if rank in tokens:
            raise TokenizerError(
                f"{path}, line {number} gives rank {rank}, which line {places[rank]} gave to "
                "another token; expected every rank once: fetch the file again"
            )
        if token in lines:
            raise TokenizerError(
                f"{path}, line {number} gives rank {rank} to {token!r}, which line {lines[token]} "
                "lists already; expected every token once: fetch the file again"
            )
        tokens[rank], lines[token], places[rank] = token, number, number
    for rank in range(len(tokens)):
        if rank not in tokens:
            beyond = min(other for other in tokens if other > rank)
            raise TokenizerError(
                f"{path} has no token of rank {rank}, but one of rank {beyond} in line "
                f"{places[beyond]}; expected ranks without gaps: fetch the file again"
            )
    ranks = tuple(tokens[rank] for rank in range(len(tokens)))
    check_bytes(ranks, str(path))
    return ranks


def write_ranks(ranks: Sequence[bytes], path: str | PathLike[str]) -> None:
    """Writes tokens, each at the index that is its rank, as :func:`read_ranks` reads them.

    Raises:
        TokenizerError: as :func:`check_bytes`.
    """
    check_bytes(ranks, str(path))
    Path(path).write_bytes(ranks_text(ranks).encode("ascii"))


def ranks_text(ranks: Sequence[bytes]) -> str:
    """The content of a file of ranks."""
    lines = (
        f"{binascii.b2a_base64(token, newline=False).decode('ascii')} {rank}\n"
        for rank, token in enumerate(ranks)
    )
    return "".join(lines)


def check_bytes(ranks: Iterable[bytes], source: str) -> None:
    """Refuses ranks that lack a single byte: some text could not be encoded.

    Raises:
        TokenizerError: a byte is missing.
    """
    single = {token[0] for token in ranks if len(token) == 1}
    missing = [byte for byte in range(256) if byte not in single]
    if missing:
        raise TokenizerError(
            f"{source} has no token for {len(missing)} of the 256 single bytes, the first is "
            f"0x{missing[0]:02x}; expected all of them: the file is cut short or is no file of "
            "byte-level ranks, fetch it again"
        )


def _entry(fields: Sequence[bytes], place: str) -> tuple[bytes, int]:
    if len(fields) != 2:
        raise TokenizerError(
            f"{place} has {len(fields)} fields; expected two, the token in base64 and its rank: "
            "the file is damaged or no file of ranks (a SentencePiece model is not one)"
        )
    encoded, digits = fields
    try:
        token = binascii.a2b_base64(encoded, strict_mode=True)
    except ValueError as error:  # also what is not ASCII
        raise TokenizerError(
            f"{place}: {_shown(encoded)} is not base64 ({error}); fetch the file again"
        ) from error
    if not digits.isdigit() or len(digits) > _DIGITS:
        raise TokenizerError(
            f"{place}: the rank is {_shown(digits)}; expected a whole number of at most {_DIGITS} "
            "digits: fetch the file again"
        )
    if not 1 <= len(token) <= LONGEST:
        raise TokenizerError(
            f"{place}: the token has {len(token)} bytes; expected 1 to {LONGEST}: fetch the file "
            "again"
        )
    return token, int(digits)


def _shown(field: bytes) -> str:
    return ascii(field[:40].decode("ascii", "backslashreplace"))
