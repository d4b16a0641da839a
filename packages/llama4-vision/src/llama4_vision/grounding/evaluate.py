"""How well boxes that were found agree with those that were expected. Imports without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llama4_core.errors import ModalityError
from llama4_vision.grounding.boxes import Box, intersection, iou


@dataclass(frozen=True)
class Matching:
    """Which boxes go together.

    Attributes:
        pairs: index of a found box, of an expected box, and their IoU; best first.
        found, expected: how many there were of each.
    """

    pairs: tuple[tuple[int, int, float], ...]
    found: int
    expected: int

    @property
    def precision(self) -> float:
        """Share of the found boxes that are right; 1 where nothing was found."""
        return len(self.pairs) / self.found if self.found else 1.0

    @property
    def recall(self) -> float:
        """Share of the expected boxes that were found; 1 where nothing was expected."""
        return len(self.pairs) / self.expected if self.expected else 1.0


def iou_matrix(found: Sequence[Box], expected: Sequence[Box]) -> list[list[float]]:
    """IoU of each found box (rows) with each expected one (columns)."""
    return [[iou(one, other) for other in expected] for one in found]


def match(
    found: Sequence[Box], expected: Sequence[Box], threshold: float = 0.5, labels: bool = True
) -> Matching:
    """Pairs boxes greedily: the best pair first, each box in one pair at most.

    Args:
        found: boxes of one picture, as a model says them.
        expected: as they are.
        threshold: pairs need an IoU above it.
        labels: pairs need equal labels.

    Raises:
        ModalityError: the threshold is not within 0 and 1.
    """
    if not 0 <= threshold <= 1:
        raise ModalityError(f"threshold is {threshold}; expected 0 to 1")
    candidates = sorted(
        (-share, i, j)
        for i, row in enumerate(iou_matrix(found, expected))
        for j, share in enumerate(row)
        if share > threshold and (not labels or found[i].label == expected[j].label)
    )
    rows: set[int] = set()
    columns: set[int] = set()
    pairs = []
    for negative, i, j in candidates:
        if i not in rows and j not in columns:
            rows.add(i)
            columns.add(j)
            pairs.append((i, j, -negative))
    return Matching(tuple(pairs), len(found), len(expected))


def generalised_iou(one: Box, other: Box) -> float:
    """IoU less the empty share of the smallest box around both: -1 to 1.

    Unlike the IoU it tells boxes that lie near each other from those that lie far apart. The same
    in thousandths as in pixels. Source: Rezatofighi and others, "Generalized Intersection over
    Union", 2019.
    """
    around = (max(one.x1, other.x1) - min(one.x0, other.x0)) * (
        max(one.y1, other.y1) - min(one.y0, other.y0)
    )
    if around <= 0:
        return 0.0
    union = one.area + other.area - intersection(one, other)
    return iou(one, other) - (around - union) / around
