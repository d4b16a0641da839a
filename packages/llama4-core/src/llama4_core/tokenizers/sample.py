"""A small table of ranks, made here, so that nothing licensed is needed to try a tokenizer."""

from __future__ import annotations

# Each is built of two that come before it, or of single bytes, so that every one can be reached;
# some end or begin within a character, as those of large vocabularies do.
_PAIRS = (
    (" ", " "),
    ("  ", "  "),
    ("\n", "\n"),
    ("t", "h"),
    ("th", "e"),
    (" ", "the"),
    ("a", "n"),
    ("an", "d"),
    ("i", "n"),
    ("in", "g"),
    (" ", "a"),
    ("e", "r"),
    ("0", "0"),
    ("1", "2"),
    ("12", "3"),
    ("a", "a"),
    ("aa", "a"),
    ("<", "|"),
    ("|", ">"),
)
_BYTES = (b"\xc3\xa9", b"\xe6\x97", b"\xe6\x97\xa5", b"\x9f\xa6", b"\xf0\x9f\xa6", b"\xe2\x80")


def sample_ranks() -> tuple[bytes, ...]:
    """256 single bytes and 25 longer tokens; the specials of Llama 4 follow them."""
    single = (bytes((byte,)) for byte in range(256))
    return (*single, *((left + right).encode() for left, right in _PAIRS), *_BYTES)
