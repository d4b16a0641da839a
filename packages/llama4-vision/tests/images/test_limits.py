"""One object of limits, and what is said when they are passed."""

import dataclasses

import pytest

from llama4_core.errors import ModalityError
from llama4_vision.images import limits as module
from llama4_vision.images.limits import SIDE, Limits


def test_defaults():
    assert dataclasses.asdict(Limits()) == {
        "bytes": 67_108_864,
        "pixels": 67_108_864,
        "tiles": 16,
        "images": 16,
        "frames": 64,
    }


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, "8", None])
@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Limits)])
def test_wrong_limits(name, wrong):
    with pytest.raises(ModalityError, match=rf"^Limits\.{name} is .*; expected a whole number"):
        Limits(**{name: wrong})


@pytest.mark.parametrize(
    ("size", "pixels", "text"),
    [
        ((10, 10), 100, None),
        ((10, 11), 109, module.too_many_pixels(10, 11, 109)),
        ((SIDE, 1), 1 << 26, None),
        ((SIDE + 1, 1), 1 << 26, module.too_long(SIDE + 1, 1)),
        ((1, SIDE + 1), 1 << 26, module.too_long(1, SIDE + 1)),
    ],
)
def test_sizes(size, pixels, text):
    limits = Limits(pixels=pixels)
    if text is None:
        limits.check_size(*size)
        return
    with pytest.raises(ModalityError) as caught:
        limits.check_size(*size)
    assert str(caught.value) == text


def test_images():
    Limits().check_images(16)
    Limits(images=48).check_images(48)
    with pytest.raises(ModalityError) as caught:
        Limits().check_images(17)
    assert str(caught.value) == module.too_many_images(17, 16)


def test_texts_have_the_numbers_and_a_way_out():
    assert module.too_many_bytes(1_000) == (
        "the picture has more than 1,000 bytes, which is the limit; make it smaller, or raise "
        "Limits.bytes"
    )
    assert module.too_many_pixels(10, 20, 100) == (
        "the picture has 10 x 20 = 200 pixels; the limit is 100: make it smaller, or raise "
        "Limits.pixels"
    )
    assert "Limits.tiles" in module.too_many_tiles(20, 16)
    assert "Limits.frames" in module.too_many_frames(65, 64)
