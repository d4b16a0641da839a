"""Boxes drawn on a picture."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llama4_core.errors import ModalityError
from llama4_core.show.drawing import COLOURS
from llama4_vision.grounding.boxes import SCALE, Box

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

LONGEST_LABEL = 200
"""Characters of a label that are looked at; the picture's edge cuts earlier."""


def draw_boxes(image: Image.Image, boxes: Sequence[Box], path: str | Path) -> None:
    """Writes a PNG of ``image`` with rectangles and their labels; ``image`` stays as it is.

    Boxes of one label have one colour. A label stands above its box, or within where there is no
    room, and always within the picture.

    Args:
        image: as people see it.
        boxes: in thousandths of it.
        path: of the new picture. A file that is there is replaced in one step, once the new one is
            complete.

    Raises:
        ModalityError: the name does not end in .png, its folder does not exist, or it cannot be
            written; nothing is left behind.
    """
    path = checked_path(path)
    drawn = image.convert("RGB")  # a copy even if it is RGB already
    _draw(drawn, boxes)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        with partial.open("xb") as file:
            drawn.save(file, format="PNG")
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise ModalityError(
            f"{path}: cannot be written ({error.strerror or error}); choose another place"
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def checked_path(path: str | Path) -> Path:
    """``path``, if a picture may be written there: for callers that compute before they draw.

    Raises:
        ModalityError: the name does not end in .png, or its folder does not exist.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise ModalityError(f"the picture's name is {path.name!r}; expected one that ends in .png")
    if not path.parent.is_dir():
        raise ModalityError(f"{path.parent}: no such folder; make it first, or choose another")
    if path.is_dir():
        raise ModalityError(f"{path}: is a folder; choose the name of a file")
    return path


def _draw(image: Image.Image, boxes: Sequence[Box]) -> None:
    from PIL import ImageDraw, ImageFont

    brush = ImageDraw.Draw(image)
    line = max(1, min(image.size) // 150)
    font = ImageFont.load_default(size=max(10, min(image.size) // 28))
    colours: dict[str, str] = {}
    corners = []
    for box in boxes:
        colour = colours.setdefault(box.label, COLOURS[len(colours) % len(COLOURS)])
        x0, x1 = (_pixel(x, image.width) for x in (box.x0, box.x1))
        y0, y1 = (_pixel(y, image.height) for y in (box.y0, box.y1))
        # Edge by edge, within the box: an outline of Pillow's reaches beyond a box of one pixel.
        brush.rectangle((x0, y0, x1, min(y0 + line - 1, y1)), fill=colour)
        brush.rectangle((x0, max(y1 - line + 1, y0), x1, y1), fill=colour)
        brush.rectangle((x0, y0, min(x0 + line - 1, x1), y1), fill=colour)
        brush.rectangle((max(x1 - line + 1, x0), y0, x1, y1), fill=colour)
        corners.append((x0, y0, colour))
    # After all rectangles, so that none of them crosses a label.
    for box, (x, y, colour) in zip(boxes, corners, strict=True):
        if box.label:
            _write(brush, image.size, _printable(box.label, font), (x, y), colour, font)


def _write(
    brush: ImageDraw.ImageDraw,
    size: tuple[int, int],
    label: str,
    corner: tuple[int, int],
    colour: str,
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
) -> None:
    """Puts a label on a plate of the box's colour, moved and cut so that it lies in the picture."""
    pad = 2
    low, high = 0, len(label)  # the longest beginning that fits, by halving
    while low < high:
        half = (low + high + 1) // 2
        fits = brush.textlength(label[:half], font=font) + 2 * pad <= size[0]
        low, high = (half, high) if fits else (low, half - 1)
    label = label[:low]
    if not label:
        return
    left, top, right, bottom = (round(edge) for edge in brush.textbbox((0, 0), label, font=font))
    width, height = right - left + 2 * pad, bottom - top + 2 * pad
    x = max(0, min(corner[0], size[0] - width))
    y = max(0, min(corner[1] - height if corner[1] >= height else corner[1], size[1] - height))
    brush.rectangle((x, y, x + width - 1, y + height - 1), fill=colour)
    # Yellow is the one colour of the palette on which white cannot be read.
    ink = "black" if colour in ("#F0E442", "#E69F00", "#56B4E9") else "white"
    brush.text((x + pad - left, y + pad - top), label, fill=ink, font=font)


def _printable(label: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> str:
    """One line of what the font can take: the small one of old builds knows Latin-1 only."""
    from PIL import ImageFont

    line = " ".join(label[:LONGEST_LABEL].split())
    line = "".join(c if c.isprintable() else "?" for c in line)
    if isinstance(font, ImageFont.FreeTypeFont):
        return line
    return line.encode("latin-1", "replace").decode("latin-1")


def _pixel(thousandth: float, size: int) -> int:
    """The pixel that holds a place; the far edge belongs to the last one."""
    return min(int(thousandth * size / SCALE), size - 1)
