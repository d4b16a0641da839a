"""Boxes out of replies: the convention, overlap by counting, captions."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama4_train.worlds.targets import (
    BoxTarget,
    Exact,
    ThingsTarget,
    overlap,
    read_box,
    write_box,
)

sides = st.tuples(st.integers(0, 12), st.integers(0, 12)).map(sorted)
boxes = st.tuples(sides, sides).map(lambda pair: (pair[0][0], pair[1][0], pair[0][1], pair[1][1]))


@given(one=boxes, other=boxes)
def test_overlap_is_what_counting_cells_gives(one, other):
    def cells(box):
        return set(itertools.product(range(box[0], box[2]), range(box[1], box[3])))

    both, either = len(cells(one) & cells(other)), len(cells(one) | cells(other))
    # Both are quotients of the same small whole numbers.
    assert overlap(one, other) == (both / either if either else 0.0)
    assert overlap(one, other) == overlap(other, one)


@given(
    box=boxes, step=st.sampled_from([1, 2, 4, 5, 10, 20]), label=st.sampled_from(["", "red star"])
)
def test_a_written_box_is_read_back(box, step, label):
    corners = tuple(1000 * number / 12 for number in box)
    text = write_box(corners, step, label)
    read = read_box(text)
    assert all(number % step == 0 for number in read)
    assert all(abs(a - b) <= step / 2 for a, b in zip(read, corners, strict=True))
    assert text.startswith("<ref>red star</ref><box>" if label else "<box>")


@pytest.mark.parametrize(
    ("text", "box"),
    [
        ("<box>1,2,3,4</box>", (1, 2, 3, 4)),
        ("here: <ref>cat</ref> <box> 1, 2,3 ,4 </box> and <box>5,6,7,8</box>", (1, 2, 3, 4)),
        ("<box>3,2,1,4</box><box>0,0,1000,1000</box>", (0, 0, 1000, 1000)),
        ("<box>1,2,3,1001</box>", None),
        ("<box>1,2,3</box>", None),
        ("<box>1,2,3,4,5</box>", None),
        ("<box>-1,2,3,4</box>", None),
        ("<box>1.5,2,3,4</box>", None),
        ("<box>1,2,3,٤</box>", None),
        ("1,2,3,4", None),
        ("<box>" * 10000, None),
    ],
)
def test_what_is_a_box_and_what_is_not(text, box):
    assert read_box(text) == box


def test_a_box_counts_when_it_shares_more_than_half():
    target = BoxTarget((0, 0, 100, 100))
    assert target.score("<box>0,0,100,100</box>") == 1
    assert target.score("<box>0,0,100,50</box>") == 0.5
    assert not target.accept("<box>0,0,100,50</box>")
    assert target.accept("<box>0,0,100,51</box>")
    assert target.score("nowhere") == 0


def test_a_caption_is_scored_by_the_things_that_are_found():
    target = ThingsTarget((("red star", (0, 0, 100, 100)), ("blue cross", (500, 500, 600, 600))))
    star = "<ref>red star</ref><box>0,0,100,100</box>"
    cross = "<ref>blue cross</ref><box>500,500,600,600</box>"
    assert target.accept(cross + star)
    assert target.score(star) == 0.5
    assert target.score(star + star) == 0.5
    assert target.score(star + cross + star) == pytest.approx(2 / 3)
    assert target.score(star.replace("red", "blue") + cross) == 0.5
    assert target.score("") == 0
    assert not target.accept(star)


def test_exact_text_is_exact():
    assert Exact("red").accept(" red \n")
    assert not Exact("red").accept("Red")
    assert not Exact("red").accept("red.")
    assert Exact("red").score("blue") == 0
