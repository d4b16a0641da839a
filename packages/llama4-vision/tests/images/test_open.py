"""What each mode, format and orientation becomes: upright RGB on white."""

import io
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from llama4_vision.images.limits import Limits
from llama4_vision.images.open import open_image

RED, GREEN, BLUE, WHITE, BLACK = (
    (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0),
)  # fmt: skip


def encode(image, name, **options):
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()


def pixels(image):
    """All pixels in order, whatever Pillow calls the method today."""
    data = image.tobytes()
    return [tuple(data[i : i + 3]) for i in range(0, len(data), 3)]


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, depth, colour, rows, *extra):
    """A PNG file of raw rows, for what Pillow does not write."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + body + chunk(b"IEND", b"")


def tiff(width, height, bits, values, *, photometric=1, sample=1, order="<"):
    """A grey TIFF file in one strip, for what Pillow does not write."""
    tags = [
        (256, 3, width), (257, 3, height), (258, 3, bits), (259, 3, 1), (262, 3, photometric),
        (273, 4, 8), (277, 3, 1), (278, 3, height), (279, 4, len(values)), (339, 3, sample),
    ]  # fmt: skip
    entries = b"".join(
        struct.pack(f"{order}HHI", tag, kind, 1)
        + (struct.pack(f"{order}HH", value, 0) if kind == 3 else struct.pack(f"{order}I", value))
        for tag, kind, value in tags
    )
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8 + len(values))
    return start + values + struct.pack(f"{order}H", len(tags)) + entries + bytes(4)


def corners():
    """Four different corners on a 3 x 2 picture, so that every turn shows."""
    image = Image.new("RGB", (3, 2))
    for place, colour in zip(
        ((0, 0), (2, 0), (0, 1), (2, 1)), (RED, GREEN, BLUE, WHITE), strict=True
    ):
        image.putpixel(place, colour)
    return image


def note(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


LOSSLESS = ("PNG", "BMP", "TIFF", "PPM")


@pytest.mark.parametrize("name", [*LOSSLESS, "WEBP"])
def test_lossless_formats_keep_every_pixel(name):
    image = corners()
    options = {"lossless": True} if name == "WEBP" else {}
    opened = open_image(encode(image, name, **options))
    assert (opened.mode, opened.size) == ("RGB", (3, 2))
    assert opened.tobytes() == image.tobytes()


@pytest.mark.parametrize("name", ["JPEG", "WEBP", "GIF"])
def test_other_formats_stay_close(name):
    image = Image.new("RGB", (32, 24), (200, 100, 50))
    opened = open_image(encode(image, name))
    assert (opened.mode, opened.size) == ("RGB", (32, 24))
    # One colour survives lossy coding up to the rounding of its colour space.
    assert all(
        abs(got - want) <= 3
        for pixel in pixels(opened)
        for got, want in zip(pixel, (200, 100, 50), strict=True)
    )


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["PNG", "TIFF", "WEBP"])
def test_orientations(orientation, name):
    image = corners()
    options = {"lossless": True} if name == "WEBP" else {}
    data = encode(image, name, exif=note(orientation), **options)
    turned = image.copy()
    turned.getexif()[0x0112] = orientation
    expected = ImageOps.exif_transpose(turned)
    opened = open_image(data)
    assert (opened.size, opened.tobytes()) == (expected.size, expected.tobytes())
    # Opening the result, or what Pillow opens itself, comes to the same.
    for again in (open_image(opened), open_image(Image.open(io.BytesIO(data)))):
        assert (again.size, again.tobytes()) == (expected.size, expected.tobytes())


def test_a_turned_jpeg_by_hand():
    image = Image.new("RGB", (64, 32), BLACK)
    image.paste(WHITE, (0, 0, 32, 32))
    opened = open_image(encode(image, "JPEG", exif=note(6)))
    # 6: the camera was turned, so what is left in the file belongs on top.
    assert opened.size == (32, 64)
    assert opened.getpixel((16, 8))[0] > 250
    assert opened.getpixel((16, 56))[0] < 5


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("exif", [b"Exif\0\0nonsense", b"Exif\0\0MM\0*\xff\xff\xff\xff", b"x"])
def test_damaged_notes_turn_nothing(exif):
    opened = open_image(encode(corners(), "PNG", exif=exif))
    assert opened.tobytes() == corners().tobytes()


@pytest.mark.parametrize("orientation", [0, 9, 700])
def test_unknown_orientations_turn_nothing(orientation):
    opened = open_image(encode(corners(), "PNG", exif=note(orientation)))
    assert opened.tobytes() == corners().tobytes()


@given(
    st.lists(
        st.tuples(*[st.integers(0, 255)] * 4),
        min_size=1,
        max_size=6,
    )
)
def test_alpha_on_white(colours):
    image = Image.new("RGBA", (len(colours), 1))
    for column, colour in enumerate(colours):
        image.putpixel((column, 0), colour)
    expected = [
        tuple(value * colour[3] / 255 + 255 - colour[3] for value in colour[:3])
        for colour in colours
    ]
    for source in (image, encode(image, "PNG"), encode(image, "TIFF")):
        for got, want in zip(pixels(open_image(source)), expected, strict=True):
            # Pillow rounds to whole levels.
            assert all(abs(g - w) <= 0.51 for g, w in zip(got, want, strict=True))


def test_other_transparent_modes():
    for mode, colour, expected in (
        ("LA", (0, 0), WHITE),
        ("LA", (7, 255), (7, 7, 7)),
        ("La", (0, 0), WHITE),
        ("RGBa", (0, 0, 0, 0), WHITE),
        ("RGBX", (9, 8, 7, 0), (9, 8, 7)),
    ):
        assert pixels(open_image(Image.new(mode, (1, 1), colour))) == [expected], mode
    palette = Image.new("PA", (2, 1))
    palette.putpalette([*RED, *GREEN])
    palette.putpixel((0, 0), (0, 255))
    palette.putpixel((1, 0), (1, 0))
    assert pixels(open_image(palette)) == [RED, WHITE]


def test_palettes():
    image = Image.new("P", (3, 1))
    image.putpalette([*RED, *GREEN, *BLUE])
    for column in range(3):
        image.putpixel((column, 0), column)
    for name in ("PNG", "GIF", "BMP", "TIFF"):
        assert pixels(open_image(encode(image, name))) == [RED, GREEN, BLUE], name
    for name in ("PNG", "GIF"):
        clear = encode(image, name, transparency=1)
        assert pixels(open_image(clear)) == [RED, WHITE, BLUE], name
    half = pixels(open_image(encode(image, "PNG", transparency=bytes([255, 0, 128]))))
    assert half == [RED, WHITE, (127, 127, 255)]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        # Two bits: 0, 1, 2, 3 are 0, 85, 170, 255; the transparent 1 turns white.
        (
            png(4, 1, 2, 0, [b"\x1b"], chunk(b"tRNS", b"\0\1")),
            [BLACK, WHITE, (170, 170, 170), WHITE],
        ),
        (png(4, 1, 2, 0, [b"\x1b"]), [BLACK, (85, 85, 85), (170, 170, 170), WHITE]),
        (png(2, 1, 1, 0, [b"\x40"]), [BLACK, WHITE]),
        (png(2, 1, 1, 0, [b"\x40"], chunk(b"tRNS", b"\0\0")), [WHITE, WHITE]),
        (png(2, 1, 8, 0, [b"\x05\x06"], chunk(b"tRNS", b"\0\5")), [WHITE, (6, 6, 6)]),
        (
            png(2, 1, 8, 2, [b"\1\2\3\4\5\6"], chunk(b"tRNS", b"\0\1\0\2\0\3")),
            [WHITE, (4, 5, 6)],
        ),
        # Sixteen bits: Pillow keeps the high byte of colours.
        (
            png(2, 1, 16, 2, [b"\x12\x34\x56\x78\x9a\xbc\1\0\2\0\3\0"],
                chunk(b"tRNS", b"\x12\x34\x56\x78\x9a\xbc")),
            [WHITE, (1, 2, 3)],
        ),
        (png(1, 1, 16, 6, [b"\x12\x34\x56\x78\x9a\xbc\0\0"]), [WHITE]),
        (png(1, 1, 16, 4, [b"\x80\0\xff\xff"]), [(128, 128, 128)]),
        (
            png(3, 1, 16, 0, [b"\0\0\x80\0\xff\xff"], chunk(b"tRNS", b"\x80\0")),
            [BLACK, WHITE, WHITE],
        ),
    ],
    ids=[
        "grey 2 clear", "grey 2", "grey 1", "grey 1 clear", "grey 8 clear", "colour 8 clear",
        "colour 16 clear", "colour 16 alpha", "grey 16 alpha", "grey 16 clear",
    ],
)  # fmt: skip
def test_depths_of_png(data, expected):
    assert pixels(open_image(data)) == expected


@given(st.lists(st.integers(0, 65_535), min_size=1, max_size=20))
def test_sixteen_bits_are_scaled_not_clipped(values):
    expected = [((510 * value + 65_535) // 131_070,) * 3 for value in values]
    raw = b"".join(struct.pack(">H", value) for value in values)
    little = b"".join(struct.pack("<H", value) for value in values)
    count = len(values)
    wide = Image.new("I", (count, 1))
    for column, value in enumerate(values):
        wide.putpixel((column, 0), value)
    for source in (
        png(count, 1, 16, 0, [raw]),
        tiff(count, 1, 16, little),
        tiff(count, 1, 16, raw, order=">"),
        b"P5 %d 1 65535\n" % count + raw,
        wide,
    ):
        assert pixels(open_image(source)) == expected


def grey(source):
    return [pixel[0] for pixel in pixels(open_image(source))]


def test_other_depths_of_grey():
    two = struct.Struct("<HH").pack
    assert grey(tiff(2, 1, 12, b"\xff\xf0\x00")) == [255, 0]
    assert grey(tiff(2, 1, 16, two(65_535, 257 * 3), photometric=0)) == [0, 252]
    assert grey(tiff(3, 1, 16, struct.pack("<hhh", -100, 0, 100), sample=2)) == [0, 128, 255]
    assert grey(tiff(2, 1, 32, struct.pack("<ii", -(2**31) + 1, 2**31 - 1), sample=2)) == [0, 255]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.25, 0.25, 0.25], [64, 64, 64]),
        ([0.0, 1.5, 200.4], [0, 2, 200]),
        ([-1.0, 0.0, 1.0], [0, 128, 255]),
        ([1000.0, 2000.0, 3000.0], [0, 128, 255]),
        ([-7.0, -7.0, -7.0], [128, 128, 128]),
        ([float("nan"), 0.0, 1.0], [0, 0, 255]),
        ([0.5, float("inf"), float("-inf")], [128, 255, 0]),
        ([float("nan")] * 3, [0, 0, 0]),
    ],
)
def test_floats(values, expected):
    image = Image.new("F", (3, 1))
    for column, value in enumerate(values):
        image.putpixel((column, 0), value)
    assert grey(image) == expected
    assert grey(encode(image, "TIFF")) == expected


def test_large_deep_pictures_are_scaled_strip_by_strip(monkeypatch):
    from llama4_vision.images import deep

    image = Image.linear_gradient("L").convert("I").point(lambda value: value * 257)
    whole = open_image(image).tobytes()
    assert whole == Image.linear_gradient("L").convert("RGB").tobytes()
    monkeypatch.setattr(deep, "_STRIP", 256 * 7)
    assert open_image(image).tobytes() == whole


def test_colour_spaces():
    assert pixels(open_image(Image.new("CMYK", (1, 1), (0, 255, 255, 0)))) == [RED]
    assert pixels(open_image(Image.new("HSV", (1, 1), (0, 255, 255)))) == [RED]
    assert pixels(open_image(Image.new("YCbCr", (1, 1), (255, 128, 128)))) == [WHITE]
    # CIE L* a* b* of the sRGB red is (53.2, 80.1, 67.2).
    red, green, blue = pixels(open_image(Image.new("LAB", (1, 1), (136, 208, 195))))[0]
    assert red > 245
    assert max(green, blue) < 25


@pytest.mark.parametrize("name", ["JPEG", "TIFF"])
def test_cmyk_files(name):
    # Pillow writes CMYK into JPEG inverted, with Adobe's marker, as Photoshop does; not into TIFF.
    data = encode(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), name)
    assert (b"Adobe" in data) == (name == "JPEG")
    red, green, blue = open_image(data).getpixel((8, 8))
    assert red > 250
    assert max(green, blue) < 5


@pytest.mark.parametrize("name", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_of_several(name):
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN, BLUE)]
    options = {"lossless": True} if name == "WEBP" else {}
    data = encode(frames[0], name, save_all=True, append_images=frames[1:], **options)
    assert set(pixels(open_image(data))) == {RED}
    # A Pillow image is taken where it stands.
    animation = Image.open(io.BytesIO(data))
    animation.seek(1)
    assert set(pixels(open_image(animation))) == {GREEN}
    assert animation.tell() == 1


@pytest.mark.parametrize("size", [(1, 1), (1, 10_000), (10_000, 1)])
@pytest.mark.parametrize("name", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM"])
def test_extreme_shapes(size, name):
    opened = open_image(encode(Image.new("RGB", size, WHITE), name))
    assert opened.size == size
    assert set(pixels(opened)) == {WHITE}


def test_a_pillow_image_that_is_rgb_comes_back_itself():
    image = corners()
    image.info["mine"] = 1
    assert open_image(image) is image
    assert image.info == {"mine": 1}


def test_a_pillow_image_of_another_mode_is_left_as_it_is():
    image = Image.new("LA", (2, 2), (7, 9))
    open_image(image)
    assert (image.mode, image.getpixel((0, 0))) == ("LA", (7, 9))


def test_what_comes_back_needs_no_file():
    opened = open_image(encode(corners(), "PNG"), Limits())
    assert opened.info == {}
    assert opened.copy().tobytes() == opened.resize(opened.size).tobytes()
