"""Intervals against published figures, and against what they promise."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama4_train.errors import EvaluationError
from llama4_train.evaluation.statistics import t_interval, t_quantile, wilson

# Two-sided, as every table of Student's t prints them, to three places.
PRINTED = {
    (1, 0.95): 12.706,
    (2, 0.95): 4.303,
    (3, 0.95): 3.182,
    (4, 0.90): 2.132,
    (5, 0.99): 4.032,
    (9, 0.95): 2.262,
    (30, 0.95): 2.042,
    (120, 0.99): 2.617,
}


@pytest.mark.parametrize(("freedom", "confidence"), PRINTED)
def test_quantiles_are_those_of_printed_tables(freedom: int, confidence: float) -> None:
    # Half a unit of the last printed place.
    assert abs(t_quantile(freedom, confidence) - PRINTED[freedom, confidence]) < 5e-4


def test_many_degrees_of_freedom_are_the_normal_distribution() -> None:
    # The first correction is (z^3 + z) / 4 n, 2.4e-4 here.
    assert t_quantile(10_000) == pytest.approx(1.959964, abs=3e-4)


@given(st.integers(1, 400), st.data())
def test_wilson_solves_its_equation(trials: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, trials))
    low, high = wilson(hits, trials)
    share = hits / trials
    assert 0 <= low <= share <= high <= 1
    for end in (low, high):
        if 0 < end < 1:
            # The ends are the rates of which the share is z standard deviations away.
            distance = abs(share - end) / math.sqrt(end * (1 - end) / trials)
            assert distance == pytest.approx(1.959964, rel=1e-6)  # a quotient of roundings


def test_wilson_holds_its_rate() -> None:
    drawn = random.Random(3)
    for rate in (0.02, 0.3, 0.9):
        held = 0
        for _ in range(1000):
            hits = sum(drawn.random() < rate for _ in range(60))
            low, high = wilson(hits, 60)
            held += low <= rate <= high
        # The interval holds 95 % on average over rates; at one rate and 60 trials it is within
        # 0.02 of it. Four standard deviations of 1,000 draws are 0.028.
        assert abs(held / 1000 - 0.95) < 0.02 + 0.028


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=9), st.floats(-10, 10))
def test_an_interval_moves_with_its_values(values: list[float], shift: float) -> None:
    mean, low, high = t_interval(values)
    assert low <= mean <= high
    moved = t_interval([value + shift for value in values])
    # Sums of nine numbers up to 1,010 in double precision, times a quantile of at most 12.7.
    assert moved == pytest.approx((mean + shift, low + shift, high + shift), abs=1e-9)


def test_an_interval_of_three_values_is_that_of_the_table() -> None:
    # Standard deviation 1 of three values, two degrees of freedom; the table has three places.
    mean, low, high = t_interval([1.0, 2.0, 3.0])
    reach = PRINTED[2, 0.95] / math.sqrt(3)
    assert (mean, low, high) == pytest.approx((2.0, 2 - reach, 2 + reach), abs=5e-4)


def test_too_little_is_refused() -> None:
    with pytest.raises(EvaluationError, match="at least two"):
        t_interval([1.0])
    with pytest.raises(EvaluationError, match="at least one trial"):
        wilson(0, 0)
    with pytest.raises(EvaluationError, match="degrees of freedom"):
        t_quantile(0)
