"""Which files are opened as pictures, and by which of Pillow's readers.

Only the formats of :data:`FORMATS` are: they are what pictures come in, and their readers run no
other program (those of EPS and WMF do). Each is known by its first bytes, never by its name. The
readers are called directly and not through ``Image.open``: that one tries others too, and warns or
refuses by a limit that the whole process shares.
"""

from __future__ import annotations

import importlib
import io
from typing import TYPE_CHECKING

from llama4_core.errors import ModalityError
from llama4_vision.images.limits import SCANS, Limits, too_many_scans

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

FORMATS = ("PNG", "JPEG", "GIF", "WebP", "BMP", "TIFF", "PPM")
"""Formats that are opened, for people."""

EMPTY = "the picture's file is empty; expected " + ", ".join(FORMATS)
"""A file of no bytes."""

DAMAGED = "the picture's {format} file is damaged or cut short ({reason}); get the file again"
"""A file that begins as a picture and does not go on as one."""

_READERS = {
    "PNG": "PngImagePlugin:PngImageFile",
    # Also for the several pictures in one file that telephones write: the first is the picture.
    "JPEG": "JpegImagePlugin:JpegImageFile",
    "GIF": "GifImagePlugin:GifImageFile",
    "WebP": "WebPImagePlugin:WebPImageFile",
    "BMP": "BmpImagePlugin:BmpImageFile",
    "TIFF": "TiffImagePlugin:TiffImageFile",
    "PPM": "PpmImagePlugin:PpmImageFile",
}

_STARTS = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    **{b"P" + kind + space: "PPM" for kind in (b"1", b"2", b"3", b"4", b"5", b"6", b"f")
       for space in (b" ", b"\n", b"\r", b"\t")},
}  # fmt: skip

# Named in the error, so that people know what they have.
_OTHERS = {
    b"%PDF": "PDF",
    b"%!PS": "PostScript",
    b"<svg": "SVG",
    b"<?xml": "XML or SVG",
    b"\0\0\1\0": "ICO",
    b"8BPS": "Photoshop",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\x1aE\xdf\xa3": "a film",
}
_BRANDS = {b"avif": "AVIF", b"avis": "AVIF", b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIF"}


def unknown_format(data: bytes) -> str:
    """The text for a file that is none of :data:`FORMATS`."""
    found = next((name for start, name in _OTHERS.items() if data.startswith(start)), None)
    if data[4:8] == b"ftyp":
        found = _BRANDS.get(data[8:12], "a film")
    return (
        f"the picture's file is {found or 'of no format known here'} (it begins with "
        f"{data[:12]!r}); expected {', '.join(FORMATS)}: convert it first"
    )


def format_of(data: bytes) -> str:
    """The format of a picture's file by its first bytes.

    Raises:
        ModalityError: it is empty, or none of :data:`FORMATS`.
    """
    if not data:
        raise ModalityError(EMPTY)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WebP"
    found = next((name for start, name in _STARTS.items() if data.startswith(start)), None)
    if found is None:
        raise ModalityError(unknown_format(data))
    return found


def read_header(data: bytes, name: str, limits: Limits) -> ImageFile:
    """A picture of format ``name`` whose pixels are not decoded yet.

    Raises:
        ModalityError: the header says that the picture is too large, or would take too long.
        Exception: whatever Pillow raises for a damaged file.
    """
    if name == "WebP":
        # Its reader takes the memory for all pixels before it tells how many there are.
        limits.check_size(*_webp_size(data))
    if name == "JPEG":
        # Never a part of compressed pixels, but of thumbnails too: an estimate from above.
        scans = data.count(b"\xff\xda")
        if scans > SCANS:
            raise ModalityError(too_many_scans(scans))
    module, _, reader = _READERS[name].partition(":")
    image: ImageFile = getattr(importlib.import_module(f"PIL.{module}"), reader)(io.BytesIO(data))
    limits.check_size(*image.size)
    if name == "TIFF":
        _check_tile(image, limits)
    if name == "PNG":
        _scale_transparency(data, image)
    return image


def _webp_size(data: bytes) -> tuple[int, int]:
    """Width and height as the first chunk has them (RFC 9649, sections 2.5 to 2.7)."""
    chunk, body = data[12:16], data[20:30]
    if chunk == b"VP8X" and len(body) == 10:
        return (
            int.from_bytes(body[4:7], "little") + 1,
            int.from_bytes(body[7:10], "little") + 1,
        )
    if chunk == b"VP8L" and len(body) >= 5 and body[0] == 0x2F:
        bits = int.from_bytes(body[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if chunk == b"VP8 " and len(body) == 10 and body[3:6] == b"\x9d\x01\x2a":
        return (
            int.from_bytes(body[6:8], "little") & 0x3FFF,
            int.from_bytes(body[8:10], "little") & 0x3FFF,
        )
    raise ValueError("no size in its header")


def _check_tile(image: ImageFile, limits: Limits) -> None:
    """A TIFF file's own tiles are decoded whole, whatever the size of the picture."""
    tags = image.tag_v2  # type: ignore[attr-defined]
    width, height = (tags.get(tag, 1) for tag in (322, 323))
    limits.check_size(int(width), int(height))


def _scale_transparency(data: bytes, image: ImageFile) -> None:
    """Pillow scales pixels to 8 bits, but leaves a PNG file's transparent colour as stored."""
    depth = data[24]
    colour = image.info.get("transparency")
    if image.mode == "L" and isinstance(colour, int) and depth < 8:
        image.info["transparency"] = colour * 255 // ((1 << depth) - 1)
    if image.mode == "RGB" and isinstance(colour, tuple) and depth == 16:
        image.info["transparency"] = tuple(value >> 8 for value in colour)
