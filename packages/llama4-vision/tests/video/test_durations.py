"""What containers say about their frames, against what was written and what Pillow counts."""

from __future__ import annotations

import contextlib
import io
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from llama4_core.errors import ModalityError
from llama4_vision.video.durations import UNSAID, timeline

from .drawing import SIZES, animation, pictures

KINDS = ("GIF", "PNG", "WebP")


@given(
    st.sampled_from(KINDS),
    st.lists(st.integers(2, 200), min_size=2, max_size=6),
    st.sampled_from(SIZES),
    st.booleans(),
)
def test_durations_as_written(
    kind: str, hundredths: list[int], size: tuple[int, int], clear: bool
) -> None:
    frames = pictures(len(hundredths), size, clear=clear)
    data = animation(kind, frames, [10 * each for each in hundredths])
    found = timeline(data, kind)
    assert found is not None
    assert (found.width, found.height, found.first) == (*size, 0)
    with Image.open(io.BytesIO(data)) as film:
        assert len(found.seconds) == film.n_frames  # type: ignore[attr-defined]
    assert found.seconds == tuple(Fraction(each, 100) for each in hundredths)


@pytest.mark.parametrize("kind", KINDS)
def test_what_does_not_move_has_no_timeline(kind: str) -> None:
    file = io.BytesIO()
    pictures(1)[0].save(file, kind)
    assert timeline(file.getvalue(), kind) is None


@pytest.mark.parametrize("milliseconds", [0, 10])
def test_no_time_is_a_tenth_of_a_second(milliseconds: int) -> None:
    found = timeline(animation("GIF", pictures(3), [milliseconds] * 3), "GIF")
    assert found is not None
    assert found.seconds == (UNSAID,) * 3


def test_a_picture_for_programs_that_show_no_animation_is_no_frame() -> None:
    frames = pictures(3)
    data = animation("PNG", frames, [500, 700], default_image=True)
    found = timeline(data, "PNG")
    assert found is not None
    assert (found.first, found.seconds) == (1, (Fraction(1, 2), Fraction(7, 10)))


def test_a_frame_that_reaches_beyond_the_picture_widens_it() -> None:
    """As in Pillow, which allocates the wider one: limits must know of it."""
    data = bytearray(animation("GIF", pictures(2), [100, 100]))
    place = next(
        at for at in range(len(data)) if data[at] == 0x2C and data[at + 5 : at + 9] == b"\7\0\5\0"
    )
    data[place + 5 : place + 9] = b"\x60\xea\x61\xea"
    found = timeline(bytes(data), "GIF")
    assert found is not None
    assert (found.width, found.height) == (60_000, 60_001)


@given(st.sampled_from(KINDS), st.booleans(), st.floats(0, 1, exclude_max=True))
def test_a_file_that_was_cut_is_refused(kind: str, clear: bool, share: float) -> None:
    data = animation(kind, pictures(3, clear=clear), [100] * 3)
    # A PNG ends with the check sum of a chunk without content, which nobody needs.
    whole = len(data) - (4 if kind == "PNG" else 0)
    cut = data[: 12 + int(share * (whole - 12))]
    with pytest.raises(ModalityError, match=f"the {kind} animation ends within a frame"):
        timeline(cut, kind)


CHANGES = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=9)


@given(st.sampled_from(KINDS), CHANGES)
def test_damage_is_an_error_or_a_timeline(kind: str, changes: list[tuple[float, int]]) -> None:
    data = bytearray(animation(kind, pictures(3), [100] * 3))
    for share, value in changes:
        data[12 + int(share * (len(data) - 13))] = value
    # Nothing but the error that is promised, and no walk without end.
    with contextlib.suppress(ModalityError):
        timeline(bytes(data), kind)
