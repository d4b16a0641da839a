"""The byte-level alphabet: a printable character for each of the 256 bytes."""

from __future__ import annotations


def _alphabet() -> dict[str, int]:
    """Character -> byte.

    Printable Latin-1 bytes stand for themselves; the others take the code points from 256 upwards
    in order (GPT-2's vocabulary files, kept by everyone since).
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {
        chr(256 + index): byte for index, byte in enumerate(others)
    }


BYTES = _alphabet()
"""Character -> byte."""

_CHARACTERS = {byte: character for character, byte in BYTES.items()}


def spelled(token: bytes) -> str:
    """``token`` in the alphabet."""
    # Latin-1 gives every byte the code point of its value.
    return token.decode("latin-1").translate(_CHARACTERS)


def unspelled(name: str) -> bytes:
    """The bytes that ``name`` stands for.

    Raises:
        KeyError: a character is not in the alphabet.
    """
    return bytes(map(BYTES.__getitem__, name))
