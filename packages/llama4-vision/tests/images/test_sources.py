"""From what pictures are read, and what is said when they are not there."""

import base64
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from llama4_core.errors import ModalityError
from llama4_vision.images.formats import EMPTY, unknown_format
from llama4_vision.images.limits import Limits, too_many_bytes
from llama4_vision.images.open import open_image
from llama4_vision.images.sources import SOURCES, read_bytes


def picture():
    buffer = io.BytesIO()
    Image.new("RGB", (5, 4), (1, 2, 3)).save(buffer, "PNG")
    return buffer.getvalue()


PICTURE = picture()


class Slow(io.RawIOBase):
    """Gives three bytes at a time, as a socket may."""

    def __init__(self, data):
        self.data = io.BytesIO(data)

    def read(self, size=-1):
        return self.data.read(min(size, 3))


def test_every_source_gives_the_same_picture(tmp_path):
    path = tmp_path / "photo.txt"
    path.write_bytes(PICTURE)
    url = "data:image/png;base64," + base64.b64encode(PICTURE).decode()
    with path.open("rb") as file:
        for source in (
            path, str(path), PICTURE, bytearray(PICTURE),
            memoryview(PICTURE), io.BytesIO(PICTURE), Slow(PICTURE), file, url,
            Image.open(io.BytesIO(PICTURE)),
        ):  # fmt: skip
            opened = open_image(source)
            assert (opened.mode, opened.size) == ("RGB", (5, 4))
            assert opened.getpixel((2, 2)) == (1, 2, 3)


@given(st.binary(max_size=60), st.sampled_from(["", "image/png", "IMAGE/JPEG", "text/plain;a=b"]))
def test_data_urls(data, kind):
    text = base64.b64encode(data).decode()
    broken = "\n".join(text[i : i + 7] for i in range(0, len(text), 7))
    for body in (text, broken, text.rstrip("="), text.replace("+", "%2B").replace("=", "%3D")):
        assert read_bytes(f"data:{kind};base64,{body}", Limits()) == data


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("data:image/png,abc", "no 'data:' URL of a picture"),
        ("data:", "no 'data:' URL of a picture"),
        ("data:image/svg+xml;utf8,<svg/>", "no 'data:' URL of a picture"),
        ("data:image/png;base64,@@@@", "not base64"),
        ("data:image/png;base64,AAAAA", "not base64"),
        ("data:image/png;base64,日本", "not base64"),
        ("data:image/png;base64,", EMPTY),
    ],
)
def test_damaged_data_urls(url, words):
    with pytest.raises(ModalityError) as caught:
        open_image(url)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "url", ["http://example.com/a.png", "HTTPS://example.com/a.png", "ftp://a/b", "s3://a/b",
            "file:///a.png"],
)  # fmt: skip
def test_the_network_is_never_reached(url):
    with pytest.raises(ModalityError, match="nothing here reaches the network; download it first"):
        open_image(url)


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(
        ModalityError, match=r"^there is no picture '.*missing\.png'; expected a path"
    ):
        open_image(tmp_path / "missing.png")
    with pytest.raises(ModalityError, match="is a folder; give one file in it"):
        open_image(tmp_path)
    with pytest.raises(ModalityError, match="cannot be read"):
        open_image(str(tmp_path / "a\0b"))
    with pytest.raises(ModalityError, match="cannot be read"):
        open_image(str(tmp_path / ("x" * 5_000)))
    with pytest.raises(ModalityError, match="the path of the picture is empty"):
        open_image("")
    (tmp_path / "file").write_bytes(PICTURE)
    with pytest.raises(ModalityError, match="cannot be read"):
        open_image(tmp_path / "file" / "inside")


def test_a_file_without_permission(tmp_path, monkeypatch):
    path = tmp_path / "locked.png"
    path.write_bytes(PICTURE)

    def refuse(*_):
        raise PermissionError(13, "Permission denied", str(path))

    # Not by the file's mode: root reads every file.
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ModalityError, match=r"locked\.png' cannot be read: Permission denied$"):
        open_image(path)


@pytest.mark.parametrize("source", [None, 5, 1.5, object(), ["a.png"], {"url": "a.png"}])
def test_other_things(source):
    with pytest.raises(ModalityError) as caught:
        open_image(source)
    kind = type(source).__name__
    assert str(caught.value) == f"the picture is given as a {kind}; expected {SOURCES}"


def test_files_that_are_not_binary():
    with pytest.raises(ModalityError, match="gave a str; open it in binary mode"):
        open_image(io.StringIO("text"))
    closed = io.BytesIO(PICTURE)
    closed.close()
    with pytest.raises(ModalityError, match="cannot be read"):
        open_image(closed)


def test_messages_stay_short():
    for source in ("x" * 10_000, "data:image/png," + "x" * 10_000, "http://" + "x" * 10_000):
        with pytest.raises(ModalityError) as caught:
            open_image(source)
        assert len(str(caught.value)) < 400


def test_a_text_called_png(tmp_path):
    path = tmp_path / "text.png"
    path.write_text("This is no picture.")
    with pytest.raises(ModalityError) as caught:
        open_image(path)
    assert str(caught.value) == unknown_format(b"This is no picture.")
    path.write_bytes(b"")
    with pytest.raises(ModalityError) as caught:
        open_image(path)
    assert str(caught.value) == EMPTY


class Counting:
    """A file without an end that knows how much was read."""

    count = 0

    def read(self, size):
        self.count += size
        return bytes(size)


def test_no_more_is_read_than_allowed(tmp_path):
    limits = Limits(bytes=len(PICTURE))
    url = "data:;base64," + base64.b64encode(PICTURE).decode()
    path = tmp_path / "a.png"
    path.write_bytes(PICTURE)
    for source in (PICTURE, bytearray(PICTURE), io.BytesIO(PICTURE), url, path):
        assert open_image(source, limits).size == (5, 4)
    more = PICTURE + b"\0"
    path.write_bytes(more)
    url = "data:;base64," + base64.b64encode(more).decode()
    endless = Counting()
    long_url = "data:;base64," + "%41" * 10_000
    for source in (more, bytearray(more), memoryview(more), io.BytesIO(more), Slow(more), url, path,
                   endless, long_url):  # fmt: skip
        with pytest.raises(ModalityError) as caught:
            open_image(source, limits)
        assert str(caught.value) == too_many_bytes(limits.bytes)
    assert endless.count == limits.bytes + 1


def test_a_large_file_is_not_even_opened(tmp_path, monkeypatch):
    path = tmp_path / "large.png"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # sparse
    monkeypatch.setattr(Path, "open", lambda *_: pytest.fail("opened"))
    with pytest.raises(ModalityError) as caught:
        open_image(path)
    assert str(caught.value) == too_many_bytes(Limits().bytes)
