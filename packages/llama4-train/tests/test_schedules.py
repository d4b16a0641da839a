"""Schedules: their shape for any numbers, and some values by hand."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama4_train.errors import RecipeError
from llama4_train.recipe import SchedulePart
from llama4_train.schedules import factor, kept_bias

# Sums of two or three numbers of the order of 1.
ROUNDING = 1e-12

STEPS = st.integers(1, 60)
FLOORS = st.sampled_from((0.0, 0.1, 0.5, 1.0))
SCHEDULES = st.one_of(
    st.builds(SchedulePart, shape=st.just("constant"), warmup=st.integers(0, 40)),
    st.builds(SchedulePart, shape=st.just("cosine"), warmup=st.integers(0, 40), floor=FLOORS),
    st.builds(
        SchedulePart,
        shape=st.just("wsd"),
        warmup=st.integers(0, 40),
        decay=st.integers(1, 40),
        floor=FLOORS,
    ),
)


def curve(schedule: SchedulePart, steps: int) -> list[float]:
    return [factor(schedule, step, steps) for step in range(steps)]


@given(SCHEDULES, STEPS)
def test_factors_are_shares_and_rise_only_in_the_warm_up(schedule, steps):
    values = curve(schedule, steps)
    assert all(0 <= value <= 1 for value in values)
    later = values[max(schedule.warmup - 1, 0) :]
    assert all(after <= before + ROUNDING for before, after in pairwise(later))


@given(SCHEDULES, STEPS)
def test_warm_up_is_linear_up_to_one(schedule, steps):
    # The decay must begin later, else the smaller of both holds.
    steps += schedule.warmup + schedule.decay
    for step in range(schedule.warmup):
        assert factor(schedule, step, steps) == pytest.approx(
            (step + 1) / schedule.warmup, abs=ROUNDING
        )
    assert factor(schedule, schedule.warmup, steps) <= 1


@given(SCHEDULES, STEPS)
def test_no_jump(schedule, steps):
    """No step changes the factor by more than the steepest slope of its shape."""
    falling = {
        "constant": 0.0,
        # The derivative of half a cosine over n steps is at most pi / 2n.
        "cosine": math.pi / 2 / max(1, steps - 1 - schedule.warmup),
        "wsd": 1 / max(schedule.decay, 1),
    }[schedule.shape]
    steepest = max(1 / schedule.warmup if schedule.warmup else 0.0, falling)
    values = curve(schedule, steps)
    for before, after in pairwise(values):
        assert abs(after - before) <= steepest + ROUNDING


@given(SCHEDULES.filter(lambda one: one.shape != "constant"), STEPS, st.integers(0, 5))
def test_ends_at_the_floor_and_stays_there(schedule, steps, beyond):
    steps += schedule.warmup + schedule.decay + 1
    assert factor(schedule, steps - 1 + beyond, steps) == pytest.approx(
        schedule.floor, abs=ROUNDING
    )


@given(STEPS, st.integers(1, 20), FLOORS)
def test_wsd_is_stable_until_its_last_steps(stable, decay, floor):
    schedule = SchedulePart(shape="wsd", decay=decay, floor=floor)
    values = curve(schedule, stable + decay)
    assert values[:stable] == [1.0] * stable
    assert all(value < 1 for value in values[stable:]) or floor == 1


@pytest.mark.parametrize(
    ("schedule", "steps", "expected"),
    [
        (SchedulePart("constant"), 3, [1, 1, 1]),
        (SchedulePart("constant", warmup=4), 6, [0.25, 0.5, 0.75, 1, 1, 1]),
        # (1 + cos(pi k / 4)) / 2.
        (SchedulePart("cosine"), 5, [1, 0.8535533905932737, 0.5, 0.14644660940672627, 0]),
        (SchedulePart("cosine", warmup=2, floor=0.1), 5, [0.5, 1, 1, 0.55, 0.1]),
        (SchedulePart("wsd", warmup=2, decay=4, floor=0.2), 8,
         [0.5, 1, 1, 1, 0.8, 0.6, 0.4, 0.2]),
        # Warm-up and decay cross: 1/4, 2/4, 3/4, 4/4 and 5/6, 4/6, ... down.
        (SchedulePart("wsd", warmup=4, decay=6), 6, [0.25, 0.5, 0.5, 1 / 3, 1 / 6, 0]),
    ],
)  # fmt: skip
def test_values_by_hand(schedule, steps, expected):
    assert curve(schedule, steps) == pytest.approx(expected, abs=ROUNDING)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"shape": "cosine", "decay": 3}, "decay is 3, but shape cosine has no such steps"),
        ({"shape": "wsd"}, "decay is 0; expected the number of steps"),
        ({"shape": "constant", "floor": 0.1}, "floor is 0.1, but shape constant never falls"),
    ],
)
def test_settings_that_would_do_nothing_are_refused(settings, said):
    with pytest.raises(RecipeError, match=said):
        SchedulePart(**settings)


@given(st.integers(0, 60), st.integers(0, 60), st.floats(-2, 2))
def test_a_bias_is_kept_then_falls_linearly_to_nothing(release, before, bias):
    """Products of shares: after i of N released steps ``(N - i) / N`` is left."""
    steps = max(1, before + release)
    shares = [kept_bias(SchedulePart(release=release), i, steps) for i in range(steps)]
    balanced, released = shares[: steps - release], shares[steps - release :]
    assert balanced == [None] * len(balanced)
    left = bias
    for index, share in enumerate(released):
        left *= share
        assert math.isclose(left, bias * (release - 1 - index) / release, abs_tol=ROUNDING)
    assert left == 0 or not release


def test_a_run_that_ends_earlier_still_ends_at_nothing():
    """Fewer steps are left than ``release``: the share is of what there is."""
    assert kept_bias(SchedulePart(release=10), 0, 4) == 3 / 4
    assert kept_bias(SchedulePart(release=10), 3, 4) == 0.0
    assert kept_bias(SchedulePart(), 3, 4) is None
