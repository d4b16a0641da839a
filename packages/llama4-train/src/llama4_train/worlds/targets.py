"""Targets: what makes a reply right, and how right it is."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from llama4_core.chat.messages import ToolCall
from llama4_core.chat.tools import CallParser, read_calls

SCALE = 1000
"""Parts into which the width and the height of a picture are divided by the text form of boxes."""

ENOUGH = 0.5
"""Intersection over union above which a box counts as found, as since Pascal VOC (2007)."""

Corners = tuple[float, float, float, float]
"""``x0, y0, x1, y1`` from the top left corner."""

# Possessive and bounded: neither pattern reads anything twice, whatever the reply holds.
_NUMBER = r"\s{0,8}+([0-9]{1,4}+)\s{0,8}+"
_BOX = re.compile(f"<box>{','.join(4 * [_NUMBER])}</box>")
_LABELLED = re.compile(r"<ref>([^<>]{1,80}+)</ref>\s{0,8}+(<box>[0-9,\s]{7,64}+</box>)")


class Target(Protocol):
    """What makes a reply right."""

    def score(self, reply: str) -> float:
        """From 0 to 1."""

    def accept(self, reply: str) -> bool:
        """Whether the reply counts as right."""


@dataclass(frozen=True, slots=True)
class Exact:
    """Right is this text, white space around it aside."""

    text: str

    def score(self, reply: str) -> float:
        return float(reply.strip() == self.text)

    def accept(self, reply: str) -> bool:
        return reply.strip() == self.text


@dataclass(frozen=True, slots=True)
class BoxTarget:
    """Right is a box that shares more than half with this one.

    Attributes:
        corners: in thousandths of the picture's width and height, not rounded.
    """

    corners: Corners

    def score(self, reply: str) -> float:
        """Intersection over union of the first box of the reply; 0 where it holds none."""
        found = read_box(reply)
        return 0.0 if found is None else overlap(found, self.corners)

    def accept(self, reply: str) -> bool:
        return self.score(reply) > ENOUGH


@dataclass(frozen=True, slots=True)
class ThingsTarget:
    """Right are all things of a picture, each with its label and a box, and no other.

    Attributes:
        things: labels and corners in thousandths.
    """

    things: tuple[tuple[str, Corners], ...]

    def score(self, reply: str) -> float:
        """Things found, of those that are there or were named, whichever are more."""
        named = []
        for label, box in _LABELLED.findall(reply):
            corners = read_box(box)
            if corners is not None:
                named.append((label.strip(), corners))
        left, found = list(self.things), 0
        for label, corners in named:
            fits = [
                (overlap(corners, thing[1]), at)
                for at, thing in enumerate(left)
                if thing[0] == label
            ]
            if fits and max(fits)[0] > ENOUGH:
                del left[max(fits)[1]]
                found += 1
        return found / max(len(named), len(self.things))

    def accept(self, reply: str) -> bool:
        return self.score(reply) == 1.0


@dataclass(frozen=True, slots=True)
class CallTarget:
    """Right is this one call, in any form that the parser reads, and no text beside it.

    Attributes:
        call: with its arguments; their order does not matter, their types do.
        known: names of the tools on offer.
    """

    call: ToolCall
    known: tuple[str, ...]

    def score(self, reply: str) -> float:
        return float(self.accept(reply))

    def accept(self, reply: str) -> bool:
        match read_calls(CallParser(known=self.known), [reply.strip()]):
            case [ToolCall() as call]:
                return call.name == self.call.name and _same(call, self.call)
        return False


def write_box(corners: Sequence[float], step: int = 1, label: str = "") -> str:
    """``<ref>label</ref><box>x0,y0,x1,y1</box>`` in whole thousandths.

    Args:
        corners: in thousandths.
        step: numbers are rounded to multiples of it.
        label: left out where empty.
    """
    numbers = ",".join(str(int(number / step + 0.5) * step) for number in corners)
    return f"<ref>{label}</ref><box>{numbers}</box>" if label else f"<box>{numbers}</box>"


def read_box(text: str) -> Corners | None:
    """The first box of ``text``, or None: whole thousandths, the corners in order."""
    for match in _BOX.finditer(text):
        x0, y0, x1, y1 = (float(number) for number in match.groups())
        if x0 <= x1 <= SCALE and y0 <= y1 <= SCALE:
            return x0, y0, x1, y1
    return None


def overlap(one: Corners, other: Corners) -> float:
    """Area of the intersection over area of the union; 0 where neither has an area."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0.0) * max(height, 0.0)
    areas = ((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    union = sum(areas) - shared
    return shared / union if union > 0 else 0.0


def _same(one: ToolCall, other: ToolCall) -> bool:
    # As JSON, since Python finds True equal to 1, and 1 to 1.0.
    written = (json.dumps(dict(call.arguments), sort_keys=True) for call in (one, other))
    return next(written) == next(written)
