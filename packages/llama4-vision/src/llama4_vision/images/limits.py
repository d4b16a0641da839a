"""How large pictures and films may be, and what is said when they are larger. No torch here.

Every limit is looked at before anything is decoded: the size of a file before it is read, the
number of pixels in its header. The texts are functions, so that each is written once and tests
compare whole texts.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from llama4_core.errors import ModalityError

SIDE = 65_535
"""Longest side of a picture, in pixels: as in JPEG and GIF. Resizing first makes all rows as wide
as a tile, so the longest side bounds what that takes (66 MB); and the 16-bit weights of the filter
stay far finer than one level of colour."""

SCANS = 500
"""Most scans of a JPEG file. A progressive file has about ten; each scan goes over all pixels, so a
small file of very many scans would take hours."""


@dataclass(frozen=True)
class Limits:
    """What is refused before it is decoded.

    Attributes:
        bytes: of one file, or of one ``data:`` URL decoded.
        pixels: width times height of one picture. Decoding takes up to
            :data:`~llama4_vision.images.open.BYTES_PER_PIXEL` bytes for each.
        tiles: largest grid of one picture, without the global tile.
        images: pictures in one prompt.
        frames: taken from one film.

    Raises:
        ModalityError: a limit is no whole number from 1.
    """

    bytes: int = 1 << 26
    pixels: int = 1 << 26
    tiles: int = 16
    images: int = 16
    frames: int = 64

    def __post_init__(self) -> None:
        for limit in fields(self):
            value = getattr(self, limit.name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ModalityError(
                    f"Limits.{limit.name} is {value!r:.80}; expected a whole number from 1"
                )

    def check_size(self, width: int, height: int) -> None:
        """Refuses a picture of ``width x height`` pixels that is too large.

        Raises:
            ModalityError: it has more pixels, or a longer side, than allowed.
        """
        if width * height > self.pixels:
            raise ModalityError(too_many_pixels(width, height, self.pixels))
        if max(width, height) > SIDE:
            raise ModalityError(too_long(width, height))

    def check_images(self, count: int) -> None:
        """Refuses a prompt of ``count`` pictures when these are too many.

        Raises:
            ModalityError: more than allowed.
        """
        if count > self.images:
            raise ModalityError(too_many_images(count, self.images))


def too_many_bytes(limit: int) -> str:
    """A file, or what a ``data:`` URL holds, is larger than ``limit`` bytes."""
    return (
        f"the picture has more than {limit:,} bytes, which is the limit; make it smaller, or raise "
        "Limits.bytes"
    )


def too_many_pixels(width: int, height: int, limit: int) -> str:
    """A picture has more than ``limit`` pixels."""
    return (
        f"the picture has {width} x {height} = {width * height:,} pixels; the limit is {limit:,}: "
        "make it smaller, or raise Limits.pixels"
    )


def too_long(width: int, height: int) -> str:
    """A picture has a side of more than :data:`SIDE` pixels."""
    return (
        f"the picture has {width} x {height} pixels; no side may have more than {SIDE:,}: cut it "
        "into pieces, or make it smaller"
    )


def too_many_scans(count: int) -> str:
    """A JPEG file has more than :data:`SCANS` scans."""
    return (
        f"the picture is JPEG in {count:,} scans; the limit is {SCANS}: save it again with an "
        "ordinary program"
    )


def too_many_tiles(tiles: int, limit: int) -> str:
    """A grid of ``tiles`` was asked for, more than ``limit``."""
    return f"max_tiles is {tiles}; the limit is {limit}: ask for fewer, or raise Limits.tiles"


def too_many_images(count: int, limit: int) -> str:
    """A prompt has more than ``limit`` pictures."""
    return (
        f"the prompt has {count} pictures; the limit is {limit}: leave some out, or raise "
        "Limits.images"
    )


def too_many_frames(count: int, limit: int) -> str:
    """More than ``limit`` frames were asked of a film."""
    return (
        f"{count} frames of one film were asked for; the limit is {limit}: ask for fewer, or raise "
        "Limits.frames"
    )
