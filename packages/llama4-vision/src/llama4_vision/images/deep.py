"""Grey pictures of more than 8 bits, brought to 8.

Pillow clips them instead: everything above 255 turns white.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from PIL import Image

if TYPE_CHECKING:
    from torch import Tensor

_STRIP = 1 << 20  # pixels at a time, so that a strip in float64 takes 8 MiB


def to_eight_bits(image: Image.Image) -> Image.Image:
    """A grey picture of mode ``I;16``, ``I`` or ``F`` as mode ``L``.

    ``round(255 (v - low) / (high - low))``, rounded half up, where black ``low`` and white ``high``
    are

    - 0 and 65535 of 16 bits (in TIFF files 0 and ``2^bits - 1``), also in mode ``I``, in which
      Pillow holds them at times,
    - 0 and 1, or 0 and 255, of floats when all are within,
    - otherwise the lowest and the highest value of the picture.

    Values that are no number are black. A pixel of the file's transparent value is white.

    Returns:
        A new picture of mode ``L`` without transparency.
    """
    tags = getattr(image, "tag_v2", {})
    clear = image.info.get("transparency")
    low, high = _range(image, tags)
    # WhiteIsZero, which Pillow heeds for 8 bits only.
    inverted = tags.get(262) == 0 and image.mode.startswith("I;16")
    result = Image.new("L", image.size)
    for top, values in _strips(image):
        scaled = (values - low).mul_(255).div_(high - low).add_(0.5).floor_().clamp_(0, 255)
        scaled = scaled.nan_to_num_(0)
        if inverted:
            scaled = 255 - scaled
        if isinstance(clear, int):
            scaled[values == clear] = 255
        rows = len(values) // image.width
        strip = bytearray(len(values))
        torch.frombuffer(strip, dtype=torch.uint8).copy_(scaled)
        result.paste(Image.frombytes("L", (image.width, rows), strip), (0, top))
    return result


def _strips(image: Image.Image) -> Iterator[tuple[int, Tensor]]:
    """Rows of pixels as float64, with the number of the first row."""
    mode, dtype = ("F", torch.float32) if image.mode == "F" else ("I", torch.int32)
    height = max(1, _STRIP // image.width)
    for top in range(0, image.height, height):
        strip = image.crop((0, top, image.width, min(top + height, image.height)))
        # A bytearray, as torch wants memory that it may write to.
        yield top, torch.frombuffer(bytearray(strip.convert(mode).tobytes()), dtype=dtype).double()


def _range(image: Image.Image, tags: dict[int, object]) -> tuple[float, float]:
    """What is black, and what is white."""
    if image.mode.startswith("I;16"):
        bits = tags.get(258, 16)
        depth = bits[0] if isinstance(bits, tuple) else bits
        return 0.0, float((1 << depth) - 1) if isinstance(depth, int) else 65535.0
    low, high = math.inf, -math.inf
    for _, values in _strips(image):
        known = values[values.isfinite()]
        if known.numel():
            low, high = min(low, float(known.min())), max(high, float(known.max()))
    for white in (65535.0,) if image.mode == "I" else (1.0, 255.0):
        if low >= 0 and high <= white:
            return 0.0, white
    return (low, high) if low < high else (low - 1, low + 1)
