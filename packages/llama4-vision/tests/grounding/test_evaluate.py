"""How much boxes share, and which go together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama4_core.errors import ModalityError
from llama4_vision.grounding.boxes import Box, iou
from llama4_vision.grounding.evaluate import generalised_iou, iou_matrix, match


@st.composite
def boxes(draw, most=12):
    (x0, x1), (y0, y1) = (sorted(draw(st.integers(0, most)) for _ in "01") for _ in "xy")
    return Box(x0, y0, x1, y1, draw(st.sampled_from(["", "a", "b"])))


def cells(box: Box) -> set[tuple[int, int]]:
    """The unit squares of a small box with whole corners."""
    return {(x, y) for x in range(box.x0, box.x1) for y in range(box.y0, box.y1)}


@given(boxes(), boxes())
def test_overlap_is_what_counting_squares_gives(one, other):
    a, b = cells(one), cells(other)
    expected = len(a & b) / len(a | b) if a | b else 0
    assert iou(one, other) == pytest.approx(expected, abs=1e-12)  # float64, one division
    assert iou(one, other) == iou(other, one)
    around = {
        (x, y)
        for x in range(min(one.x0, other.x0), max(one.x1, other.x1))
        for y in range(min(one.y0, other.y0), max(one.y1, other.y1))
    }
    if around:
        expected -= (len(around) - len(a | b)) / len(around)
    assert generalised_iou(one, other) == pytest.approx(expected, abs=1e-12)
    assert -1 <= generalised_iou(one, other) <= iou(one, other) <= 1


def test_generalised_overlap_tells_near_from_far():
    one, near, far = Box(0, 0, 10, 10), Box(20, 0, 30, 10), Box(90, 0, 100, 10)
    assert iou(one, near) == iou(one, far) == 0
    assert generalised_iou(one, far) < generalised_iou(one, near) < 0


@given(st.lists(boxes(), max_size=6), st.lists(boxes(), max_size=6), st.sampled_from([0, 0.3, 0.5]))
def test_pairs_are_the_best_that_are_left(found, expected, threshold):
    matching = match(found, expected, threshold)
    matrix = iou_matrix(found, expected)
    rows, columns = [i for i, _, _ in matching.pairs], [j for _, j, _ in matching.pairs]
    assert len(set(rows)) == len(rows)
    assert len(set(columns)) == len(columns)
    left = {(i, j) for i in range(len(found)) for j in range(len(expected))}
    for i, j, share in matching.pairs:
        assert share == matrix[i][j] > threshold
        assert found[i].label == expected[j].label
        fits = [matrix[a][b] for a, b in left if found[a].label == expected[b].label]
        assert share == max(fits)
        left = {(a, b) for a, b in left if a != i and b != j}
    # And nothing that fits is left over.
    rest = [matrix[a][b] for a, b in left if found[a].label == expected[b].label]
    assert max(rest, default=0) <= threshold


def test_precision_and_recall():
    truth = [Box(0, 0, 10, 10, "a"), Box(20, 0, 30, 10, "a"), Box(40, 0, 50, 10, "b")]
    said = [Box(0, 0, 10, 9, "a"), Box(20, 0, 30, 10, "b"), Box(0, 0, 9, 10, "a")]
    matching = match(said, truth)
    assert matching.pairs == ((0, 0, 0.9),)
    assert (matching.precision, matching.recall) == (pytest.approx(1 / 3), pytest.approx(1 / 3))
    assert match(said, truth, labels=False).recall == pytest.approx(2 / 3)
    assert (match([], truth).precision, match([], truth).recall) == (1.0, 0.0)
    assert (match(said, []).precision, match(said, []).recall) == (0.0, 1.0)


def test_half_is_not_more_than_half():
    assert match([Box(0, 0, 10, 5)], [Box(0, 0, 10, 10)]).pairs == ()


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_a_threshold_is_a_share(threshold):
    with pytest.raises(ModalityError, match="expected 0 to 1"):
        match([], [], threshold)
