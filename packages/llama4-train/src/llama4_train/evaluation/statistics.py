"""Intervals: of a share, of a mean, of paired differences. No torch, no numpy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist, fmean, stdev

from llama4_train.errors import EvaluationError

CONFIDENCE = 0.95
"""Of every interval, unless said otherwise."""


def wilson(hits: int, trials: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson's score interval of a share (1927): it covers well also near 0 and 1.

    With ``p = hits / trials`` and the normal quantile z::

        (p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)

    Args:
        hits: of the trials.
        trials: at least 1.
        confidence: share of such intervals that hold the true rate.

    Raises:
        EvaluationError: there are no trials, or more hits than trials.
    """
    if trials < 1 or not 0 <= hits <= trials:
        raise EvaluationError(f"got {hits} hits in {trials} trials; expected at least one trial")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, square = hits / trials, z * z / trials
    middle = share + square / 2
    reach = z * math.sqrt(share * (1 - share) / trials + square / (4 * trials))
    # At the ends the formula gives 0 and 1 but for rounding.
    low = 0.0 if hits == 0 else (middle - reach) / (1 + square)
    high = 1.0 if hits == trials else (middle + reach) / (1 + square)
    return low, high


def t_interval(
    values: Sequence[float], confidence: float = CONFIDENCE
) -> tuple[float, float, float]:
    """Mean and Student's interval of it: ``mean -+ t sd / sqrt(n)`` with n - 1 degrees of freedom.

    It holds its rate exactly where the values are independent and normal; of differences paired by
    seed that asks for independent seeds, not for equal ones.

    Args:
        values: at least two.
        confidence: share of such intervals that hold the true mean.

    Returns:
        Mean, lower and upper end.

    Raises:
        EvaluationError: fewer than two values.
    """
    if len(values) < 2:
        raise EvaluationError(
            f"got {len(values)} values; an interval of a mean needs at least two (more seeds)"
        )
    mean = fmean(values)
    reach = t_quantile(len(values) - 1, confidence) * stdev(values) / math.sqrt(len(values))
    return mean, mean - reach, mean + reach


@lru_cache(maxsize=1 << 12)
def t_quantile(freedom: int, confidence: float = CONFIDENCE) -> float:
    """The t with ``P(|T| < t) = confidence`` for ``freedom`` degrees of freedom.

    Raises:
        EvaluationError: no degree of freedom, or no share between 0 and 1.
    """
    if freedom < 1 or not 0 < confidence < 1:
        raise EvaluationError(
            f"got {freedom} degrees of freedom at confidence {confidence}; expected at least 1, "
            "and a share between 0 and 1"
        )
    low, high = 0.0, math.pi / 2
    for _ in range(80):  # halvings: beyond what a float tells apart
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < confidence else (low, middle)
    return math.sqrt(freedom) * math.tan(low)


def _within(angle: float, freedom: int) -> float:
    """``P(|T| < sqrt(freedom) tan(angle))``: Abramowitz and Stegun, 26.7.3 and 26.7.4."""
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term, total = (cosine, 0.0) if odd else (1.0, 0.0)
    for power in range(1 if odd else 0, freedom - 1, 2):
        total += term
        term *= cosine * cosine * (power + 1) / (power + 2)
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
