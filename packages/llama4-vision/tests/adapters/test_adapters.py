"""Pixel shuffle and pooling against their definitions, place by place."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from llama4_core.errors import SpecError
from llama4_core.plugins.catalogue import catalogue
from llama4_core.plugins.choose import Assembler
from llama4_core.specs.model import VisionSpec
from llama4_vision.adapters.pooled import PooledLinear
from llama4_vision.adapters.shuffle import PixelShuffleMlp, pixel_shuffle, pixel_unshuffle
from llama4_vision.testing.laws import fill

few = st.integers(1, 3)


def spec_of(ratio):
    return VisionSpec(16, 1, 2, 24, 8, 2, 3, ratio, 7, 5, theta=1e4, norm_eps=1e-5)


def made(target, grid, width, ratio=0.5):
    adapter = target(spec_of(ratio), grid, width, Assembler(catalogue()).child("adapter"))
    fill(adapter)
    return adapter


@given(batch=few, rows=few, columns=few, block=few, width=few)
def test_shuffle_there_and_back(batch, rows, columns, block, width):
    grid = (rows * block, columns * block)
    features = torch.randn(batch, grid[0] * grid[1], width)
    tokens = pixel_shuffle(features, grid, block)
    assert tokens.shape == (batch, rows * columns, block**2 * width)
    assert torch.equal(pixel_unshuffle(tokens, grid, block), features)


@given(rows=few, columns=few, block=few, width=few)
def test_shuffle_place_by_place(rows, columns, block, width):
    """Token (R, C) holds the places (R b + r, C b + c), in the order r0c0, r0c1, r1c0, ..."""
    grid = (rows * block, columns * block)
    features = torch.arange(grid[0] * grid[1] * width).reshape(1, -1, width)
    tokens = pixel_shuffle(features, grid, block)
    for token in range(rows * columns):
        R, C = divmod(token, columns)
        for inner in range(block**2):
            r, c = divmod(inner, block)
            place = (R * block + r) * grid[1] + C * block + c
            part = tokens[0, token, inner * width : (inner + 1) * width]
            assert torch.equal(part, features[0, place])


@given(batch=few, rows=few, columns=few, block=few, width=few)
def test_pooled_is_an_average_pooling(batch, rows, columns, block, width):
    grid = (rows * block, columns * block)
    adapter = made(PooledLinear, grid, width, 1 / block)
    features = torch.randn(batch, grid[0] * grid[1], width)
    images = features.transpose(1, 2).unflatten(2, grid)
    pooled = F.avg_pool2d(images, block).flatten(2).transpose(1, 2)
    want = F.gelu(pooled @ adapter.fc.weight.T + adapter.fc.bias)
    # Sums of at most 9 numbers in another order.
    torch.testing.assert_close(adapter(features), want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("target", [PixelShuffleMlp, PooledLinear])
@given(data=st.data())
def test_a_token_sees_its_square_only(target, data):
    grid, block, width = (4, 6), 2, 3
    adapter = made(target, grid, width)
    place = data.draw(st.integers(0, grid[0] * grid[1] - 1))
    features = torch.randn(1, grid[0] * grid[1], width)
    changed = features.clone()
    changed[0, place] += 1
    moved = (adapter(features) != adapter(changed)).any(-1)[0].nonzero().flatten().tolist()
    y, x = divmod(place, grid[1])
    assert moved == [y // block * (grid[1] // block) + x // block]


@pytest.mark.parametrize("target", [PixelShuffleMlp, PooledLinear])
@pytest.mark.parametrize(
    ("ratio", "grid", "said"),
    [
        (0.4, (4, 4), "shuffle_ratio is 0.4; expected one over a whole number"),
        (2.0, (4, 4), "shuffle_ratio is 2.0"),
        (0.5, (4, 3), "do not fill a grid of 4 x 3"),
        (0.5, (3, 4), "do not fill a grid of 3 x 4"),
    ],
)
def test_ratios_that_do_not_fit_are_an_error(target, ratio, grid, said):
    with pytest.raises(SpecError, match=said):
        made(target, grid, 8, ratio)
