"""The convention of boxes in text, and the way back to pixels."""

from __future__ import annotations

import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama4_core.errors import ModalityError
from llama4_vision.grounding import boxes as module
from llama4_vision.grounding.boxes import (
    Box,
    from_pixels,
    parse_boxes,
    plain_text,
    to_pixels,
    write_boxes,
)

TAGS = ("<ref>", "</ref>", "<box>", "</box>")

thousandths = st.integers(0, 1000) | st.floats(0, 1000)
labels = st.text(max_size=12).filter(lambda text: not any(tag in text for tag in TAGS))
words = st.sampled_from(
    [
        *TAGS,
        "1,2,3,4",
        " 0 ,0,1000, 1000\n",
        "5,2,1,4",
        "1,2,3",
        "1001,0,0,1",
        "boat",
        " ",
        "<",
        ">",
    ]
)
texts = st.lists(words, max_size=24).map("".join)


@st.composite
def boxes(draw):
    (x0, x1), (y0, y1) = (sorted((draw(thousandths), draw(thousandths))) for _ in "xy")
    return Box(x0, y0, x1, y1, draw(labels))


@st.composite
def plans(draw):
    """Any picture at the start of any canvas, some of it in every tile."""
    tile = draw(st.integers(1, 400))
    rows, columns = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    return SimpleNamespace(
        width=draw(st.integers(1, 5000)),
        height=draw(st.integers(1, 5000)),
        tile=tile,
        rows=rows,
        columns=columns,
        resized_width=draw(st.integers((columns - 1) * tile + 1, columns * tile)),
        resized_height=draw(st.integers((rows - 1) * tile + 1, rows * tile)),
        has_global=rows * columns > 1,
        tiles=rows * columns + (rows * columns > 1),
    )


@given(st.lists(boxes(), max_size=5), st.text(max_size=8))
def test_what_is_written_is_read(drawn, before):
    read = parse_boxes(before + " " + write_boxes(drawn))
    assert [box.label for box in read] == [box.label for box in drawn]
    for one, other in zip(read, drawn, strict=True):
        assert all(isinstance(number, int) for number in one.corners)
        # Rounding to whole thousandths moves an edge by half of one at most.
        assert all(abs(a - b) <= 0.5 for a, b in zip(one.corners, other.corners, strict=True))
    assert write_boxes(read) == write_boxes(drawn)


def reference(text: str) -> list[Box]:
    """The convention once more, as one pattern that may take its time."""
    number = r"\s*([0-9]{1,4})\s*"
    inside = "(?:(?!<ref>|</ref>|<box>|</box>).)*"
    pattern = re.compile(
        rf"<ref>(?P<label>{inside})</ref>|<box>{number},{number},{number},{number}</box>", re.S
    )
    found, label, end, place = [], "", -1, 0
    while place < len(text):
        match = pattern.match(text, place)
        if match is None:
            place += 1
            continue
        if match["label"] is not None:
            label, end = match["label"].strip(), match.end()
        else:
            x0, y0, x1, y1 = (int(match[i]) for i in range(2, 6))
            follows = end >= 0 and not text[end : match.start()].strip()
            label = label if follows else ""
            if x0 <= x1 <= 1000 and y0 <= y1 <= 1000:
                found.append(Box(x0, y0, x1, y1, label))
                end = match.end()
            else:
                label, end = "", -1
        place = match.end()
    return found


@given(texts)
def test_the_scanner_agrees_with_the_convention_as_a_pattern(text):
    assert list(parse_boxes(text)) == reference(text)


@given(texts)
def test_boxes_of_a_text_that_arrives_are_the_first_of_the_whole(text):
    whole = parse_boxes(text)
    for end in range(len(text) + 1):
        part = parse_boxes(text[:end])
        assert part == whole[: len(part)]


@given(texts)
def test_a_text_for_people_keeps_all_that_is_no_box(text):
    if not parse_boxes(text):
        assert plain_text(text) == text
    for mark in ("<box>1,2,3</box>", "<ref>a</ref>"):
        assert plain_text(f"{text}.{mark}").endswith(f".{mark}")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("A <ref>boat</ref><box>1,2,3,4</box>.", "A boat."),
        ("<ref>boats</ref><box>1,2,3,4</box><box>5,6,7,8</box>!", "boats!"),
        ("Here: <box>1,2,3,4</box>", "Here: "),
        ("<ref>a</ref> and <box>1,2,3,4</box>", "<ref>a</ref> and "),
    ],
)
def test_what_people_are_shown(text, shown):
    assert plain_text(text) == shown


@pytest.mark.parametrize(
    "inside",
    [
        "1,2,3", "1,2,3,4,5", "-1,2,3,4", "1.5,2,3,4", "1001,0,1001,1", "0,0,1,1001", "3,2,1,4",
        "1,4,3,2", "", "a,b,c,d", "1 2 3 4", "99999,0,99999,1", "9" * 10_000 + ",0,1,1",
        " " * 100 + "1,2,3,4", "٣,٤,٥,٦", "[1,2,3,4]", "1,2,3,4<ref>", "+1,2,3,4",
    ],
)  # fmt: skip
def test_what_is_no_box_stays_in_the_text(inside):
    text = f"x<box>{inside}</box>y"
    assert parse_boxes(text) == ()
    assert plain_text(text) == text


def test_a_label_holds_as_long_as_only_white_space_follows():
    text = (
        "<ref> a\n</ref> <box>1,1,2,2</box>\n<box>3,3,4,4</box> then <box>5,5,6,6</box>"
        "<ref>b</ref><box>1,2</box><box>7,7,8,8</box><ref>c<ref>d</ref><box>9,9,9,9</box>"
    )
    assert [box.label for box in parse_boxes(text)] == ["a", "a", "", "", "d"]


def test_an_unlabelled_box_after_a_labelled_one_stays_so():
    pair = (Box(1, 1, 2, 2, "a"), Box(3, 3, 4, 4))
    assert write_boxes(pair).count("<ref>") == 2
    assert parse_boxes(write_boxes(pair)) == pair


HOSTILE = {
    "boxes without an end": lambda n: "<box>" * n,
    "labels without an end": lambda n: "<ref>" * n,
    "a label within a label": lambda n: "<ref>" * n + "</ref>" * n,
    "ends without a beginning": lambda n: "</box></ref>" * n,
    "white space without an end": lambda n: "<box>" + " " * 6 * n,
    "white space in every box": lambda n: ("<box>" + " " * 59) * n,
    "a huge number": lambda n: "<box>" + "9" * 6 * n + ",0,0,0</box>",
    "a huge label and many boxes": lambda n: "<ref>" + "a" * 6 * n + "</ref>" + BOX * n,
    "angle brackets": lambda n: "<" * 6 * n,
    "beginnings of tags": lambda n: "<bo<re</bo" * n,
    "many boxes": lambda n: BOX * n,
}
BOX = "<box>0,0,1,1</box>"


class Counting:
    """A pattern that counts the characters which it is given to look at."""

    def __init__(self, pattern):
        self.pattern, self.seen, self.most = pattern, 0, 0

    def finditer(self, text):
        self.seen += len(text)
        return self.pattern.finditer(text)

    def fullmatch(self, text, start, end):
        self.seen += end - start
        self.most = max(self.most, end - start)
        return self.pattern.fullmatch(text, start, end)


def work(text: str, monkeypatch) -> tuple[int, int]:
    """Characters given to patterns, and lines of the parser run."""
    with monkeypatch.context() as patch:
        patterns = [Counting(module._TAG), Counting(module._NUMBERS)]
        patch.setattr(module, "_TAG", patterns[0])
        patch.setattr(module, "_NUMBERS", patterns[1])
        lines = 0

        def trace(frame, event, _):
            nonlocal lines
            if frame.f_code.co_filename != module.__file__:
                return None
            lines += event == "line"
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            parse_boxes(text)
        finally:
            sys.settrace(before)
        assert patterns[1].most <= module.LONGEST
        return sum(pattern.seen for pattern in patterns), lines


@pytest.mark.parametrize("name", HOSTILE)
def test_work_grows_as_the_text_does(name, monkeypatch):
    """Counted, not timed: twice the text, twice the work at most, and little for each character.

    Neither pattern can go back over what it has read (the next test), so what they are given is
    what they look at, but for a constant factor.
    """
    short, long = HOSTILE[name](200), HOSTILE[name](400)
    (seen_short, lines_short), (seen, lines) = work(short, monkeypatch), work(long, monkeypatch)
    # 40: lines that a text without tags takes, which do not double.
    assert seen <= 2 * seen_short + 40
    assert lines <= 2 * lines_short + 40
    # Each character is in one search for tags, and at most once between a tag and its end.
    assert seen <= 2 * len(long)
    # A tag has at least 5 characters and runs some 20 lines, its box's own included.
    assert lines <= 8 * len(long) + 40


def test_the_patterns_cannot_go_back():
    """Fixed words; or bounded digits and possessive white space, on few characters."""
    assert not set("*+?{") & set(module._TAG.pattern)
    loose = re.sub(r"\\s\*\+|\{1,4\}", "", module._NUMBERS.pattern)
    assert not set("*+?{") & set(loose)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_megabytes_are_read(name):
    text = HOSTILE[name](200_000 if "boxes" not in name else 20_000)
    found = parse_boxes(text)
    assert len(found) == text.count(BOX)


@given(plans(), st.data())
def test_a_box_goes_to_a_frame_and_comes_back(plan, data):
    frame = data.draw(
        st.sampled_from(["picture", "canvas", *(f"tile:{n}" for n in range(plan.tiles))])
    )
    box = data.draw(boxes())
    pixels = to_pixels(box, plan, frame)
    assert 0 <= pixels[0] <= pixels[2] <= plan.width
    assert 0 <= pixels[1] <= pixels[3] <= plan.height
    back = from_pixels(pixels, plan, frame, box.label)
    again = to_pixels(back, plan, frame)
    # float64 arithmetic on numbers up to 5,000 from a few multiplications.
    assert again == pytest.approx(pixels, abs=1e-6)
    if frame in ("picture", f"tile:{plan.tiles - 1}") and (plan.has_global or frame == "picture"):
        assert back.corners == pytest.approx(box.corners, abs=1e-6)


@given(plans(), st.data())
def test_points_of_tiles_lie_where_the_canvas_is_cut(plan, data):
    """By definition: the picture resized, put at the top left, cut into squares row by row."""
    n = data.draw(st.integers(0, plan.rows * plan.columns - 1))
    x, y = data.draw(st.integers(0, 1000)), data.draw(st.integers(0, 1000))
    row, column = n // plan.columns, n % plan.columns
    on_canvas = (column * plan.tile + x * plan.tile / 1000, row * plan.tile + y * plan.tile / 1000)
    expected = (
        min(on_canvas[0] / plan.resized_width, 1) * plan.width,
        min(on_canvas[1] / plan.resized_height, 1) * plan.height,
    )
    found = to_pixels(Box(x, y, x, y), plan, f"tile:{n}")
    assert found[:2] == found[2:] == pytest.approx(expected, abs=1e-6)  # float64, as above
    x = min(on_canvas[0] / (plan.columns * plan.tile) * 1000, 1000)
    y = min(on_canvas[1] / (plan.rows * plan.tile) * 1000, 1000)
    assert to_pixels(Box(x, y, x, y), plan, "canvas")[:2] == pytest.approx(expected, abs=1e-6)


@given(plans(), st.data())
def test_a_rounded_box_is_half_a_thousandth_of_its_frame_off(plan, data):
    """Picture to a frame as a model would write it, and back to the picture."""
    frame = data.draw(st.sampled_from(["picture", "canvas", "tile:0"]))
    width, height = to_pixels(Box(0, 0, 1000, 1000), plan, frame)[2:]
    xs = sorted(data.draw(st.floats(0, width)) for _ in "01")
    ys = sorted(data.draw(st.floats(0, height)) for _ in "01")
    pixels = (xs[0], ys[0], xs[1], ys[1])
    (read,) = parse_boxes(write_boxes([from_pixels(pixels, plan, frame)]))
    again = to_pixels(read, plan, frame)
    # Half a thousandth of the frame, which reaches beyond the picture where there is padding.
    x_size = plan.columns * plan.tile * plan.width / plan.resized_width
    y_size = plan.rows * plan.tile * plan.height / plan.resized_height
    x_size, y_size = max(x_size, plan.width), max(y_size, plan.height)
    for place, size in zip(range(4), (x_size, y_size) * 2, strict=True):
        assert abs(again[place] - pixels[place]) <= size / 2000 + 1e-6


def test_the_tiling_rule_gives_the_same_frames():
    tile_plan = pytest.importorskip("llama4_vision.images.tiling").tile_plan
    plan = tile_plan(1920, 1080)  # 3 x 5 tiles and a global one, resized to 1680 x 945
    assert to_pixels(Box(0, 0, 1000, 1000), plan, "tile:15") == (0, 0, 1920, 1080)
    assert to_pixels(Box(0, 0, 1000, 1000), plan, "canvas") == (0, 0, 1920, 1080)
    x0, y0, x1, y1 = to_pixels(Box(0, 0, 1000, 1000), plan, "tile:6")
    assert (x0, y0, x1, y1) == pytest.approx((384, 384, 768, 768))
    one = tile_plan(336, 168)
    assert not one.has_global
    assert to_pixels(Box(0, 0, 1000, 500), one, "tile:0") == (0, 0, 336, 168)


@pytest.mark.parametrize("frame", ["", "Picture", "tile", "tile:", "tile:5", "tile:-1", "tile:٣"])
def test_unknown_frames_are_refused(frame):
    plan = SimpleNamespace(
        width=9, height=9, tile=4, rows=2, columns=2, resized_width=8, resized_height=8,
        has_global=True, tiles=5,
    )  # fmt: skip
    with pytest.raises(ModalityError, match="from 0 to 4"):
        to_pixels(Box(0, 0, 1, 1), plan, frame)


def test_pixels_outside_a_frame_are_refused():
    plan = SimpleNamespace(
        width=8, height=8, tile=4, rows=2, columns=2, resized_width=8, resized_height=8,
        has_global=True, tiles=5,
    )  # fmt: skip
    with pytest.raises(ModalityError, match="outside of 'tile:0'"):
        from_pixels((5, 0, 6, 1), plan, "tile:0")
    with pytest.raises(ModalityError, match="x0 <= x1"):
        from_pixels((5, 0, 4, 1), plan)
    assert from_pixels((2, 2, 6, 6), plan, "tile:0") == Box(500, 500, 1000, 1000)
    assert from_pixels((2, 2, 6, 6), plan, "tile:3") == Box(0, 0, 500, 500)


@pytest.mark.parametrize(
    "corners", [(-1, 0, 1, 1), (0, 0, 1001, 1), (2, 0, 1, 1), (0, 2, 1, 1), (float("nan"),) * 4]
)
def test_corners_that_are_no_box(corners):
    with pytest.raises(ModalityError, match="0 <= x0 <= x1"):
        Box(*corners)


def test_a_label_that_holds_a_tag_is_not_written():
    with pytest.raises(ModalityError, match="holds a tag"):
        write_boxes([Box(0, 0, 1, 1, "a</ref>")])


def test_imports_neither_torch_nor_pillow():
    code = (
        "import sys, llama4_vision.grounding.boxes, llama4_vision.grounding.evaluate\n"
        "sys.exit('torch' in sys.modules or 'PIL' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
