"""``llama4 show tiling``: a grid and tokens as text, a figure with ``--out``, numbers as JSON."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from llama4_core.cli import main
from llama4_vision.cli.tiling import numbers, text
from llama4_vision.images.layout import layout
from llama4_vision.images.tiling import tile_plan

sides = st.integers(1, 3000)


@pytest.fixture
def llama4(capsys):
    def run(*words: str) -> tuple[int, str, str]:
        code = main(["show", "tiling", *words])
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "picture.png"
    Image.effect_mandelbrot((640, 480), (-2, -1.5, 1, 1.5), 20).save(path)
    return path


def test_a_size_as_text(llama4):
    code, out, _ = llama4("1920x1080")
    assert code == 0
    assert "3 x 5 (rows x columns) of 336 x 336: 1680 x 1008 pixels" in out
    assert "resized  to 1680 x 945; padding: 63 pixels at the bottom" in out
    assert "tokens   2,322: 16 x 144 = 2,304 of tiles, 18 of borders" in out
    assert "start [144] x [144] x [144] x [144] x [144] y\n[144] x" in out
    assert "image [144] end" in out


def test_one_tile_has_no_global_one(llama4):
    code, out, _ = llama4("336x100")
    assert code == 0
    assert "global   none" in out
    assert "start image [144] end" in out
    assert "separator" not in out


def test_a_picture_is_shown_by_its_size(llama4, picture):
    assert llama4(str(picture))[1] == llama4("640x480")[1]


def test_a_rotated_picture_is_shown_as_people_see_it(llama4, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    path = tmp_path / "turned.jpg"
    Image.new("RGB", (800, 300)).save(path, exif=exif)
    assert llama4(str(path))[1] == llama4("300x800")[1]


def test_json_has_the_numbers(llama4):
    code, out, _ = llama4("800x300", "--tile", "112", "--max-tiles", "4", "--json")
    assert code == 0
    found = json.loads(out)
    assert (found["rows"], found["columns"], found["tiles"]) == (1, 3, 4)
    assert found["tokens_per_tile"] == 16
    assert found["canvas"] == [336, 112]
    assert found["padding"] == [336 - found["resized_width"], 112 - found["resized_height"]]
    assert found["layout"][1] == [["<|image|>", 1], ["<|patch|>", 16], ["<|image_end|>", 1]]


@given(sides, sides, st.sampled_from([28, 56, 336]), st.integers(1, 16))
def test_nothing_is_lost_between_the_layout_and_what_is_shown(width, height, tile, most):
    plan = tile_plan(width, height, tile, most)
    each = (tile // 28) ** 2
    found = numbers(plan, each)
    names = [name for row in found["layout"] for name, count in row for _ in range(count)]
    assert tuple(names) == layout(plan, each)
    assert found["tokens"] == len(names)
    # A line for each row of tiles, and one for the global tile; or the only one.
    assert len(found["layout"]) == (plan.rows + 1 if plan.has_global else 1)
    shown = text(plan, each)
    for tile_number in range(plan.rows * plan.columns):
        assert str(tile_number) in shown.split("tokens  ")[1]


@given(sides, sides)
def test_the_grid_shades_what_lies_outside_of_the_picture(width, height):
    plan = tile_plan(width, height)
    lines = [line for line in text(plan, 144).splitlines() if line.startswith("│")]
    cells = [line.replace("│", "") for line in lines]
    wide, high = len(cells[0]), len(cells)
    for y, line in enumerate(cells):
        for x, cell in enumerate(line):
            outside = (x + 0.5) / wide * plan.columns * 336 > plan.resized_width
            outside |= (y + 0.5) / high * plan.rows * 336 > plan.resized_height
            assert cell.isdigit() or (cell == "░") == outside


@pytest.mark.parametrize("ending", ["png", "svg"])
@pytest.mark.parametrize("what", ["picture", "9000x300", "300x9000", "10x10"])
def test_a_file_is_drawn(llama4, picture, tmp_path, what, ending):
    pytest.importorskip("matplotlib")
    file = tmp_path / f"tiling.{ending}"
    code, out, err = llama4(str(picture) if what == "picture" else what, "-o", str(file))
    assert (code, out, err) == (0, f"Wrote {file}\n", "")
    assert file.read_bytes()[:8] in (b"\x89PNG\r\n\x1a\n", b"<?xml ve")


def test_the_figure_shows_the_picture_and_every_tile(picture):
    pytest.importorskip("matplotlib")
    from llama4_vision.cli.tiling import rows_of
    from llama4_vision.cli.tiling_figure import draw

    plan = tile_plan(640, 480)
    with Image.open(picture) as image:
        canvas, whole, tokens = draw(plan, rows_of(plan, 144), image.convert("RGB")).axes
    assert [tuple(axes.images[0].get_extent()) for axes in (canvas, whole)] == [
        (0, 640, 480, 0),
        (0, 336, 336, 0),
    ]
    assert [label.get_text() for label in canvas.texts] == ["0", "1", "2", "3"]
    assert [label.get_text() for label in tokens.texts] == [f"{tile}: 144" for tile in range(5)]
    # The padding at the right and at the bottom together, not overlapping.
    boxes = [patch.get_path().get_extents() for patch in canvas.patches]
    padding = sum(box.width * box.height for box in boxes)
    assert padding == 672 * 672 - 640 * 480


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing.png"], "nothing.png"),
        (["0x10"], "at least 1x1"),
        (["10x"], "10x"),
        (["10x10", "--tile", "100"], "--tile is 100; expected a multiple of 28"),
        (["10x10", "--tile", "0"], "--tile is 0"),
        (["10x10", "--tile", "28000000"], "up to 1344"),
        (["10x10", "--tile", "x"], "--tile"),
        (["10x10", "--max-tiles", "0"], "--max-tiles is 0; expected 1 to 256"),
        (["10x10", "--max-tiles", "1000000000"], "expected 1 to 256"),
        (["10x10", "--out", "tiling.jpeg"], "ends in .png"),
        (["http://127.0.0.1/a.png"], "http"),
    ],
)
def test_errors_are_one_line(llama4, words, message):
    code, out, err = llama4(*words)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_a_text_called_png_is_one_line(llama4, tmp_path):
    path = tmp_path / "text.png"
    path.write_text("no picture")
    code, out, err = llama4(str(path))
    assert (code, out, err.count("\n")) == (2, "", 1)


def test_a_size_needs_neither_torch_nor_pillow():
    code = (
        "import sys\n"
        "from llama4_core.cli import main\n"
        "assert main(['show', 'tiling', '640x480']) == 0\n"
        "sys.exit('torch' in sys.modules or 'PIL' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    assert done.returncode == 0, done.stderr
