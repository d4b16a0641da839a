"""The pixels of a Pillow image, row by row, without a second copy of the picture.

Pillow keeps RGB in four bytes a pixel and in several blocks, so its memory cannot be used as it
is. ``tobytes`` and the array interface pack all rows and then join them: three times the memory
traffic of packing, which is most of what resizing a large picture costs. Writing a PPM file packs a
few rows at a time into any object with ``write``; that object is here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from llama4_core.errors import ModalityError

if TYPE_CHECKING:
    from PIL import Image


class _Pixels:
    """A file that hands on what is written to it, but for the header."""

    def __init__(self, header: int, write: Callable[[bytes], object]) -> None:
        self.header = header
        self.hand_on = write

    def write(self, data: bytes) -> int:
        if self.header:
            # Written in pieces of its own, never together with pixels.
            self.header -= len(data)
        else:
            self.hand_on(data)
        return len(data)


def copy_rows(image: Image.Image, write: Callable[[bytes], object]) -> None:
    """Calls ``write`` with the bytes of all pixels, in order, some whole rows at a time.

    Args:
        image: of any mode; of RGB each pixel is three bytes.
        write: takes the next bytes.

    Raises:
        ModalityError: the picture cannot be decoded, for one that Pillow has not decoded yet.
    """
    try:
        image.load()
    except (OSError, SyntaxError, ValueError) as problem:
        raise ModalityError(f"the picture cannot be decoded: {problem}") from problem
    if image.mode != "RGB":
        write(image.tobytes())
        return
    width, height = image.size
    image.save(_Pixels(len(f"P6\n{width} {height}\n255\n"), write), "PPM")  # type: ignore[arg-type]
