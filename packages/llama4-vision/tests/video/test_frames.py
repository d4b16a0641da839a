"""Frames of animations, folders and lists."""

from __future__ import annotations

import base64
import contextlib
import io
import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from llama4_core.errors import ModalityError
from llama4_vision.images.limits import Limits
from llama4_vision.video.frames import read_frames, sampled

from .drawing import SIZES, animation, on_white, pictures

# Frames that are cleared away before the next one is drawn, in each format's own numbers.
CLEARED = {"GIF": {"disposal": 2}, "PNG": {"disposal": 1, "blend": 0}, "WebP": {}}


@given(
    st.sampled_from(sorted(CLEARED)),
    st.lists(st.integers(2, 90), min_size=1, max_size=7),
    st.sampled_from(SIZES),
    st.booleans(),
    st.integers(1, 8),
)
def test_animations_are_shown_as_drawn(
    kind: str, hundredths: list[int], size: tuple[int, int], clear: bool, count: int
) -> None:
    """Frames are composed, on white, and come at their times; only those asked for are kept."""
    drawn = pictures(len(hundredths), size, clear=clear)
    settings = CLEARED[kind] if clear else {}
    data = animation(kind, drawn, [10 * each for each in hundredths], **settings)
    starts = list(itertools.accumulate(hundredths, initial=0))
    everything = read_frames(data, count=64)
    assert [frame.seconds for frame in everything] == [s / 100 for s in starts[: len(drawn)]]
    for frame, picture in zip(everything, drawn, strict=True):
        assert frame.image.mode == "RGB"
        assert frame.image.tobytes() == on_white(picture).tobytes()
    some = read_frames(data, count=count)
    assert len(some) == min(count, len(drawn))
    by_time = {frame.seconds: frame.image.tobytes() for frame in everything}
    assert all(by_time[frame.seconds] == frame.image.tobytes() for frame in some)


def test_the_picture_for_programs_without_animation_is_not_shown() -> None:
    drawn = pictures(4)
    frames = read_frames(animation("PNG", drawn, [100] * 3, default_image=True))
    assert [frame.image.tobytes() for frame in frames] == [
        on_white(picture).tobytes() for picture in drawn[1:]
    ]


def test_frames_per_second_follow_the_durations() -> None:
    data = animation("GIF", pictures(4), [1000, 100, 100, 2000])
    assert [frame.seconds for frame in read_frames(data, fps=1)] == [0.0, 1.0, 1.2]


def test_any_source(tmp_path: Path) -> None:
    data = animation("WebP", pictures(3), [100] * 3)
    path = tmp_path / "film.webp"
    path.write_bytes(data)
    url = "data:image/webp;base64," + base64.b64encode(data).decode()
    expected = [frame.image.tobytes() for frame in read_frames(data)]
    for source in (path, str(path), io.BytesIO(data), bytearray(data), url):
        assert [frame.image.tobytes() for frame in read_frames(source)] == expected


def test_a_still_picture_is_a_film_of_one_frame(tmp_path: Path) -> None:
    for kind in ("JPEG", "PNG", "BMP", "GIF"):
        file = io.BytesIO()
        pictures(1)[0].convert("RGB").save(file, kind)
        (frame,) = read_frames(file.getvalue())
        assert (frame.image.size, frame.seconds) == ((7, 5), 0.0)


@given(st.permutations([*range(12), 20, 100]), st.integers(2, 20))
def test_lists_keep_their_order_one_per_second(order: list[int], count: int) -> None:
    drawn = [Image.new("RGB", (2, 2), (index, 0, 0)) for index in order]
    frames = read_frames(drawn, count=count)
    assert len(frames) == min(count, len(order))
    for frame in frames:
        assert frame.image.getpixel((0, 0)) == (order[int(frame.seconds)], 0, 0)
    assert frames[-1].seconds == len(order) - 1
    assert [frame.seconds for frame in read_frames(drawn, fps=0.5)] == list(range(0, 14, 2))


def test_folders_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    names = ["frame1", "Frame2", "frame9", "frame010", "frame10b", "frame100", "x"]
    for index, name in sorted(enumerate(names), key=lambda item: item[1]):
        Image.new("RGB", (2, 2), (index, 0, 0)).save(tmp_path / f"{name}.PNG")
    (tmp_path / "frame3.txt").write_text("no picture")
    (tmp_path / "sub").mkdir()
    found = [frame.image.getpixel((0, 0))[0] for frame in read_frames(tmp_path)]  # type: ignore[index]
    assert found == list(range(len(names)))


def test_frames_are_decoded_one_at_a_time() -> None:
    frames = iter(sampled([Image.new("RGB", (2, 2)), "no/such/picture.png"]))
    assert next(frames).seconds == 0.0
    with pytest.raises(ModalityError, match="there is no picture"):
        next(frames)


def test_limits_come_before_decoding() -> None:
    film = animation("GIF", pictures(6), [100] * 6)
    for limits, said in (
        (Limits(bytes=100), "more than 100 bytes"),
        (Limits(pixels=34), "7 x 5 = 35 pixels; the limit is 34"),
        (Limits(pixels=35), r"6 frames of 7 x 5, which count for 24,576 pixels; the limit is 560"),
        (Limits(frames=5), "6 frames of one film were asked for; the limit is 5"),
    ):
        with pytest.raises(ModalityError, match=said):
            read_frames(film, count=None if limits.frames == 64 else 6, limits=limits)
    with pytest.raises(ModalityError, match="6 frames of one film were asked for; the limit is 5"):
        read_frames(film, fps=10, limits=Limits(frames=5))
    assert len(read_frames(film, count=5, limits=Limits(frames=5))) == 5


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WebP"])
def test_cut_and_damaged_animations_are_refused(kind: str) -> None:
    data = animation(kind, pictures(4, (40, 40)), [100] * 4)
    for share in (0.2, 0.5, 0.9, 0.99):
        with pytest.raises(ModalityError):
            read_frames(data[: int(share * len(data))])


@given(
    st.sampled_from(["GIF", "PNG", "WebP"]),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=30),
)
def test_damage_is_an_error_or_frames(kind: str, changes: list[tuple[float, int]]) -> None:
    data = bytearray(animation(kind, pictures(3, (20, 20)), [100] * 3))
    for share, value in changes:
        data[12 + int(share * (len(data) - 13))] = value
    with contextlib.suppress(ModalityError):
        read_frames(bytes(data), limits=Limits(pixels=1 << 16))


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ([], "the list of pictures is empty"),
        (None, "given as a NoneType"),
        ("", "path of the picture is empty"),
        ("no/such/film.mp4", "there is no film 'no/such/film.mp4'"),
        ("a\0b", "null"),
        ("https://example.org/film.mp4", "nothing here reaches the network"),
        ("data:video/mp4,abc", "no 'data:' URL"),
        ("/dev/null", "neither a file nor a folder"),
        (Image.new("RGB", (2, 2)), "one opened picture; expected its file, or a list"),
    ],
)
def test_what_is_no_film(source: object, said: str) -> None:
    with pytest.raises(ModalityError, match=said) as caught:
        read_frames(source)
    assert "\n" not in str(caught.value)


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(ModalityError, match="holds no picture; expected files"):
        read_frames(tmp_path)
