"""Resized pixels against float32, and tiles against the canvas that they are cut from."""

import hashlib

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from llama4_vision.images import pixels as module
from llama4_vision.images.pixels import cut, resize
from llama4_vision.images.tiling import TilePlan, tile_plan


def noise(width, height, seed=0):
    """A picture without structure: neighbouring pixels differ as much as they can."""
    draw = torch.Generator().manual_seed(seed)
    values = torch.randint(0, 256, (height, width, 3), dtype=torch.uint8, generator=draw)
    return Image.frombytes("RGB", (width, height), bytes(values.numpy()))


def planes(image):
    values = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return values.view(image.height, image.width, 3).permute(2, 0, 1)


def triangles(old, new):
    """``[new, old]`` float64: averages under triangles as wide as the reduction, written out."""
    step = old / new
    reach = max(step, 1.0)
    centre = (torch.arange(new, dtype=torch.float64)[:, None] + 0.5) * step
    place = torch.arange(old, dtype=torch.float64)[None] + 0.5
    weights = (1 - (place - centre).abs() / reach).clamp(min=0)
    return weights / weights.sum(1, keepdim=True)


def exactly(image, width, height):
    """The resized picture in float64, not rounded."""
    down, across = triangles(image.height, height), triangles(image.width, width)
    return torch.einsum("Hh,chw,Ww->cHW", down, planes(image).double(), across)


def in_float(image, width, height):
    """What the kernel in 8 bits stands for: torch's in float32, rounded at the end."""
    values = planes(image)[None].float()
    resized = F.interpolate(values, size=(height, width), mode="bilinear", antialias=True)
    return resized[0].round().clamp(0, 255)


SIDES = st.one_of(st.integers(1, 40), st.integers(1, 300))


@given(SIDES, SIDES, SIDES, SIDES, st.integers(0, 99))
@example(1, 1, 336, 336, 0)
@example(1, 600, 336, 336, 0)
@example(600, 1, 336, 336, 0)
@example(1, 600, 1, 400, 0)
@example(600, 1, 400, 1, 0)
@example(3, 600, 1, 400, 0)
@example(3, 3, 1, 1, 0)
def test_within_one_level(width, height, new_width, new_height, seed):
    image = noise(width, height, seed)
    found = resize(image, [(new_width, new_height)])[0]
    assert found.shape == (3, new_height, new_width)
    assert found.dtype == torch.uint8
    difference = (found - exactly(image, new_width, new_height)).abs().max()
    # Rounding across and rounding down are off by a half each; 0.02 is for weights of 16 bits.
    assert difference <= 1.02
    if new_width > 1:  # a column in float is its first pixel again and again: torch errs there
        # With the rounding of the float that is 1.52, and levels are whole.
        difference = (found - in_float(image, new_width, new_height)).abs().max()
        assert difference <= 1


@pytest.mark.parametrize(
    ("size", "wanted"),
    [((65_535, 1), (336, 336)), ((1, 65_535), (336, 336)), ((1_600, 1_200), (1_344, 1_008))],
)
def test_within_one_level_when_large(size, wanted):
    image = noise(*size)
    assert (resize(image, [wanted])[0] - in_float(image, *wanted)).abs().max() <= 1


def test_on_average_as_float():
    image = noise(900, 700)
    difference = resize(image, [(336, 336)])[0].float() - in_float(image, 336, 336)
    # Each rounding is unbiased: the mean over 338,688 values is within six standard errors (0.5 a
    # value at most), and halves go the same way in few of them.
    assert difference.mean().abs() < 0.01


@given(SIDES, SIDES, st.integers(1, 60), st.lists(st.tuples(SIDES, SIDES), max_size=3))
def test_bands_and_several_sizes_change_nothing(width, height, rows, sizes):
    image = noise(width, height)
    values = planes(image)[None].contiguous(memory_format=torch.channels_last)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BAND", 3 * width * rows)
        found = resize(image, sizes)
    assert len(found) == len(sizes)
    for (new_width, new_height), resized in zip(sizes, found, strict=True):
        whole = F.interpolate(
            values, size=(new_height, new_width), mode="bilinear", antialias=True
        )[0]
        assert torch.equal(resized, whole)


def test_the_same_size_is_the_same_picture():
    image = noise(123, 77)
    assert torch.equal(resize(image, [(123, 77)])[0], planes(image))


def test_a_hash_sees_all_pixels():
    image = noise(321, 123)
    digest = hashlib.sha256()
    resize(image, [(10, 10)], digest)
    assert digest.digest() == hashlib.sha256(image.tobytes()).digest()


def canvas_of(tiles, plan):
    """The tiles of the grid put together again."""
    grid = tiles[: plan.rows * plan.columns]
    return (
        grid.view(plan.rows, plan.columns, 3, plan.tile, plan.tile)
        .permute(2, 0, 3, 1, 4)
        .reshape(3, plan.rows * plan.tile, plan.columns * plan.tile)
    )


@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 20), st.integers(1, 16))
def test_tiles_are_the_picture_on_its_canvas(width, height, tile, most):
    plan = tile_plan(width, height, tile, most)
    image = noise(width, height)
    wanted = [(plan.resized_width, plan.resized_height), (tile, tile)]
    resized, squashed = resize(image, wanted)
    tiles = cut(plan, resized, squashed if plan.has_global else None)
    assert tiles.shape == (plan.tiles, 3, tile, tile)
    assert tiles.dtype == torch.float32
    canvas = canvas_of(tiles, plan)
    # The published order: 0 around the picture, then (v / 255 - 0.5) / 0.5. In float64, and one
    # rounding to float32 apart.
    expected = torch.zeros(canvas.shape, dtype=torch.float64)
    expected[:, : plan.resized_height, : plan.resized_width] = resized
    torch.testing.assert_close(canvas.double(), (expected / 255 - 0.5) / 0.5, atol=6.0e-8, rtol=0)
    assert (canvas[:, plan.resized_height :] == -1).all()
    assert (canvas[:, :, plan.resized_width :] == -1).all()
    if plan.has_global:
        assert torch.equal((tiles[-1] + 1).mul(127.5).round().to(torch.uint8), squashed)


def test_row_major_by_hand():
    plan = TilePlan(4, 4, 2, 2, 2, 4, 4)
    values = torch.arange(16, dtype=torch.uint8).view(1, 4, 4).repeat(3, 1, 1)
    whole = torch.full((3, 2, 2), 255, dtype=torch.uint8)
    tiles = ((cut(plan, values, whole)[:, 0] + 1) * 127.5).round().int().tolist()
    assert tiles == [
        [[0, 1], [4, 5]],
        [[2, 3], [6, 7]],
        [[8, 9], [12, 13]],
        [[10, 11], [14, 15]],
        [[255, 255], [255, 255]],
    ]


def test_the_range_is_exact():
    plan = TilePlan(256, 1, 256, 1, 1, 256, 1)
    values = torch.arange(256, dtype=torch.uint8).view(1, 1, 256).repeat(3, 1, 1)
    row = cut(plan, values, None)[0, 0, 0]
    assert (row[0], row[255]) == (-1, 1)
    assert torch.equal(row, -row.flip(0))
    assert (row.diff() > 0).all()
