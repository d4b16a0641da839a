"""Tokens of a picture, written out by hand."""

import pytest

from llama4_core.errors import ModalityError
from llama4_core.tokenizers.specials import NAMED, special_ids
from llama4_vision.images.layout import layout, layout_ids
from llama4_vision.images.tiling import TilePlan, tile_plan

SHORT = {
    "S": "<|image_start|>",
    "E": "<|image_end|>",
    "I": "<|image|>",
    "p": "<|patch|>",
    "x": "<|tile_x_separator|>",
    "y": "<|tile_y_separator|>",
}

# Two tokens a tile; every row on its own.
LAYOUTS = {
    (1, 1): "S Ipp E",
    (1, 2): "S ppxppy Ipp E",
    (1, 3): "S ppxppxppy Ipp E",
    (1, 4): "S ppxppxppxppy Ipp E",
    (2, 1): "S ppy ppy Ipp E",
    (2, 2): "S ppxppy ppxppy Ipp E",
    (2, 3): "S ppxppxppy ppxppxppy Ipp E",
    (2, 4): "S ppxppxppxppy ppxppxppxppy Ipp E",
    (3, 1): "S ppy ppy ppy Ipp E",
    (3, 2): "S ppxppy ppxppy ppxppy Ipp E",
    (3, 3): "S ppxppxppy ppxppxppy ppxppxppy Ipp E",
    (3, 4): "S ppxppxppxppy ppxppxppxppy ppxppxppxppy Ipp E",
    (4, 1): "S ppy ppy ppy ppy Ipp E",
    (4, 2): "S ppxppy ppxppy ppxppy ppxppy Ipp E",
    (4, 3): "S ppxppxppy ppxppxppy ppxppxppy ppxppxppy Ipp E",
    (4, 4): "S ppxppxppxppy ppxppxppxppy ppxppxppxppy ppxppxppxppy Ipp E",
}


def plan_of(rows, columns):
    return TilePlan(1, 1, 336, rows, columns, 1, 1)


@pytest.mark.parametrize("grid", LAYOUTS, ids=str)
def test_grids_exactly(grid):
    expected = tuple(SHORT[letter] for letter in LAYOUTS[grid] if letter != " ")
    assert layout(plan_of(*grid), 2) == expected


@pytest.mark.parametrize("grid", LAYOUTS, ids=str)
@pytest.mark.parametrize("tokens", [1, 4, 144])
def test_patches_are_the_features(grid, tokens):
    plan = plan_of(*grid)
    names = layout(plan, tokens)
    rows, columns = grid
    assert names.count("<|patch|>") == plan.tiles * tokens
    assert names.count("<|tile_x_separator|>") == rows * (columns - 1)
    assert names.count("<|tile_y_separator|>") == (rows if plan.has_global else 0)


def test_totals_of_published_sizes():
    assert len(layout(tile_plan(100, 100), 144)) == 147
    assert len(layout(tile_plan(1920, 1080), 144)) == 2322


def test_ids_are_the_published_ones():
    specials = special_ids(200_000)
    ids = layout_ids(plan_of(1, 2), 1, specials)
    assert ids == (200080, 200092, 200084, 200092, 200085, 200090, 200092, 200081)
    assert set(layout(plan_of(2, 2), 1)) <= set(NAMED)


def test_a_tokenizer_without_the_tokens():
    specials = {name: 5 for name in SHORT.values() if name != "<|tile_x_separator|>"}
    assert layout_ids(plan_of(1, 1), 1, specials) == (5, 5, 5, 5)
    with pytest.raises(ModalityError, match=r"has no <\|tile_x_separator\|>; pictures need"):
        layout_ids(plan_of(1, 2), 1, specials)


@pytest.mark.parametrize("wrong", [0, -1, 2.0, True, "2", None])
def test_wrong_counts(wrong):
    with pytest.raises(
        ModalityError, match=r"^tokens_per_tile is .*expected a whole number from 1"
    ):
        layout(plan_of(1, 1), wrong)
