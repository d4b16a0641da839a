"""The tiling rule: against stored figures, a statement of it in integers, and transformers' own."""

import ast
import importlib.util
import json
import math
import random
import subprocess
import sys
from collections import defaultdict, namedtuple
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llama4_core.errors import ModalityError
from llama4_vision.images.layout import layout
from llama4_vision.images.tiling import canvases, tile_plan

GOLDENS = json.loads((Path(__file__).parent / "tiling.json").read_text())
SIDES = st.one_of(
    st.integers(1, 6_000),
    st.integers(1, 40),
    st.integers(1, 70_000),
    # Around whole tiles, where one pixel more is another canvas.
    st.builds(lambda tiles, off: max(1, 336 * tiles + off), st.integers(1, 17), st.integers(-1, 1)),
)


def exact_grids(width, height, tile=336, most=16):
    """All best grids, in whole numbers: scales are multiplied by ``width * height``."""
    scales = {
        (rows, columns): min(columns * tile * height, rows * tile * width)
        for rows in range(1, most + 1)
        for columns in range(1, most + 1)
        if rows * columns <= most
    }
    growing = [scale for scale in scales.values() if scale >= width * height]
    wanted = min(growing) if growing else max(scales.values())
    fitting = [grid for grid, scale in scales.items() if scale == wanted]
    area = min(rows * columns for rows, columns in fitting)
    return [grid for grid in fitting if grid[0] * grid[1] == area]


@pytest.mark.parametrize("golden", GOLDENS, ids=lambda g: f"{g['w']}x{g['h']}")
def test_stored_figures(golden):
    plan = tile_plan(golden["w"], golden["h"])
    assert (plan.rows, plan.columns) == (golden["tiles_h"], golden["tiles_w"])
    assert (plan.resized_height, plan.resized_width) == (golden["resize_h"], golden["resize_w"])
    assert plan.tiles == golden["n_tiles_with_global"]
    assert len(layout(plan, 144)) == golden["tokens_total"]


def test_there_are_fifty_canvases():
    assert len(canvases(16)) == 50
    assert len(set(canvases(16))) == 50
    assert all(rows * columns <= 16 for rows, columns in canvases(16))


@given(SIDES, SIDES)
def test_the_grid_is_the_only_best_one(width, height):
    plan = tile_plan(width, height)
    assert exact_grids(width, height) == [(plan.rows, plan.columns)]


@given(SIDES, SIDES, st.integers(1, 500), st.integers(1, 40))
def test_the_rule_holds_for_other_tiles_and_limits(width, height, tile, most):
    plan = tile_plan(width, height, tile, most)
    assert exact_grids(width, height, tile, most) == [(plan.rows, plan.columns)]
    assert plan.tiles == plan.rows * plan.columns + (plan.rows * plan.columns > 1)


@given(SIDES, SIDES)
def test_the_picture_keeps_its_shape_and_lies_on_the_canvas(width, height):
    plan = tile_plan(width, height)
    wide = min(max(width, 336), plan.columns * 336)
    high = min(max(height, 336), plan.rows * 336)
    assert 1 <= plan.resized_width <= wide
    assert 1 <= plan.resized_height <= high
    # One side is filled; the other is the exact size, rounded down in floating point: that may be
    # one less where the exact size is a whole number.
    if wide * height < high * width:
        filled, other, exact, whole = (
            plan.resized_width == wide,
            plan.resized_height,
            *divmod(height * wide, width),
        )
    else:
        filled, other, exact, whole = (
            plan.resized_height == high,
            plan.resized_width,
            *divmod(width * high, height),
        )
    assert filled
    assert other == max(1, exact) or (not whole and other == max(1, exact - 1))


@given(SIDES, SIDES)
def test_turning_the_picture_turns_the_plan(width, height):
    one, other = tile_plan(width, height), tile_plan(height, width)
    assert (one.rows, one.columns) == (other.columns, other.rows)
    if width != height:
        assert one.resized_width == other.resized_height
        assert one.resized_height == other.resized_width


@given(st.integers(1, 336), st.integers(1, 336))
def test_what_fits_one_tile_is_one_tile(width, height):
    plan = tile_plan(width, height)
    assert (plan.rows, plan.columns, plan.tiles, plan.has_global) == (1, 1, 1, False)
    assert max(plan.resized_width, plan.resized_height) == 336


@pytest.fixture(scope="module")
def published():
    """The rule out of the installed transformers, whose module itself needs torchvision."""
    folder = Path(importlib.util.find_spec("transformers").origin).parent
    path = folder / "models" / "llama4" / "image_processing_llama4.py"
    names = {
        "get_factors", "get_max_res_without_distortion", "find_supported_resolutions",
        "get_best_fit",
    }  # fmt: skip
    tree = ast.parse(path.read_text())
    tree.body = [
        node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in names
    ]
    space = {
        "math": math, "torch": torch, "defaultdict": defaultdict, "lru_cache": lru_cache,
        "SizeDict": object,
    }  # fmt: skip
    exec(compile(tree, str(path), "exec"), space)  # noqa: S102 - a file of an installed library
    square = namedtuple("Square", "height width")(336, 336)
    grids = torch.tensor(space["find_supported_resolutions"](16, square))

    def rule(width, height):
        canvas = space["get_best_fit"]((height, width), grids).tolist()
        target = tuple(
            min(max(side, 336), most) for side, most in zip((height, width), canvas, strict=True)
        )
        resized = space["get_max_res_without_distortion"]((height, width), target)
        # The class does this itself, before it resizes.
        return canvas[0] // 336, canvas[1] // 336, *(max(side, 1) for side in resized)

    return rule


def test_four_thousand_sizes_as_transformers(published):
    draw = random.Random(4)
    sizes = [
        (round(math.exp(draw.uniform(0, 9.5))), round(math.exp(draw.uniform(0, 9.5))))
        for _ in range(2_000)
    ]
    sizes += [(draw.randint(1, 3_000), draw.randint(1, 3_000)) for _ in range(2_000)]
    for width, height in sizes:
        plan = tile_plan(width, height)
        found = (plan.rows, plan.columns, plan.resized_height, plan.resized_width)
        assert found == published(width, height), (width, height)
        assert exact_grids(width, height) == [(plan.rows, plan.columns)]


@pytest.mark.parametrize(
    ("width", "height", "exact"),
    [(45, 60, 252), (55, 77, 240), (60, 45, 252), (45, 240, 63), (110, 154, 240)],
)
def test_sizes_where_floats_round_down_what_is_whole(width, height, exact, published):
    plan = tile_plan(width, height)
    assert min(width, height) * 336 % max(width, height) == 0
    assert min(plan.resized_width, plan.resized_height) == exact - 1
    assert published(width, height)[2:] == (plan.resized_height, plan.resized_width)


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, "8", None])
@pytest.mark.parametrize("name", ["width", "height", "tile", "max_tiles"])
def test_wrong_numbers(name, wrong):
    values = {"width": 10, "height": 10, "tile": 336, "max_tiles": 16, name: wrong}
    with pytest.raises(ModalityError, match=f"^{name} is .*expected a whole number from 1"):
        tile_plan(**values)


def test_the_rule_needs_no_torch():
    code = (
        "import sys, llama4_vision.images.layout, llama4_vision.images.limits, "
        "llama4_vision.images.sources, llama4_vision.images.formats, llama4_vision.images.open, "
        "llama4_vision.images.key; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
