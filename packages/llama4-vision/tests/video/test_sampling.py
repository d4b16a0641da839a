"""Which frames are chosen, against the definition by exact fractions."""

from __future__ import annotations

import itertools
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama4_core.errors import ModalityError
from llama4_vision.video.sampling import DEFAULT_FRAMES, sample

HUNDREDTHS = st.lists(st.integers(1, 300), min_size=1, max_size=30)


@given(st.integers(1, 400), st.integers(1, 70))
def test_a_count_is_spread_evenly_from_the_first_to_the_last(total: int, count: int) -> None:
    times = [float(index) for index in range(total)]
    chosen = sample(times, float(total), count)
    assert len(chosen) == min(count, total)
    assert chosen[0] == 0
    if count > 1:
        assert chosen[-1] == total - 1
    gaps = {after - before for before, after in itertools.pairwise(chosen)}
    assert not gaps or (min(gaps) >= 1 and max(gaps) - min(gaps) <= 1)


@given(HUNDREDTHS, st.fractions(Fraction(1, 20), 200, max_denominator=30))
def test_a_rate_takes_what_is_on_the_screen_at_each_tick(
    hundredths: list[int], fps: Fraction
) -> None:
    *starts, end = itertools.accumulate((Fraction(n, 100) for n in hundredths), initial=Fraction(0))
    expected: list[int] = []
    tick = Fraction(0)
    while tick < end:
        shown = max(index for index, start in enumerate(starts) if start <= tick)
        if shown not in expected:
            expected.append(shown)
        tick += 1 / fps
    assert sample(list(map(float, starts)), float(end), fps=float(fps)) == tuple(expected)


def test_the_usual_number_of_frames() -> None:
    assert len(sample([0.1 * index for index in range(100)], 10.0)) == DEFAULT_FRAMES
    assert sample([0.0, 0.1], 0.2) == (0, 1)


def test_a_last_frame_that_says_no_time_is_on_the_screen_when_the_film_ends() -> None:
    assert sample([0.0, 0.5, 1.0], 1.0, fps=2) == (0, 1, 2)
    assert sample([0.0], 0.0, fps=3) == (0,)


@given(HUNDREDTHS, st.floats(0.01, 500))
def test_where_the_clock_of_a_container_begins_does_not_matter(
    hundredths: list[int], fps: float
) -> None:
    *starts, end = itertools.accumulate(hundredths, initial=0)
    # Powers of two, so that moving the clock rounds nothing.
    times = [start / 64 for start in starts]
    moved = [time + 4096.0 for time in times]
    assert sample(moved, end / 64 + 4096, fps=fps) == sample(times, end / 64, fps=fps)


@pytest.mark.parametrize(
    ("count", "fps", "said"),
    [
        (1, 1, "expected one of the two"),
        (0, None, "got 0 as the number of frames"),
        (True, None, "got True as the number"),
        (2.0, None, "got 2.0 as the number"),
        (None, 0, "got 0 frames per second"),
        (None, float("nan"), "got nan frames per second"),
        (None, float("inf"), "got inf frames per second"),
        (None, "2", "got '2' frames per second"),
    ],
)
def test_senseless_rates_are_refused(count: object, fps: object, said: str) -> None:
    with pytest.raises(ModalityError, match=said):
        sample([0.0, 1.0], 2.0, count, fps)  # type: ignore[arg-type]


def test_no_frame_is_refused() -> None:
    with pytest.raises(ModalityError, match="no frame"):
        sample([], 0.0)
