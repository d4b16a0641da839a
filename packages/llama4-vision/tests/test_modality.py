"""Pictures and films in the stream of tokens: what is read, what it becomes, what is refused."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

import llama4_core as l4
from llama4_core.chat.messages import Image, Text, Video
from llama4_core.errors import ModalityError
from llama4_core.testing import conformance_tests
from llama4_core.testing.modality_cases import fill, specs, tokenizer
from llama4_vision.images.layout import PATCH, layout
from llama4_vision.images.limits import Limits
from llama4_vision.images.processor import ImageProcessor

test_conformance = conformance_tests("modalities", "vision")

PLACE = tokenizer().specials[PATCH]


def model(index: int = 0) -> Any:
    made = l4.assemble(specs()[index], device="cpu", dtype="float32")
    fill(made)
    return made


@pytest.fixture(scope="module")
def small() -> Any:
    return model()


@pytest.fixture
def vision(small: Any) -> Any:
    small.vision.limits, small.vision.frame_tiles = Limits(), 1
    return small.vision


def picture(width: int, height: int, grey: int = 90) -> Pillow.Image:
    drawn = Pillow.new("RGB", (width, height), (grey, 20, 200))
    drawn.putpixel((width - 1, height - 1), (255, 255, 255))
    return drawn


@given(st.integers(0, 1), st.integers(1, 200), st.integers(1, 200))
def test_tokens_are_the_layout_of_the_plan(index: int, width: int, height: int) -> None:
    """Tiles of 28 and of 64 pixels: everything comes from the description."""
    spec = specs()[index]
    assert spec.vision is not None
    vision = l4.assemble(spec, device="meta").vision
    source = picture(width, height)
    (reading,) = vision.read([Image(source)], tokenizer())
    done = ImageProcessor.from_spec(spec.vision)(source)
    names = layout(done.plan, vision.adapter.tokens)
    assert reading.tokens == tuple(tokenizer().specials[name] for name in names)
    assert reading.places == done.plan.tiles * vision.adapter.tokens
    assert torch.equal(reading.inputs, done.pixel_values)
    size = spec.vision.image_size
    assert reading.inputs.shape == (done.plan.tiles, 3, size, size)


def test_a_film_is_frames_with_their_times(vision: Any) -> None:
    frames = [picture(30, 60), picture(5, 5), picture(28, 28)]
    (reading,) = vision.read([Video(frames)], tokenizer())
    image = "<|image_start|><|image|>" + PATCH * 4 + "<|image_end|>"
    assert tokenizer().decode(reading.tokens, specials=True) == (
        f"Frame 1 at 0.0 s:{image}\nFrame 2 at 1.0 s:{image}\nFrame 3 at 2.0 s:{image}"
    )
    assert (reading.places, len(reading.inputs)) == (12, 3)
    tiles = [ImageProcessor(28, max_tiles=1)(frame).pixel_values for frame in frames]
    assert torch.equal(reading.inputs, torch.cat(tiles))


def test_frames_may_have_more_tiles(vision: Any) -> None:
    film = Video([picture(60, 28)], frames=1)
    (one,) = vision.read([film], tokenizer())
    vision.frame_tiles = 4
    (more,) = vision.read([film], tokenizer())
    assert (len(one.inputs), len(more.inputs)) == (1, ImageProcessor(28, 4).plan(60, 28).tiles)
    assert one.key != more.key
    vision.limits = Limits(tiles=1)
    (limited,) = vision.read([film], tokenizer())
    assert limited.key == one.key


def test_frames_and_fps_are_those_of_the_part(vision: Any) -> None:
    film = [picture(9, 9, grey) for grey in range(20)]
    for part, count in (
        (Video(film), 8),
        (Video(film, frames=3), 3),
        (Video(film, fps=0.25), 5),
    ):
        (reading,) = vision.read([part], tokenizer())
        assert len(reading.inputs) == count
    with pytest.raises(ModalityError, match="got 2 frames and 1 frames per second"):
        vision.read([Video(film, frames=2, fps=1)], tokenizer())


def test_any_source_of_the_same_pixels_is_the_same(vision: Any, tmp_path: Path) -> None:
    drawn = picture(40, 30)
    file = io.BytesIO()
    drawn.save(file, "PNG")
    path = tmp_path / "picture.png"
    path.write_bytes(file.getvalue())
    url = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    sources = [drawn, path, str(path), file.getvalue(), io.BytesIO(file.getvalue()), url]
    readings = vision.read([Image(source) for source in sources], tokenizer())
    assert len({reading.key for reading in readings}) == 1
    assert len({reading.tokens for reading in readings}) == 1
    assert all(torch.equal(reading.inputs, readings[0].inputs) for reading in readings)


def test_the_key_says_how_a_picture_was_cut(vision: Any) -> None:
    parts = [Image(picture(200, 100)), Video([picture(200, 100)], frames=1)]
    before = [reading.key for reading in vision.read(parts, tokenizer())]
    vision.limits = Limits(tiles=2)
    after = [reading.key for reading in vision.read(parts, tokenizer())]
    other = [reading.key for reading in model(1).vision.read(parts, tokenizer())]
    # Frames have one tile either way; all else differs.
    assert before[1] == after[1]
    assert len({*before, *after, *other}) == 5


def test_times_of_frames_are_part_of_the_key(vision: Any) -> None:
    early = [picture(9, 9, grey) for grey in (1, 2, 3)]
    late = [early[0], early[1], early[1], early[2]]
    first, second = vision.read([Video(early, fps=0.5), Video(late, frames=2)], tokenizer())
    assert torch.equal(first.inputs[1], second.inputs[1])
    assert first.key != second.key


def test_sixteen_pictures_unless_it_is_said(vision: Any) -> None:
    part = Image(picture(9, 9))
    assert len(vision.read([part] * 16, tokenizer())) == 16
    with pytest.raises(ModalityError, match="17 pictures; the limit is 16"):
        vision.read([part] * 17, tokenizer())
    # Before anything is opened, and films count too.
    with pytest.raises(ModalityError, match="17 pictures; the limit is 16"):
        vision.read([Image("no/such/file")] * 16 + [Video("no/such/film")], tokenizer())
    vision.limits = Limits(images=48)
    assert len(vision.read([part] * 48, tokenizer())) == 48
    with pytest.raises(ModalityError, match="49 pictures; the limit is 48"):
        vision.read([part] * 49, tokenizer())


def test_frames_have_a_limit_of_their_own(vision: Any) -> None:
    film = [picture(9, 9)] * 70
    with pytest.raises(
        ModalityError, match=r"65 frames of one film were asked for; the limit is 64"
    ):
        vision.read([Video(film, frames=65)], tokenizer())
    vision.limits = Limits(frames=65)
    assert len(vision.read([Video(film, frames=65)], tokenizer())[0].inputs) == 65


def test_limits_reach_every_picture(vision: Any) -> None:
    vision.limits = Limits(pixels=99)
    for part in (Image(picture(10, 10)), Video([picture(10, 10)])):
        with pytest.raises(ModalityError, match="10 x 10 = 100 pixels; the limit is 99"):
            vision.read([part], tokenizer())


@pytest.mark.parametrize("value", [48, None, {"images": 48}])
def test_limits_are_limits(vision: Any, value: object) -> None:
    with pytest.raises(ModalityError, match="expected Limits"):
        vision.limits = value


@pytest.mark.parametrize("value", [0, -1, True, 2.0, None])
def test_frame_tiles_are_a_number(vision: Any, value: object) -> None:
    with pytest.raises(ModalityError, match=r"frame_tiles is .* expected a whole number"):
        vision.frame_tiles = value


def without(*names: str) -> Any:
    """A tokenizer without some special tokens."""
    whole = tokenizer()
    specials = {name: one for name, one in whole.specials.items() if name not in names}
    return SimpleNamespace(specials=specials, encode=whole.encode)


def test_a_tokenizer_without_borders(vision: Any) -> None:
    one, several = Image(picture(20, 20)), Image(picture(60, 60))
    lacking = without("<|tile_x_separator|>", "<|tile_y_separator|>")
    assert vision.read([one], lacking)[0].places == 4
    with pytest.raises(ModalityError) as caught:
        vision.read([several], lacking)
    assert "no <|tile_x_separator|>, <|tile_y_separator|>" in str(caught.value)
    assert "model.logits(tokens, pixel_values)" in str(caught.value)
    with pytest.raises(ModalityError, match=r"no <\|patch\|>"):
        vision.read([one], without(PATCH))


def test_without_a_tokenizer(vision: Any) -> None:
    with pytest.raises(ModalityError, match=r"no tokenizer.*generate\(ids, pixel_values=\.\.\.\)"):
        vision.read([Image(picture(20, 20))], None)
    assert vision.read([], None) == []


def test_a_tokenizer_of_another_model(vision: Any) -> None:
    moved = {name: one + 7 for name, one in tokenizer().specials.items()}
    other = SimpleNamespace(specials=moved, encode=tokenizer().encode)
    with pytest.raises(ModalityError, match=f"{PLACE + 7}, but the model puts .* {PLACE};"):
        vision.read([Image(picture(20, 20))], other)


def test_other_parts_are_refused(vision: Any) -> None:
    with pytest.raises(ModalityError, match="expected an Image"):
        vision.read([Text("words")], tokenizer())


def test_user_text_cannot_fake_a_marker_token(vision: Any) -> None:
    """Markers are ordinary text: no special token among their ids."""
    (reading,) = vision.read([Video([picture(9, 9)] * 2)], tokenizer())
    first = min(tokenizer().specials.values())
    specials = [one for one in reading.tokens if one >= first]
    assert len(specials) == 2 * (4 + 3)


def test_pictures_reach_the_logits(small: Any, vision: Any) -> None:
    """Through the reading, and as ready-made tiles: the same numbers."""
    (reading,) = vision.read([Image(picture(50, 20))], tokenizer())
    stream = [1, 2, *reading.tokens, 3]
    with torch.no_grad():
        tokens = torch.tensor(stream)
        features = {PLACE: vision(reading.inputs).flatten(0, 1)}
        hidden, _ = small(tokens, small.packed([len(stream)]), features)
        assert torch.equal(small.project(hidden), small.logits(stream, reading.inputs))
        with pytest.raises(ModalityError, match=r"\d+ features for \d+ placeholder"):
            small.logits(stream[:-3], reading.inputs[:1])


@pytest.mark.parametrize(
    ("tiles", "said"),
    [
        (torch.zeros(2, 3, 28, 27), r"shape \[2, 3, 28, 27\]; expected \[B, 3, 28, 28\]"),
        (torch.zeros(3, 28, 28), r"shape \[3, 28, 28\]"),
        (torch.zeros(0, 3, 28, 28), "no tiles"),
        (torch.zeros(1, 3, 28, 28, dtype=torch.uint8), "uint8"),
    ],
)
def test_what_is_no_tile(vision: Any, tiles: torch.Tensor, said: str) -> None:
    with pytest.raises(ModalityError, match=said):
        vision(tiles)


def test_annotate_draws_on_pictures_and_first_frames(vision: Any, tmp_path: Path) -> None:
    drawn, other = picture(40, 30), picture(50, 60)
    for part, size in (
        (Image(drawn), (40, 30)),
        (Video([drawn, other]), (40, 30)),
        (Video([other, drawn], frames=2), (50, 60)),
    ):
        path = tmp_path / "drawn.png"
        assert vision.annotate(part, "nothing to be seen", path) == []
        with Pillow.open(path) as written:
            assert written.size == size
    with pytest.raises(ModalityError, match="there is no picture"):
        vision.annotate(Image("no/such.png"), "", tmp_path / "x.png")
    with pytest.raises(ModalityError, match="expected an Image"):
        vision.annotate(Text("words"), "", tmp_path / "x.png")
    assert not (tmp_path / "x.png").exists()
