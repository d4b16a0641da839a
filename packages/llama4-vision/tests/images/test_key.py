"""Equal pixels have equal keys, other pixels have others."""

import hashlib
import io

from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from llama4_vision import image_key
from llama4_vision.images.open import open_image

PICTURES = st.builds(
    lambda width, height, seed: Image.frombytes(
        "RGB", (width, height), hashlib.shake_128(bytes([seed])).digest(3 * width * height)
    ),
    st.integers(1, 90),
    st.integers(1, 90),
    st.integers(0, 255),
)


def encode(image, name, **options):
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()


@given(PICTURES)
def test_the_key_is_what_its_description_says(image):
    width, height = image.size
    head = f"RGB {width} {height}\n".encode()
    assert image_key(image) == hashlib.sha256(head + image.tobytes()).hexdigest()


@given(PICTURES)
def test_the_file_does_not_matter(image):
    key = image_key(image)
    assert image_key(image.copy()) == key
    for name in ("PNG", "BMP", "TIFF", "PPM"):
        data = encode(image, name)
        assert image_key(open_image(data)) == key
        assert image_key(Image.open(io.BytesIO(data))) == key


@given(PICTURES, st.data())
def test_every_pixel_matters(image, data):
    x = data.draw(st.integers(0, image.width - 1))
    y = data.draw(st.integers(0, image.height - 1))
    before = image_key(image)
    red, green, blue = image.getpixel((x, y))
    image.putpixel((x, y), (red, green, blue ^ 1))
    assert image_key(image) != before


@given(PICTURES)
def test_the_shape_matters(image):
    assume(image.width != image.height)
    turned = Image.frombytes("RGB", image.size[::-1], image.tobytes())
    assert image_key(turned) != image_key(image)


def test_modes_palettes_and_transparency_matter():
    grey = Image.new("L", (4, 4), 7)
    clear = grey.copy()
    clear.info["transparency"] = 7
    one, other = Image.new("P", (4, 4), 0), Image.new("P", (4, 4), 0)
    one.putpalette([1, 2, 3])
    other.putpalette([1, 2, 4])
    pictures = (grey, clear, grey.convert("RGB"), grey.convert("RGBA"), one, other)
    assert len({image_key(image) for image in pictures}) == len(pictures)
    # What is only noted beside the pixels does not.
    noted = grey.copy()
    noted.info["comment"] = "mine"
    assert image_key(noted) == image_key(grey)
