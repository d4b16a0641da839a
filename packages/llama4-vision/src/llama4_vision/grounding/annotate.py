"""What a text says about places in a picture, drawn on it and as plain values."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama4_vision.grounding.boxes import SCALE, parse_boxes
from llama4_vision.grounding.draw import draw_boxes

if TYPE_CHECKING:
    from PIL import Image


def annotate(image: Image.Image, text: str, path: str | Path) -> list[dict[str, Any]]:
    """Draws the boxes that ``text`` says on a copy of ``image``.

    Args:
        image: as people see it, such as :func:`llama4_vision.images.open.open_image` gives it.
        text: in the convention of :mod:`llama4_vision.grounding.boxes`.
        path: of the new picture, a .png. It is written even if the text says no box.

    Returns:
        For each box, in the order of the text: its ``label``, the ``box`` in thousandths, and the
        same in ``pixels`` of the picture.

    Raises:
        ModalityError: the picture cannot be written.
    """
    boxes = parse_boxes(text)
    draw_boxes(image, boxes, path)
    sizes = (image.width, image.height) * 2
    return [
        {
            "label": box.label,
            "box": [int(number) for number in box.corners],
            "pixels": [
                number * size / SCALE for number, size in zip(box.corners, sizes, strict=True)
            ],
        }
        for box in boxes
    ]
