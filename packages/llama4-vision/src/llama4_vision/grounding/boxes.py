"""Boxes: how a text says them, where they lie in a picture, and how much two of them share.

**The convention.** A box in a text is::

    <ref>label</ref><box>x0,y0,x1,y1</box>

Four whole numbers from 0 to 1000: thousandths of the width (x) and of the height (y) of the whole
picture as people see it, that is after the rotation which its file may ask for. x comes first and
grows to the right, y grows downwards, the origin is the top left corner; ``x0 <= x1`` and
``y0 <= y1``. The label is optional. It holds for every box that follows with nothing but white
space between, so that several things of one kind need it once. White space is allowed around each
number, and around the label, which holds no tag.

Whatever differs in anything (a number above 1000, a sign or a fraction, three numbers or five,
``x1 < x0``, a tag that its own end does not follow) is no box: it stays in the text as it is, and
no error is raised, since a model may write anything. Thousandths do not depend on the size of the
picture or on how it was cut into tiles. A model that was taught otherwise, in places of the canvas
of tiles or of one tile, is brought to the same form by :func:`to_pixels`.

Imports without torch and without Pillow.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llama4_core.errors import ModalityError

if TYPE_CHECKING:
    from llama4_vision.images.tiling import TilePlan

SCALE = 1000
"""Parts into which width and height are divided."""

LONGEST = 64
"""Most characters between ``<box>`` and its end: four numbers need 19, the rest is white space."""

Pixels = tuple[float, float, float, float]
"""``x0, y0, x1, y1`` in pixels of the original picture, from its top left corner."""

# Neither pattern can go back over what it has read: the first is a choice of fixed words, and the
# second is only ever given at most LONGEST characters.
_TAG = re.compile("<ref>|</ref>|<box>|</box>")
_NUMBERS = re.compile(r"\s*+([0-9]{1,4})\s*+" + r",\s*+([0-9]{1,4})\s*+" * 3)


@dataclass(frozen=True)
class Box:
    """A rectangle in a picture.

    Attributes:
        x0, y0: of the top left corner, in thousandths of the picture's width and height.
        x1, y1: of the bottom right corner; equal to the first for a line or a point.
        label: what is there, or ""; white space around it is dropped.

    Raises:
        ModalityError: a number is not within 0 and 1000, or the corners are in the wrong order.
    """

    x0: float
    y0: float
    x1: float
    y1: float
    label: str = ""

    def __post_init__(self) -> None:
        for low, high in ((self.x0, self.x1), (self.y0, self.y1)):
            if not 0 <= low <= high <= SCALE:  # also refuses what is no number
                raise ModalityError(
                    f"a box is {self.corners}; expected x0, y0, x1, y1 with 0 <= x0 <= x1 <= "
                    f"{SCALE}, and y alike, in thousandths of the picture"
                )
        object.__setattr__(self, "label", self.label.strip())

    @property
    def corners(self) -> tuple[float, float, float, float]:
        """``x0, y0, x1, y1``."""
        return self.x0, self.y0, self.x1, self.y1

    @property
    def area(self) -> float:
        """In thousandths of the width times thousandths of the height."""
        return (self.x1 - self.x0) * (self.y1 - self.y0)


def parse_boxes(text: str) -> tuple[Box, ...]:
    """The boxes that ``text`` says, in order.

    Takes time in proportion to the length of the text, whatever it holds. A box is decided at its
    ``</box>``: the boxes of a text that still arrives are the first ones of the whole.
    """
    return tuple(box for box, _, _ in _found(text))


def plain_text(text: str) -> str:
    """``text`` for people: without what is read as boxes, and with the bare words of their labels.

    What is no box, and a label that no box follows, stay as they are.
    """
    pieces, done = [], 0
    for box, start, end in _found(text):
        pieces.append(text[done:start])
        if text.startswith("<ref>", start):
            pieces.append(box.label)
        done = end
    return "".join((*pieces, text[done:]))


def write_boxes(boxes: Iterable[Box]) -> str:
    """The text that :func:`parse_boxes` reads as these boxes, rounded to whole thousandths.

    Raises:
        ModalityError: a label holds a tag of the convention.
    """
    pieces, label = [], ""
    for box in boxes:
        if box.label != label:
            if _TAG.search(box.label):
                raise ModalityError(
                    f"the label {box.label!r:.80} holds a tag; expected words without <ref> and "
                    "<box>"
                )
            pieces.append(f"<ref>{box.label}</ref>")
            label = box.label
        numbers = ",".join(str(math.floor(number + 0.5)) for number in box.corners)
        pieces.append(f"<box>{numbers}</box>")
    return "".join(pieces)


def to_pixels(box: Box, plan: TilePlan, frame: str = "picture") -> Pixels:
    """Where a box lies in the original picture.

    Args:
        box: in thousandths of ``frame``.
        plan: how the picture was cut into tiles.
        frame: what the thousandths are counted in: "picture", the convention; "canvas", all tiles
            together with the padding at the right and the bottom; or "tile:N", one tile, from 0 in
            the order of the tiles, the last of which is the global one where there is one.

    Returns:
        Corners in pixels. What lies in the padding, where there is no picture, is cut off; a box
        that lies in it as a whole is left as a line or a point at the picture's edge.

    Raises:
        ModalityError: no such frame.
    """
    across, down = _axes(plan, frame)
    return (
        _within(across.pixel(box.x0), plan.width),
        _within(down.pixel(box.y0), plan.height),
        _within(across.pixel(box.x1), plan.width),
        _within(down.pixel(box.y1), plan.height),
    )


def from_pixels(pixels: Pixels, plan: TilePlan, frame: str = "picture", label: str = "") -> Box:
    """The box of some pixels of the original picture: the inverse of :func:`to_pixels`.

    Args:
        pixels: corners, in order.
        plan: how the picture was cut into tiles.
        frame: see :func:`to_pixels`; what lies outside it is cut off.
        label: of the box.

    Raises:
        ModalityError: no such frame, corners in the wrong order, or nothing of them in the frame.
    """
    across, down = _axes(plan, frame)
    x0, x1 = across.thousandth(pixels[0]), across.thousandth(pixels[2])
    y0, y1 = down.thousandth(pixels[1]), down.thousandth(pixels[3])
    if not (x0 <= x1 and y0 <= y1):
        raise ModalityError(f"pixels are {pixels}; expected x0, y0, x1, y1 with x0 <= x1, y0 <= y1")
    slack = 1e-6  # what float64 may lose on the way to the pixels and back
    if max(x0, y0) > SCALE + slack or min(x1, y1) < -slack:
        raise ModalityError(f"pixels {pixels} lie outside of {frame!r}; choose another frame")
    return Box(
        _within(x0, SCALE), _within(y0, SCALE), _within(x1, SCALE), _within(y1, SCALE), label
    )


def iou(one: Box, other: Box) -> float:
    """What two boxes share: area of the intersection over area of the union, 0 to 1.

    The same in thousandths as in pixels. 0 where neither box has an area.
    """
    shared = intersection(one, other)
    union = one.area + other.area - shared
    return shared / union if union > 0 else 0.0


def intersection(one: Box, other: Box) -> float:
    """Area of what lies in both boxes."""
    width = min(one.x1, other.x1) - max(one.x0, other.x0)
    height = min(one.y1, other.y1) - max(one.y0, other.y0)
    return max(width, 0) * max(height, 0)


def _found(text: str) -> Iterator[tuple[Box, int, int]]:
    """Each box with the piece of the text that it takes, its label's included.

    One pass over the tags. Every character is looked at a bounded number of times: as part of a
    tag, between two neighbouring tags, and at most LONGEST of them as numbers.
    """
    label = ""  # that holds for a box right behind `end`
    start = -1  # of the piece of the next box, which its label begins; -1 where none began
    end = 0  # of the last tag
    opened: re.Match[str] | None = None  # the last tag, if it opens something
    for tag in _TAG.finditer(text):
        word, before, opened = tag[0], opened, None
        inside = "" if before is None else before[0] + word
        if word in ("<ref>", "<box>"):
            follows = before is None and not text[end : tag.start()].strip()
            if word == "<ref>" or not follows:
                label, start = "", -1
            start = tag.start() if start < 0 else start
            opened = tag
        elif inside == "<ref></ref>":
            label = text[end : tag.start()].strip()
        elif inside == "<box></box>" and (box := _box(text, end, tag.start(), label)):
            yield box, start, tag.end()
            start = -1
        else:
            label, start = "", -1
        end = tag.end()


def _box(text: str, start: int, end: int, label: str) -> Box | None:
    """The box of the numbers in ``text[start:end]``, if they are such."""
    match = _NUMBERS.fullmatch(text, start, end) if end - start <= LONGEST else None
    if match is None:
        return None
    x0, y0, x1, y1 = map(int, match.groups())
    return Box(x0, y0, x1, y1, label) if x0 <= x1 <= SCALE and y0 <= y1 <= SCALE else None


@dataclass(frozen=True)
class _Axis:
    """Thousandths of a frame to pixels of the picture, along one axis."""

    first: float  # pixel at 0
    size: float  # pixels from 0 to 1000

    def pixel(self, thousandth: float) -> float:
        return self.first + thousandth * self.size / SCALE

    def thousandth(self, pixel: float) -> float:
        return (pixel - self.first) * SCALE / self.size


def _axes(plan: TilePlan, frame: str) -> tuple[_Axis, _Axis]:
    """How ``frame`` lies in the picture: across and down."""
    whole = _Axis(0, plan.width), _Axis(0, plan.height)
    kind, _, number = frame.partition(":")
    if frame == "picture":
        return whole
    # Pixels of the picture for each pixel of the canvas, which the resized picture begins.
    x_scale, y_scale = plan.width / plan.resized_width, plan.height / plan.resized_height
    if frame == "canvas":
        columns, rows = plan.columns * plan.tile, plan.rows * plan.tile
        return _Axis(0, columns * x_scale), _Axis(0, rows * y_scale)
    if kind != "tile" or not re.fullmatch("[0-9]{1,4}", number) or int(number) >= plan.tiles:
        raise ModalityError(
            f"the frame is {frame!r}; expected 'picture', 'canvas', or 'tile:N' with N from 0 to "
            f"{plan.tiles - 1}"
        )
    if plan.has_global and int(number) == plan.tiles - 1:
        return whole  # the whole picture, squashed into a square
    row, column = divmod(int(number), plan.columns)
    x_size, y_size = plan.tile * x_scale, plan.tile * y_scale
    return _Axis(column * x_size, x_size), _Axis(row * y_size, y_size)


def _within(value: float, size: float) -> float:
    return min(max(value, 0.0), float(size))
