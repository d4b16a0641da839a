"""Files made to take memory or time: refused by what their headers say, before any decoding."""

import io
import struct
import sys
import zlib
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image, ImageFile, PngImagePlugin

from llama4_core.errors import ModalityError
from llama4_vision.images import deep  # noqa: F401 - imports torch, before memory is measured
from llama4_vision.images.formats import FORMATS, format_of, unknown_format
from llama4_vision.images.limits import (
    SCANS,
    Limits,
    too_long,
    too_many_pixels,
    too_many_scans,
)
from llama4_vision.images.open import BYTES_PER_PIXEL, open_image

MEBIBYTE = 1 << 20
# What a refused file may take: far below the 256 MiB that the smallest of the pictures declared
# here would need, and above what importing a reader takes.
REFUSED = 32 * MEBIBYTE
PIXELS = Limits().pixels


@contextmanager
def at_most(allowed):
    """The process grows by no more than ``allowed`` bytes; on Linux, which tells its own peak."""
    if not sys.platform.startswith("linux"):
        yield
        return

    def read(name):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(name)).split()[1]) * 1024

    Path("/proc/self/clear_refs").write_text("5")
    before = read("VmRSS")
    yield
    grown = read("VmHWM") - before
    assert grown <= allowed, f"{grown / MEBIBYTE:.0f} MiB"


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, *extra, depth=8, colour=2, data=b""):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(data))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + body + chunk(b"IEND", b"")


def gif(width, height, frame_width, frame_height):
    screen = b"GIF89a" + struct.pack("<HH", width, height) + b"\x80\0\0" + bytes(6)
    frame = b"," + struct.pack("<HHHH", 0, 0, frame_width, frame_height) + b"\0"
    return screen + frame + b"\2\2\x44\1\0;"


def webp(kind, body):
    block = kind + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", 4 + len(block)) + b"WEBP" + block


def tiff(*tags):
    entries = b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(64)


def grey_tiff(width, height, *more):
    return tiff(
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1),
        (277, 3, 1, 1), *more,
    )  # fmt: skip


def encode(image, name, **options):
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()


def jpeg(width, height):
    data = encode(Image.new("RGB", (16, 16)), "JPEG")
    start = data.index(b"\xff\xc0") + 5
    return data[:start] + struct.pack(">HH", height, width) + data[start + 4 :]


def bmp(width, height):
    data = encode(Image.new("RGB", (1, 1)), "BMP")
    return data[:18] + struct.pack("<ii", width, height) + data[26:]


BOMBS = {
    "png": (png(30_000, 30_000), (30_000, 30_000)),
    "png of one bit": (png(60_000, 60_000, depth=1, colour=0), (60_000, 60_000)),
    "animated png": (
        png(40_000, 40_000, chunk(b"acTL", struct.pack(">II", 1 << 30, 0))), (40_000, 40_000),
    ),
    "gif": (gif(65_535, 65_535, 1, 1), (65_535, 65_535)),
    "gif by its frame": (gif(1, 1, 9_000, 9_000), (9_000, 9_000)),
    "webp, plain": (
        webp(b"VP8 ", b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", 16_383, 16_383)),
        (16_383, 16_383),
    ),
    "webp, lossless": (webp(b"VP8L", b"\x2f" + b"\xff" * 3 + b"\x0f" + bytes(9)), (16_384, 16_384)),
    "webp, extended": (
        webp(b"VP8X", b"\2\0\0\0" + b"\x0f\x27\0" + b"\x0f\x27\0"), (10_000, 10_000),
    ),
    "jpeg": (jpeg(65_500, 65_500), (65_500, 65_500)),
    "bmp": (bmp(50_000, 50_000), (50_000, 50_000)),
    "bmp from the top": (bmp(50_000, -50_000), (50_000, 50_000)),
    "tiff": (grey_tiff(60_000, 60_000, (273, 4, 1, 8), (279, 4, 1, 9)), (60_000, 60_000)),
    "tiff by its tiles": (
        grey_tiff(
            1, 1, (322, 4, 1, 16_000), (323, 4, 1, 16_000), (324, 4, 1, 8), (325, 4, 1, 9),
        ),
        (16_000, 16_000),
    ),
    "ppm": (b"P6 60000 60000 255\n", (60_000, 60_000)),
    "ppm of one bit": (b"P4 60000 60000\n", (60_000, 60_000)),
    "pfm": (b"Pf 60000 60000 1.0\n", (60_000, 60_000)),
}  # fmt: skip


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", BOMBS)
def test_bombs(name):
    data, size = BOMBS[name]
    # Without Pillow's warning too: here warnings are errors of their own.
    with at_most(REFUSED), pytest.raises(ModalityError) as caught:
        open_image(data)
    assert str(caught.value) == too_many_pixels(*size, PIXELS)


def test_pillows_own_limit_does_not_decide(monkeypatch):
    data = encode(Image.new("RGB", (30, 20)), "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert open_image(data).size == (30, 20)
    assert Image.MAX_IMAGE_PIXELS == 10
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(ModalityError) as caught:
        open_image(data, Limits(pixels=599))
    assert str(caught.value) == too_many_pixels(30, 20, 599)
    assert open_image(data, Limits(pixels=600)).size == (30, 20)
    assert Image.MAX_IMAGE_PIXELS is None


def test_no_state_of_pillow_is_changed():
    before = (
        Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, PngImagePlugin.MAX_TEXT_CHUNK,
        PngImagePlugin.MAX_TEXT_MEMORY,
    )  # fmt: skip
    for data, _ in BOMBS.values():
        with pytest.raises(ModalityError):
            open_image(data)
    assert before == (
        Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, PngImagePlugin.MAX_TEXT_CHUNK,
        PngImagePlugin.MAX_TEXT_MEMORY,
    )  # fmt: skip


def test_pillow_images_have_the_same_limits():
    lazy = Image.open(io.BytesIO(png(9_000, 9_000)))
    with at_most(REFUSED), pytest.raises(ModalityError) as caught:
        open_image(lazy)
    assert str(caught.value) == too_many_pixels(9_000, 9_000, PIXELS)


@pytest.mark.parametrize("size", [(65_536, 1), (1, 65_536), (1, 1 << 26)])
def test_sides(size):
    with at_most(REFUSED), pytest.raises(ModalityError) as caught:
        open_image(png(*size))
    assert str(caught.value) == too_long(*size)


ZEROS = zlib.compress(bytes(40 * MEBIBYTE), 1)


@pytest.mark.parametrize(
    "extra",
    [
        chunk(b"zTXt", b"a\0\0" + ZEROS),
        chunk(b"iTXt", b"a\0\1\0\0\0" + ZEROS),
        chunk(b"iCCP", b"a\0\0" + ZEROS),
        chunk(b"eXIf", bytes(1000)),
    ],
    ids=["zTXt", "iTXt", "iCCP", "eXIf"],
)
def test_notes_that_grow(extra):
    rows = b"".join(b"\0" + bytes(3) for _ in range(2))
    with at_most(REFUSED):
        try:
            assert open_image(png(1, 2, extra, data=rows)).size == (1, 2)
        except ModalityError as refused:
            assert "PNG file is damaged" in str(refused)  # noqa: PT017 - either will do


def test_rows_that_grow():
    # The compressed rows go on for ever behind a picture of one pixel.
    with at_most(REFUSED):
        data = png(1, 1).replace(chunk(b"IDAT", zlib.compress(b"")), chunk(b"IDAT", ZEROS))
        assert open_image(data).tobytes() == bytes(3)


@pytest.mark.filterwarnings("ignore:Tag data larger than file")
@pytest.mark.parametrize("count", [1 << 20, 1 << 31, (1 << 32) - 1])
@pytest.mark.parametrize("tag", [258, 270, 273, 279, 320, 700, 34665])
def test_tags_of_tiff_that_claim_much(tag, count):
    data = grey_tiff(2, 2, (tag, 4, count, 8)) if tag != 258 else tiff((258, 3, count, 8))
    with at_most(REFUSED):
        try:
            assert open_image(data).mode == "RGB"
        except ModalityError as refused:
            assert "TIFF file is damaged" in str(refused)  # noqa: PT017 - either will do


def test_a_tiff_whose_pages_go_round():
    data = encode(Image.new("L", (2, 2), 7), "TIFF")
    start = struct.unpack("<I", data[4:8])[0]
    count = struct.unpack("<H", data[start : start + 2])[0]
    end = start + 2 + 12 * count
    assert open_image(data[:end] + data[4:8] + data[end + 4 :]).getpixel((0, 0)) == (7, 7, 7)


def test_many_frames_are_not_decoded(monkeypatch):
    data = encode(Image.new("P", (500, 500), 0), "GIF")
    frame = data[data.index(b",\0\0\0\0\xf4\1\xf4\1") : -1]
    reads = []
    load = ImageFile.ImageFile.load
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: (reads.append(1), load(self))[1])
    with at_most(REFUSED):
        opened = open_image(data[:-1] + frame * 5_000 + b";")
    assert opened.size == (500, 500)
    # Loading once, and asking again for what is there, in conversions; never once for each frame.
    assert len(reads) < 10


def test_jpeg_of_very_many_scans():
    data = encode(Image.new("RGB", (8, 8)), "JPEG", progressive=True)
    assert open_image(data).size == (8, 8)
    scans = data.count(b"\xff\xda")
    more = data[:-2] + b"\xff\xda" * (SCANS + 1 - scans)
    with pytest.raises(ModalityError) as caught:
        open_image(more)
    assert str(caught.value) == too_many_scans(SCANS + 1)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PostScript"),
        (b"%PDF-1.7\n", "PDF"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"<?xml version='1.0'?><svg/>", "XML or SVG"),
        (b"\0\0\0\x20ftypheic\0\0\0\0", "HEIC"),
        (b"\0\0\0\x20ftypavif\0\0\0\0", "AVIF"),
        (b"\0\0\0\x20ftypisom\0\0\0\0", "a film"),
        (b"\xd7\xcd\xc6\x9a" + bytes(40), "of no format known here"),
        (b"P9 1 1", "of no format known here"),
        (b"\0", "of no format known here"),
    ],
)
def test_formats_that_are_not_opened(data, found):
    with pytest.raises(ModalityError) as caught:
        open_image(data)
    assert str(caught.value) == unknown_format(data)
    assert str(caught.value).startswith(f"the picture's file is {found} (it begins with ")
    assert str(caught.value).endswith(f"expected {', '.join(FORMATS)}: convert it first")


def test_the_name_does_not_decide(tmp_path):
    path = tmp_path / "photo.eps"
    path.write_bytes(encode(Image.new("RGB", (2, 2)), "PNG"))
    assert open_image(path).size == (2, 2)
    assert format_of(path.read_bytes()) == "PNG"


@pytest.mark.parametrize(
    ("mode", "name", "options"),
    [
        ("RGB", "JPEG", {"progressive": True, "subsampling": 0}),
        ("LA", "PNG", {}),
        ("RGBA", "WEBP", {"lossless": True, "method": 0}),
        ("F", "TIFF", {}),
        ("P", "PNG", {"transparency": 0}),
    ],
)
def test_decoding_stays_under_the_cap(mode, name, options):
    image = Image.new(mode, (2_000, 2_000))
    data = encode(image, name, **options)
    with at_most(BYTES_PER_PIXEL * image.width * image.height + len(data)):
        opened = open_image(data)
    assert opened.size == image.size
