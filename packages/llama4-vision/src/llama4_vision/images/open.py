"""Opening a picture: any source, any of the formats, as upright RGB on white.

Limits are looked at before anything is decoded. Damaged files of every kind end in one
:class:`~llama4_core.errors.ModalityError`. Colour profiles are not applied, as models were not
trained on pictures with them applied.
"""

from __future__ import annotations

from typing import Any

from PIL import Image

from llama4_core.errors import ModalityError
from llama4_vision.images.damage import READER_ERRORS
from llama4_vision.images.formats import DAMAGED, format_of, read_header
from llama4_vision.images.limits import Limits
from llama4_vision.images.sources import read_bytes

BYTES_PER_PIXEL = 24
"""What opening takes at most beside the file's own bytes, for each pixel. Measured over formats and
modes: 4 to 12, WebP 16 to 20."""

_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def open_image(source: Any, limits: Limits | None = None) -> Image.Image:
    """Opens a picture.

    - Transparent pictures are put on white.
    - The orientation that a camera noted is applied.
    - Grey of 16 bits, 32 bits or floats is scaled to 8 bits (see
      :func:`~llama4_vision.images.deep.to_eight_bits`); colour of 16 bits is cut to 8 by Pillow.
    - 1-bit, palette, CMYK, YCbCr, LAB and HSV pictures are converted.
    - Of an animation or of several pages the first is taken; of a Pillow image the one where it
      stands.

    Args:
        source: a path, bytes, an open binary file, a ``data:`` URL with base64, or a Pillow image.
            URLs of the network are not opened.
        limits: checked before decoding; the defaults of :class:`Limits` when None.

    Returns:
        A decoded picture of mode RGB. A Pillow image that is upright RGB comes back itself.

    Raises:
        ModalityError: the source cannot be read, is of no known format, is too large, or is
            damaged.
    """
    limits = limits or Limits()
    if isinstance(source, Image.Image):
        limits.check_size(*source.size)
        return _decode(source, source.format or source.mode, source)
    data = read_bytes(source, limits)
    name = format_of(data)
    try:
        image = read_header(data, name, limits)
    except ModalityError:
        raise
    except READER_ERRORS as problem:
        raise _damaged(name, problem) from problem
    with image:
        opened = _decode(image, name, None)
        # These keep their file, or their decoder, for the next frame.
        several = name == "WebP" or getattr(opened, "is_animated", False)
        return opened.copy() if several else opened


def _decode(image: Image.Image, name: str, given: Image.Image | None) -> Image.Image:
    """Decodes, converts and turns ``image``; ``given`` is the caller's own, or None."""
    try:
        image.load()
        upright = _UPRIGHT.get(_orientation(image))
        opened = _to_rgb(image)
        if upright is not None:
            opened = opened.transpose(upright)
    except READER_ERRORS as problem:
        raise _damaged(name, problem) from problem
    if opened is not given:
        # Else the orientation would be applied again when somebody opens the result.
        opened.info = {}
    return opened


def _damaged(name: str, problem: BaseException) -> ModalityError:
    reason = " ".join(str(problem).split())[:160] or type(problem).__name__
    return ModalityError(DAMAGED.format(format=name, reason=reason))


def _orientation(image: Image.Image) -> int:
    """The orientation noted in the picture; 1, upright, when there is none that can be read.

    Notes are no part of the pixels, so a picture with damaged ones is shown by everybody.
    """
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except READER_ERRORS:
        return 1
    return value if isinstance(value, int) else 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        from llama4_vision.images.deep import to_eight_bits

        return to_eight_bits(image).convert("RGB")
    if image.mode == "La":
        image = image.convert("LA")
    if image.has_transparency_data:
        clear = image if image.mode == "RGBA" else image.convert("RGBA")
        white = Image.new("RGB", image.size, (255, 255, 255))
        # The last is the mask: its alpha channel.
        white.paste(clear, (0, 0), clear)
        return white
    return image if image.mode == "RGB" else image.convert("RGB")
