"""Films that PyAV decodes, against the numbers that were drawn on their frames."""

from __future__ import annotations

import contextlib
import itertools
import struct
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama4_core.errors import ModalityError
from llama4_vision.images.limits import Limits
from llama4_vision.video import films
from llama4_vision.video.frames import open_film, read_frames
from llama4_vision.video.sampling import sample

from .drawing import film, numbers

CONTAINERS = (
    ("mp4", "libx264"),
    ("matroska", "libx264"),
    ("webm", "libvpx-vp9"),
    ("avi", "mpeg4"),
    ("avi", "libx264"),
    ("mpegts", "libx264"),
)
LONG = film(count=30, group=5)


# Encoding takes tens of milliseconds a film.
@settings(max_examples=12)
@given(
    st.sampled_from(CONTAINERS),
    st.integers(2, 30),
    st.sampled_from((5, 10, 24)),
    st.sampled_from((3, 12)),
    st.sampled_from((0, 2)),
    st.integers(1, 30),
)
def test_the_frames_that_were_asked_for(
    kind: tuple[str, str], count: int, rate: int, group: int, between: int, wanted: int
) -> None:
    """Right frames at right times, whatever is predicted from what, going there or seeking."""
    between = 0 if "vp9" in kind[1] else between
    # FFmpeg does not find the beginning of a transport stream of ten packets.
    count = max(count, 6) if kind[0] == "mpegts" else count
    data = film(*kind, count=count, rate=rate, group=group, between=between)
    frames = read_frames(data, count=wanted)
    indices = sample(range(count), count, wanted)
    assert numbers(frames) == list(indices)
    for index, frame in zip(indices, frames, strict=True):
        # Matroska rounds times to milliseconds.
        assert frame.seconds == pytest.approx(index / rate, abs=1.1e-3)
        assert frame.image.mode == "RGB"


def test_frames_per_second() -> None:
    frames = read_frames(LONG, fps=2)
    assert numbers(frames) == [0, 5, 10, 15, 20, 25]
    assert numbers(read_frames(LONG, fps=1000, limits=Limits(frames=30))) == list(range(30))


def test_a_file_is_read_bit_by_bit(tmp_path: Path) -> None:
    path = tmp_path / "any name"
    path.write_bytes(LONG)
    assert numbers(read_frames(path, count=3)) == [0, 15, 29]


def test_only_what_leads_to_a_frame_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    original = films.Film._decoded

    def counting(self: films.Film, container: object, stream: object) -> object:
        for found in original(self, container, stream):
            decoded.append(found[0])
            yield found

    monkeypatch.setattr(films.Film, "_decoded", counting)
    found = read_frames(film(count=31, group=5), count=4)
    assert numbers(found) == [0, 10, 20, 30]
    # Each of these stands for itself, or follows the one before: four, and not 31.
    assert len(decoded) == 4


def test_rotation_of_a_telephone() -> None:
    """The matrix of a film taken upright: it is shown turned by 90 degrees clockwise."""
    data = bytearray(film(size=(32, 16)))
    # In the track's header (ISO 14496-12, 8.3.2): 36 bytes behind its version and 36 bytes more.
    place = data.index(b"tkhd") + 4 + 40
    one = 1 << 16
    assert struct.unpack_from(">9i", data, place) == (one, 0, 0, 0, one, 0, 0, 0, 1 << 30)
    struct.pack_into(">9i", data, place, 0, one, 0, -one, 0, 0, 16 * one, 0, 1 << 30)
    frame = read_frames(bytes(data), count=1)[0]
    assert frame.image.size == (16, 32)
    corners = [frame.image.getpixel(at)[0] for at in ((1, 1), (14, 1), (1, 30), (14, 30))]  # type: ignore[index]
    # The white square was at the top left; compression may take a little of it.
    assert [value > 200 for value in corners] == [False, True, False, False]


@pytest.mark.parametrize(
    ("container", "codec", "options"),
    [
        ("mp4", "libx264", {}),
        ("mp4", "libx264", {"movflags": "faststart"}),
        ("matroska", "libx264", {}),
        ("avi", "mpeg4", {}),
    ],
)
def test_films_that_were_cut_are_refused(
    container: str, codec: str, options: dict[str, str]
) -> None:
    data = film(container, codec, count=30, rate=5, settings=options)
    read_frames(data)
    # Matroska says how long it is, and not how many frames: a second is not missed.
    for share in (0.02, 0.3, 0.6, 0.7):
        with pytest.raises(ModalityError, match="the film cannot be read") as caught:
            read_frames(data[: int(share * len(data))])
        assert "\n" not in str(caught.value)


def test_a_film_whose_last_frame_is_cut_is_refused() -> None:
    """Whichever frames are asked for."""
    data = film(count=30, rate=5, settings={"movflags": "faststart"})
    with pytest.raises(ModalityError, match="a part of it is missing"):
        read_frames(data[:-20], count=1)


def test_a_transport_stream_is_not_searched() -> None:
    """Going to a time in it ends behind the frame that stands for itself."""
    data = film("mpegts", count=30, group=12, between=2)
    assert numbers(read_frames(data, count=8)) == [0, 4, 8, 12, 17, 21, 25, 29]


@settings(max_examples=15)
@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=40))
def test_damage_is_an_error_or_frames(changes: list[tuple[float, int]]) -> None:
    data = bytearray(LONG)
    for share, value in changes:
        data[int(share * (len(data) - 1))] = value
    with contextlib.suppress(ModalityError):
        read_frames(bytes(data), limits=Limits(pixels=1 << 16))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"words",
        b"#EXTM3U\n#EXT-X-VERSION:3\n#EXTINF:1,\nhttp://127.0.0.1:9/x.ts\n#EXT-X-ENDLIST\n",
        b"ffconcat version 1.0\nfile /etc/hostname\n",
        # PyAV would read it; containers are read that are named, and no others.
        b"YUV4MPEG2 W2 H2 F1:1 Ip A1:1 C420jpeg\nFRAME\n123456",
        b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x40\x1f\0\0\x80\x3e\0\0\2\0\x10\0data\0\0\0\0",
    ],
)
def test_what_is_no_film_is_refused(data: bytes) -> None:
    """Lists of other files among them: nothing that they name is opened."""
    with pytest.raises(ModalityError, match="the film cannot be read") as caught:
        read_frames(data)
    assert "\n" not in str(caught.value)


def test_limits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    path.write_bytes(LONG)
    with pytest.raises(ModalityError, match=f"{len(LONG):,} bytes; the limit is 99"):
        read_frames(path, limits=Limits(bytes=99))
    with pytest.raises(ModalityError, match="32 x 16 = 512 pixels; the limit is 511"):
        read_frames(LONG, limits=Limits(pixels=511))
    with pytest.raises(ModalityError, match=r"15 frames of one film.* the limit is 14"):
        read_frames(LONG, fps=5, limits=Limits(frames=14))
    monkeypatch.setattr(films, "DECODED", 12)
    limits = Limits(pixels=512)
    # Frames 0, 10, 19 and 29, and every fifth stands for itself: 1 + 1 + 5 + 5 are decoded.
    assert numbers(read_frames(LONG, count=4, limits=limits)) == [0, 10, 19, 29]
    with pytest.raises(ModalityError, match="13 of 32 x 16 would be decoded, 6,656 pixels"):
        read_frames(LONG, count=5, limits=limits)


def test_without_pyav(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ModalityError, match=r"pip install 'llama4-vision\[video\]'"):
        read_frames(LONG)


def test_times_begin_with_the_first_frame() -> None:
    for kind in CONTAINERS:
        found = open_film(film(*kind, count=7, rate=5))
        assert found.times[0] == 0.0
        assert found.end == pytest.approx(1.4, abs=2e-3)
        gaps = [after - before for before, after in itertools.pairwise(found.times)]
        assert gaps == pytest.approx([0.2] * 6, abs=1.1e-3)
