"""From the curves of all runs to paired differences with intervals. No torch, no numpy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from llama4_train.ablation.plan import EVALUATION
from llama4_train.errors import EvaluationError
from llama4_train.evaluation.statistics import t_interval

Curve = Sequence[Mapping[str, Any]]
"""Steps of a run: "step", "loss", "parts", "tokens", "seconds", and "evaluation" where there is
one."""


@dataclass(frozen=True)
class Difference:
    """An arm less the control, paired by seed.

    Attributes:
        arm: its name.
        values: of each seed, in order of the seeds.
        mean, low, high: with Student's interval.
    """

    arm: str
    values: tuple[float, ...]
    mean: float
    low: float
    high: float

    def verdict(self, better: str) -> str:
        """Whether it is "better", "worse", or "cannot be told apart": the interval covers zero."""
        if self.low <= 0 <= self.high:
            return "cannot be told apart"
        return "better" if (self.mean < 0) == (better == "lower") else "worse"


@dataclass(frozen=True)
class Compared:
    """One metric of all runs.

    Attributes:
        outcomes: arm -> seed -> metric.
        differences: of each other arm and the control.
    """

    outcomes: Mapping[str, Mapping[int, float]]
    differences: tuple[Difference, ...]

    def plain(self, better: str) -> dict[str, Any]:
        """JSON values."""
        return {
            "outcomes": {
                arm: {str(seed): value for seed, value in values.items()}
                for arm, values in self.outcomes.items()
            },
            "differences": [
                {
                    "arm": one.arm,
                    "values": list(one.values),
                    "mean": one.mean,
                    "low": one.low,
                    "high": one.high,
                    "verdict": one.verdict(better),
                }
                for one in self.differences
            ],
        }


def outcome(curve: Curve, metric: str, tail: float) -> float:
    """What one run is judged by; see :class:`~llama4_train.ablation.plan.Plan`.

    Raises:
        EvaluationError: the run has no such number, or it is none.
    """
    if not curve:
        raise EvaluationError("a run has no steps; expected at least one")
    if metric.startswith(EVALUATION):
        found = curve[-1].get("evaluation", {})
        values = [_of(found, metric.removeprefix(EVALUATION), metric)]
    else:
        last = curve[-max(1, round(tail * len(curve))) :]
        values = [
            float(step["loss"]) if metric == "loss" else _of(step["parts"], metric, metric)
            for step in last
        ]
    mean = fmean(values)
    if not math.isfinite(mean):
        raise EvaluationError(f"{metric} of a run is {mean}; expected a finite number")
    return mean


def measured(curve: Curve, metric: str) -> bool:
    """Whether a run has a metric: a model without experts has no load of them."""
    if metric == "loss" or not curve:
        return bool(curve)
    if metric.startswith(EVALUATION):
        return metric.removeprefix(EVALUATION) in curve[-1].get("evaluation", {})
    return metric in curve[-1]["parts"]


def _of(values: Mapping[str, float], name: str, metric: str) -> float:
    if name not in values:
        raise EvaluationError(
            f"metric is {metric!r}, which a run does not have; it has "
            f"{', '.join(sorted(values)) or 'none'} (and 'loss')"
        )
    return float(values[name])


def compare(
    outcomes: Mapping[str, Mapping[int, float]], control: str, confidence: float = 0.95
) -> tuple[Difference, ...]:
    """Every other arm against the control.

    For each seed the outcome of the arm less that of the control; of these differences the mean
    with Student's interval, n - 1 degrees of freedom for n seeds. What seeds have in common - data
    order, and weights where the arms have the same ones - cancels. Each interval holds its rate
    for itself: of twenty arms that are all the control, about one excludes zero at 95 %.

    Args:
        outcomes: arm -> seed -> what its run is judged by; all arms with the same seeds.
        control: one of the arms.
        confidence: share of intervals that hold the true difference.

    Raises:
        EvaluationError: arms have other seeds than the control, or fewer than two.
    """
    base = outcomes[control]
    found = []
    for arm, values in outcomes.items():
        if set(values) != set(base):
            raise EvaluationError(
                f"arm {arm!r} has the seeds {sorted(values)} and {control!r} {sorted(base)}; "
                "expected the same ones"
            )
        if arm != control:
            pairs = tuple(values[seed] - base[seed] for seed in sorted(base))
            found.append(Difference(arm, pairs, *t_interval(pairs, confidence)))
    return tuple(found)


def compared(
    curves: Mapping[str, Mapping[int, Curve]],
    metric: str,
    control: str,
    *,
    tail: float,
    confidence: float,
) -> Compared:
    """One metric of all runs; arguments as :func:`outcome` and :func:`compare` have them.

    Raises:
        EvaluationError: as of those.
    """
    outcomes = {
        arm: {seed: outcome(curve, metric, tail) for seed, curve in by_seed.items()}
        for arm, by_seed in curves.items()
    }
    return Compared(outcomes, compare(outcomes, control, confidence))


def having(
    curves: Mapping[str, Mapping[int, Curve]], metric: str, control: str
) -> dict[str, Mapping[int, Curve]]:
    """The arms that have a metric, and the control."""
    return {
        arm: by_seed
        for arm, by_seed in curves.items()
        if arm == control or any(measured(curve, metric) for curve in by_seed.values())
    }


def course(curves: Mapping[int, Curve], metric: str, points: int = 60) -> list[tuple[float, float]]:
    """Step and mean over seeds of a part of the loss, in at most so many blocks of steps."""
    return [(step, fmean(values)) for step, values in blocks(curves, metric, points)]


def course_of_difference(
    curves: Mapping[int, Curve],
    control: Mapping[int, Curve],
    metric: str,
    confidence: float,
    points: int = 60,
) -> list[tuple[float, float, float, float]]:
    """Step, mean and interval of the paired difference over a run, block by block."""
    found = []
    arm, base = blocks(curves, metric, points), blocks(control, metric, points)
    for (step, ours), (_, theirs) in zip(arm, base, strict=True):
        pairs = [one - other for one, other in zip(ours, theirs, strict=True)]
        found.append((step, *t_interval(pairs, confidence)))
    return found


def blocks(
    curves: Mapping[int, Curve], metric: str, points: int
) -> list[tuple[float, list[float]]]:
    """Last step of each block, and the mean of each seed in it, in order of the seeds."""
    length = min(len(curve) for curve in curves.values())
    size = max(1, math.ceil(length / points))
    found = []
    for start in range(0, length, size):
        end = min(start + size, length)
        found.append(
            (
                float(end),
                [outcome(curves[seed][start:end], metric, 1.0) for seed in sorted(curves)],
            )
        )
    return found
