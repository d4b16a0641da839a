"""The whole way from a file to tiles."""

import base64
import io

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from llama4_core.errors import ModalityError
from llama4_core.specs.model import VisionSpec
from llama4_vision import ImageProcessor, Limits, image_key
from llama4_vision.images.limits import too_many_pixels, too_many_tiles
from llama4_vision.images.tiling import tile_plan

SPEC = {
    "width": 8, "layers": 1, "heads": 1, "mlp_width": 8, "image_size": 28, "patch_size": 14,
    "channels": 3, "shuffle_ratio": 0.5, "adapter_width": 8, "adapter_output": 8, "theta": 1e4,
    "norm_eps": 1e-5,
}  # fmt: skip


def encode(image, name="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 64), st.integers(1, 16))
def test_tiles_as_planned(width, height, tile, most):
    image = Image.new("RGB", (width, height), (255, 0, 51))
    made = ImageProcessor(tile, most)(image)
    assert made.plan == tile_plan(width, height, tile, most)
    assert made.pixel_values.shape == (made.plan.tiles, 3, tile, tile)
    assert made.pixel_values.dtype == torch.float32
    assert made.pixel_values.abs().max() <= 1
    assert made.key == image_key(image)
    # One colour stays that colour, (1, -1, -0.6), however it is resized; 2e-7 is float32 of 0.6.
    global_tile = made.pixel_values[-1]
    inside = (
        global_tile
        if made.plan.has_global
        else global_tile[:, : made.plan.resized_height, : made.plan.resized_width]
    )
    wanted = torch.tensor([1.0, -1.0, -0.6]).view(3, 1, 1).expand_as(inside)
    torch.testing.assert_close(inside, wanted, atol=2e-7, rtol=0)


def test_published_sizes():
    made = ImageProcessor()(Image.new("RGB", (1920, 1080)))
    assert made.pixel_values.shape == (16, 3, 336, 336)
    # 945 rows of picture on 1008 of canvas: the last 63 are padding, black as the picture.
    assert (made.pixel_values == -1).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 10_000), (10_000, 1)])
def test_extreme_shapes(size):
    made = ImageProcessor()(encode(Image.new("RGB", size, (255, 255, 255))))
    tiles = 17 if max(size) > 1 else 1
    assert made.pixel_values.shape == (tiles, 3, 336, 336)
    assert (made.pixel_values[-1] == 1).all()
    assert (made.plan.width, made.plan.height) == size


def test_every_source_and_an_open_image_agree(tmp_path):
    image = Image.linear_gradient("L").resize((500, 340)).convert("RGB")
    path = tmp_path / "a.png"
    path.write_bytes(encode(image))
    processor = ImageProcessor(56)
    first = processor(path)
    url = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
    for made in (processor(str(path)), processor(url), processor(image), processor.process(image),
                 processor.process(Image.open(path))):  # fmt: skip
        assert torch.equal(made.pixel_values, first.pixel_values)
        assert (made.plan, made.key) == (first.plan, first.key)


def test_a_given_key_is_kept():
    image = Image.new("RGB", (50, 50))
    assert ImageProcessor(28).process(image, "mine").key == "mine"
    assert ImageProcessor(28).process(image).key == image_key(image)


def test_from_spec():
    processor = ImageProcessor.from_spec(VisionSpec(**SPEC), limits=Limits(tiles=4))
    assert (processor.tile, processor.max_tiles) == (28, 4)
    assert processor(Image.new("RGB", (280, 280))).pixel_values.shape == (5, 3, 28, 28)
    assert ImageProcessor.from_spec(VisionSpec(**SPEC)).max_tiles == 16
    with pytest.raises(ModalityError, match=r"takes 1 channels; pictures are read as 3 \(RGB\)"):
        ImageProcessor.from_spec(VisionSpec(**{**SPEC, "channels": 1}))


def test_limits_hold():
    with pytest.raises(ModalityError) as caught:
        ImageProcessor(336, 17)
    assert str(caught.value) == too_many_tiles(17, 16)
    assert ImageProcessor(336, 17, Limits(tiles=17)).max_tiles == 17
    processor = ImageProcessor(limits=Limits(pixels=99))
    for call in (processor, processor.process):
        with pytest.raises(ModalityError) as caught:
            call(Image.new("RGB", (10, 10)))
        assert str(caught.value) == too_many_pixels(10, 10, 99)
    with pytest.raises(ModalityError, match=r"^tile is 0; expected a whole number from 1"):
        ImageProcessor(0)


@pytest.mark.parametrize("image", [Image.new("L", (2, 2)), "a.png", None])
def test_process_takes_open_pictures_only(image):
    with pytest.raises(ModalityError, match="expected a Pillow image of mode RGB: open it with"):
        ImageProcessor().process(image)


def test_a_damaged_picture_that_pillow_opened():
    data = encode(Image.effect_noise((64, 64), 90).convert("RGB"))
    with pytest.raises(ModalityError, match="the picture cannot be decoded: "):
        ImageProcessor().process(Image.open(io.BytesIO(data[: len(data) // 2])))


def test_other_defaults_of_torch_change_nothing():
    image = Image.linear_gradient("L").resize((400, 300)).convert("RGB")
    plain = ImageProcessor(56)(image)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            other = ImageProcessor(56)(image)
    finally:
        torch.set_default_dtype(torch.float32)
    assert other.pixel_values.device.type == "cpu"
    assert torch.equal(other.pixel_values, plain.pixel_values)
