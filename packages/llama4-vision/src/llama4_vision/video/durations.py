"""How long each frame of an animated file is shown, without decoding a pixel.

The containers are walked block by block, as their specifications lay them out: GIF89a, the
extension of PNG for animations, and the WebP container. What is read here decides which frames are
worth decoding, and whether a file is within the limits. Imports without torch or Pillow.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from fractions import Fraction

from llama4_core.errors import ModalityError

UNSAID = Fraction(1, 10)
"""Seconds of a frame that names no time, or a hundredth of a second and less, as browsers do it."""

_SHORTEST = Fraction(1, 100)


@dataclass(frozen=True)
class Timeline:
    """What a container says about its frames.

    Attributes:
        seconds: of each frame, in order.
        width, height: of the whole picture, in pixels.
        first: index of the first frame in Pillow's count: 1 where the file begins with a picture
            for programs that do not show animations, which is no part of the film.
    """

    seconds: tuple[Fraction, ...]
    width: int
    height: int
    first: int = 0


def timeline(data: bytes, kind: str) -> Timeline | None:
    """Frames of an animation; None for a picture that does not move.

    Args:
        data: of the file.
        kind: "GIF", "PNG" or "WebP".

    Raises:
        ModalityError: the file ends, or says something senseless, before its last frame.
    """
    try:
        found = _WALKS[kind](data)
    except (IndexError, struct.error) as problem:
        raise ModalityError(
            f"the {kind} animation ends within a frame; expected a whole file: copy it again"
        ) from problem
    if not found.seconds or (len(found.seconds) == 1 and not found.first):
        return None
    seconds = tuple(time if time > _SHORTEST else UNSAID for time in found.seconds)
    return Timeline(seconds, found.width, found.height, found.first)


def _gif(data: bytes) -> Timeline:
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    place = 13 + _palette(flags)
    delay, delays = Fraction(0), []
    while (kind := data[place]) != 0x3B:
        if kind == 0x21:
            if data[place + 1] == 0xF9:
                delay = Fraction(struct.unpack_from("<H", data, place + 4)[0], 100)
            place += 2
        elif kind == 0x2C:
            x, y, wide, high, flags = struct.unpack_from("<HHHHB", data, place + 1)
            # Pillow widens the whole picture where a frame reaches beyond it.
            width, height = max(width, x + wide), max(height, y + high)
            delays.append(delay)
            delay = Fraction(0)
            place += 11 + _palette(flags)
        elif kind == 0:
            # Padding between blocks, which some programs write.
            place += 1
            continue
        else:
            raise ModalityError(
                f"the GIF holds a block of kind {kind} at byte {place}, which does not exist; "
                "expected a whole file: copy it again"
            )
        while data[place]:
            place += 1 + data[place]
        place += 1
    return Timeline(tuple(delays), width, height)


def _palette(flags: int) -> int:
    """Bytes of the palette that follows."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _png(data: bytes) -> Timeline:
    width, height = struct.unpack_from(">II", data, 16)
    delays: list[Fraction] = []
    place, first, animated = 8, 0, False
    while (kind := data[place + 4 : place + 8]) != b"IEND":
        (size,) = struct.unpack_from(">I", data, place)
        if kind == b"acTL":
            animated = True
        elif kind == b"IDAT" and not delays:
            first = 1
        elif kind == b"fcTL":
            over, under = struct.unpack_from(">HH", data, place + 28)
            delays.append(Fraction(over, under or 100))
        elif not kind:
            raise IndexError
        place += 12 + size
    if not (animated and delays):
        return Timeline((), width, height)
    return Timeline(tuple(delays), width, height, first)


def _webp(data: bytes) -> Timeline:
    end = 8 + struct.unpack_from("<I", data, 4)[0]
    if end > len(data):
        raise IndexError
    place, delays, size = 12, [], (0, 0)
    while place + 8 <= end:
        kind = data[place : place + 4]
        (length,) = struct.unpack_from("<I", data, place + 4)
        body = place + 8
        if kind == b"VP8X":
            size = (_three(data, body + 4) + 1, _three(data, body + 7) + 1)
        elif kind == b"ANMF":
            delays.append(Fraction(_three(data, body + 12), 1000))
        elif kind == b"VP8 " and size == (0, 0):
            wide, high = struct.unpack_from("<HH", data, body + 6)
            size = (wide & 0x3FFF, high & 0x3FFF)
        elif kind == b"VP8L" and size == (0, 0):
            (bits,) = struct.unpack_from("<I", data, body + 1)
            size = ((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
        place = body + length + (length & 1)
    return Timeline(tuple(delays), *size)


def _three(data: bytes, place: int) -> int:
    """Three bytes, the lowest first."""
    return data[place] | data[place + 1] << 8 | data[place + 2] << 16


_WALKS = {"GIF": _gif, "PNG": _png, "WebP": _webp}
