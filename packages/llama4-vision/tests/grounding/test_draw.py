"""Boxes on a picture: where their colour lies, and what is left of a failure."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from llama4_core.errors import ModalityError
from llama4_core.show.drawing import COLOURS
from llama4_vision.grounding.annotate import annotate
from llama4_vision.grounding.boxes import Box
from llama4_vision.grounding.draw import draw_boxes

GREY = (120, 130, 140)


def rgb(colour: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(colour[1:]))


def changed(path: Path) -> set[tuple[int, int]]:
    """Pixels of a picture that was grey."""
    with Image.open(path) as image:
        assert image.format == "PNG"
        drawn = image.convert("RGB")
    pixels = drawn.load()
    return {(x, y) for x in range(drawn.width) for y in range(drawn.height) if pixels[x, y] != GREY}


@given(st.tuples(st.integers(1, 60), st.integers(1, 60)), st.data())
def test_the_edges_of_a_box_are_where_it_says(tmp_path_factory, size, data):
    xs, ys = (sorted(data.draw(st.integers(0, 1000)) for _ in "01") for _ in "xy")
    path = tmp_path_factory.mktemp("drawn") / "out.png"
    draw_boxes(Image.new("RGB", size, GREY), [Box(xs[0], ys[0], xs[1], ys[1])], path)
    # One pixel wide at this size. Pixel i holds the places from i to i + 1.
    left, right = (min(x * size[0] // 1000, size[0] - 1) for x in xs)
    top, bottom = (min(y * size[1] // 1000, size[1] - 1) for y in ys)
    edge = {(x, y) for x in (left, right) for y in range(top, bottom + 1)}
    edge |= {(x, y) for y in (top, bottom) for x in range(left, right + 1)}
    assert changed(path) == edge


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (200, 3), (120, 90)])
@pytest.mark.parametrize("corner", [0, 500, 1000])
@pytest.mark.parametrize(
    "label", ["boat", "a very long label " * 500, "two\nlines", "日本", "\ud800", "\x00\x1b[1m"]
)
def test_a_label_stays_in_the_picture(tmp_path, size, corner, label):
    path = tmp_path / "out.png"
    draw_boxes(Image.new("RGB", size, GREY), [Box(corner, corner, 1000, 1000, label)], path)
    with Image.open(path) as image:
        assert image.size == size
    if size == (120, 90):  # there is room, so the plate is there: more than the outline of the box
        own = (120 - corner * 120 // 1000 + 90 - corner * 90 // 1000) * 2
        assert len(changed(path)) > own


@pytest.mark.parametrize("corner", [(1000, 1000), (1000, 0), (0, 1000), (500, 10)])
def test_a_label_at_an_edge_is_moved_and_not_cut(tmp_path, corner):
    """The plate of a point has the same size wherever the point is."""
    sizes = []
    for index, (x, y) in enumerate([(500, 500), corner]):
        path = tmp_path / f"{index}.png"
        draw_boxes(Image.new("RGB", (120, 90), GREY), [Box(x, y, x, y, "boat")], path)
        xs, ys = zip(*changed(path), strict=True)
        sizes.append((max(xs) - min(xs), max(ys) - min(ys)))
    # The point itself may stand out below its plate by one pixel.
    assert sizes[0][0] == sizes[1][0]
    assert 0 <= sizes[0][1] - sizes[1][1] <= 1


def test_a_label_is_written_on_its_colour_above_its_box(tmp_path):
    path = tmp_path / "out.png"
    box = Box(100, 500, 900, 900, "boat")
    draw_boxes(Image.new("RGB", (200, 200), GREY), [box], path)
    above = {(x, y) for x, y in changed(path) if y < 100}
    assert above
    assert min(x for x, _ in above) == 20
    assert max(y for _, y in above) == 99
    with Image.open(path) as image:
        colours = {image.convert("RGB").getpixel(place) for place in above}
    assert rgb(COLOURS[0]) in colours
    assert max(min(colour) for colour in colours) > 200  # white, at least nearly, at smoothed edges


def test_boxes_of_one_label_have_one_colour(tmp_path):
    path = tmp_path / "out.png"
    three = [Box(0, 0, 200, 200, "a"), Box(300, 300, 500, 500, "b"), Box(600, 600, 900, 900, "a")]
    draw_boxes(Image.new("RGB", (300, 300), GREY), three, path)
    with Image.open(path) as image:
        drawn = image.convert("RGB")
    seen = [drawn.getpixel((x, x)) for x in (60, 150, 270)]
    assert seen == [rgb(COLOURS[0]), rgb(COLOURS[1]), rgb(COLOURS[0])]


def test_the_picture_itself_is_left_alone(tmp_path):
    image = Image.new("RGB", (40, 40), GREY)
    draw_boxes(image, [Box(0, 0, 1000, 1000, "x")], tmp_path / "out.png")
    assert image.getcolors() == [(1600, GREY)]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "out.png"
    path.write_bytes(b"old")

    def fail(self, file, **settings):
        file.write(b"half of a pict")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(ModalityError, match="No space left on device"):
        draw_boxes(Image.new("RGB", (4, 4)), [], path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_old_file_is_there_until_the_new_one_is_complete(tmp_path, monkeypatch):
    path, other = tmp_path / "out.png", tmp_path / "other name of it"
    path.write_bytes(b"old")
    other.hardlink_to(path)
    save = Image.Image.save

    def look(self, file, **settings):
        save(self, file, **settings)
        assert path.read_bytes() == b"old"

    monkeypatch.setattr(Image.Image, "save", look)
    draw_boxes(Image.new("RGB", (4, 4)), [], path)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert other.read_bytes() == b"old"  # put in its place, and not written over it


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("out.jpg", "ends in .png"),
        ("out", "ends in .png"),
        ("nowhere/out.png", "no such folder"),
        ("folder.png", "is a folder"),
    ],
)
def test_places_that_are_refused(tmp_path, name, message):
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(ModalityError, match=message):
        draw_boxes(Image.new("RGB", (4, 4)), [], tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["folder.png"]


def test_annotating_gives_plain_values(tmp_path):
    text = "Here: <ref>boat</ref><box>100,200,500,1000</box>, and <box>nothing</box>."
    path = tmp_path / "out.png"
    found = annotate(Image.new("RGB", (200, 50), GREY), text, path)
    assert found == [
        {"label": "boat", "box": [100, 200, 500, 1000], "pixels": [20.0, 10.0, 100.0, 50.0]}
    ]
    assert changed(path)


def test_a_text_without_boxes_gives_the_picture_as_it_is(tmp_path):
    assert annotate(Image.new("RGB", (9, 9), GREY), "no box", tmp_path / "out.png") == []
    assert changed(tmp_path / "out.png") == set()
