"""Patches are cut as a convolution of that stride reads them, and go back where they were."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from llama4_vision.encoders.patches import patches_of, tiles_of

sizes = st.integers(1, 4)


@given(batch=sizes, channels=sizes, rows=sizes, columns=sizes, size=sizes)
def test_there_and_back(batch, channels, rows, columns, size):
    tiles = torch.randn(batch, channels, rows * size, columns * size)
    patches = patches_of(tiles, size)
    assert patches.shape == (rows * columns, batch, channels * size**2)
    assert torch.equal(tiles_of(patches, (rows, columns), size), tiles)


@given(batch=sizes, channels=sizes, rows=sizes, columns=sizes, size=sizes)
def test_order_is_that_of_unfold(batch, channels, rows, columns, size):
    tiles = torch.randn(batch, channels, rows * size, columns * size)
    want = F.unfold(tiles, size, stride=size).permute(2, 0, 1)
    assert torch.equal(patches_of(tiles, size), want)
