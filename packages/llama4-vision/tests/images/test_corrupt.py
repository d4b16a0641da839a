"""Damaged files of every format: a picture, or one clear error."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from llama4_core.errors import ModalityError
from llama4_vision.images.limits import Limits
from llama4_vision.images.open import open_image

LIMITS = Limits(pixels=1 << 20)
KINDS = [
    ("RGB", "PNG", {}),
    ("P", "PNG", {"transparency": 3}),
    ("I;16", "PNG", {}),
    ("RGB", "JPEG", {}),
    ("CMYK", "JPEG", {"progressive": True}),
    ("P", "GIF", {"transparency": 3}),
    ("RGB", "WEBP", {}),
    ("RGBA", "WEBP", {"lossless": True}),
    ("RGB", "BMP", {}),
    ("P", "BMP", {}),
    ("RGB", "TIFF", {}),
    ("F", "TIFF", {}),
    ("RGB", "TIFF", {"compression": "tiff_lzw"}),
    ("RGB", "TIFF", {"compression": "jpeg"}),
    ("1", "TIFF", {"compression": "group4"}),
    ("RGB", "PPM", {}),
    ("1", "PPM", {}),
]


def files():
    """One small file of each kind, with notes and with several frames where there may be."""
    exif = Image.Exif()
    exif[0x0112] = 6
    ramp = Image.linear_gradient("L").resize((23, 17))
    for mode, name, options in KINDS:
        image = ramp.convert("I").convert(mode) if mode == "I;16" else ramp.convert(mode)
        more = {"exif": exif} if name in {"PNG", "JPEG", "WEBP"} else {}
        buffer = io.BytesIO()
        image.save(buffer, name, **options, **more)
        yield f"{name} {mode} {options}", buffer.getvalue()
    for name in ("GIF", "PNG", "WEBP", "TIFF"):
        buffer = io.BytesIO()
        ramp.save(buffer, name, save_all=True, append_images=[ramp.rotate(90), ramp.rotate(180)])
        yield f"{name} of several", buffer.getvalue()


FILES = dict(files())
DAMAGE = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.floats(0, 1), st.integers(0, 255)),
        # The header decides most, and is short.
        st.tuples(st.just("early"), st.integers(8, 80), st.integers(0, 255)),
        st.tuples(st.just("cut"), st.floats(0, 1), st.just(0)),
        st.tuples(st.just("repeat"), st.floats(0, 1), st.integers(1, 40)),
        st.tuples(st.just("drop"), st.floats(0, 1), st.integers(1, 8)),
    ),
    min_size=1,
    max_size=4,
)


def damaged(data, changes):
    data = bytearray(data)
    for kind, where, value in changes:
        place = where if kind == "early" else int(where * len(data))
        place = min(place, max(0, len(data) - 1))
        if kind in {"set", "early"} and data:
            data[place] = value
        elif kind == "cut":
            del data[place:]
        elif kind == "repeat":
            data[place:place] = data[place : place + value]
        elif kind == "drop":
            del data[place : place + value]
    return bytes(data)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FILES)
@given(changes=DAMAGE)
def test_damage(name, changes):
    try:
        opened = open_image(damaged(FILES[name], changes), LIMITS)
    except ModalityError as refused:
        text = str(refused)
        assert text.startswith("the picture")
        assert "\n" not in text
        assert len(text) < 400
    else:
        assert opened.mode == "RGB"
        assert len(opened.tobytes()) == 3 * opened.width * opened.height


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FILES)
def test_every_file_cut_short(name):
    data = FILES[name]
    # Every length of the header, then some of the pixels.
    lengths = [*range(min(64, len(data))), *range(64, len(data), max(1, len(data) // 40))]
    for length in lengths:
        try:
            opened = open_image(data[:length], LIMITS)
        except ModalityError:
            continue
        # Formats that have no pixels at the end may be whole without it.
        assert opened.mode == "RGB"
    with pytest.raises(ModalityError):
        open_image(data[: len(data) // 4], LIMITS)


@pytest.mark.parametrize("name", ["PNG RGB {}", "JPEG RGB {}", "BMP RGB {}", "PPM RGB {}"])
def test_half_a_picture_is_said_to_be_damaged(name):
    data = FILES[name]
    with pytest.raises(ModalityError, match="file is damaged or cut short") as caught:
        open_image(data[: len(data) // 2])
    assert str(caught.value).startswith(f"the picture's {name.split()[0]} file")
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("name", FILES)
def test_the_files_are_good(name):
    assert sorted(open_image(FILES[name]).size) == [17, 23]
