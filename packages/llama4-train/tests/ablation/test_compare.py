"""Paired differences hold their rate, and find what is there."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama4_train.ablation.compare import blocks, compare, course_of_difference, outcome
from llama4_train.ablation.plan import Plan
from llama4_train.errors import EvaluationError
from llama4_train.recipe import Recipe
from llama4_train.trainer.step import Step

SEEDS = (0, 1, 2, 3)
RECIPE = Recipe.of(
    {
        "name": "fake",
        "steps": 20,
        "model": {"start": "nano"},
        "data": {"length": 8, "tokens": 16, "sources": [{"name": "worlds"}]},
    }
)


def fake(recipe: Recipe, worse: float, drawn: random.Random, ease: float) -> Iterator[Step]:
    """A run whose loss falls, easier or harder with its seed, and noisy for itself."""
    own = drawn.gauss(0, 0.02)
    for number in range(recipe.steps):
        value = 2 * math.exp(-number / 8) + ease + own + worse + drawn.gauss(0, 0.01)
        yield Step(number, value, 1e-3, 1.0, 16, 0.5, {"nll": value, "batches": 7.0 + number})


def curve(steps: Iterator[Step]) -> list[dict[str, Any]]:
    return [
        {"step": one.number, "loss": one.loss, "parts": dict(one.parts), "tokens": one.tokens}
        for one in steps
    ]


def experiment(number: int, worse: float, confidence: float = 0.95) -> Any:
    """Two arms of four seeds; the second is worse by so much."""
    drawn = random.Random(number)
    # Seeds differ by far more than arms do: unpaired, nothing could be told.
    ease = {seed: drawn.gauss(0, 1.0) for seed in SEEDS}
    outcomes = {
        arm: {
            seed: outcome(curve(fake(RECIPE, extra, drawn, ease[seed])), "nll", 0.2)
            for seed in SEEDS
        }
        for arm, extra in (("a", 0.0), ("b", worse))
    }
    (difference,) = compare(outcomes, "a", confidence)
    return difference


@pytest.mark.parametrize("confidence", [0.95, 0.8])
def test_an_arm_against_itself_covers_zero_at_the_stated_rate(confidence: float) -> None:
    trials = 400
    covers = sum(
        one.low <= 0 <= one.high
        for one in (experiment(number, 0.0, confidence) for number in range(trials))
    )
    # A binomial count: four standard deviations, which one experiment in 16,000 would leave.
    spread = 4 * math.sqrt(trials * confidence * (1 - confidence))
    assert abs(covers - trials * confidence) < spread


def test_a_worse_arm_is_found_and_its_size_too() -> None:
    found = [experiment(number, 0.3) for number in range(100)]
    verdicts = [one.verdict("lower") for one in found]
    # The difference is 0.3 with a standard error of 0.014: t = 21 where 3.2 is enough.
    assert verdicts.count("worse") >= 99
    assert found[0].verdict("higher") == "better"
    held = sum(one.low <= 0.3 <= one.high for one in found)
    assert held > 95 - 4 * math.sqrt(100 * 0.95 * 0.05)
    assert experiment(1, 0.0).verdict("lower") == "cannot be told apart"


@given(st.dictionaries(st.integers(0, 9), st.floats(-5, 5), min_size=2), st.randoms())
def test_pairs_are_of_one_seed_whatever_their_order(
    control: dict[int, float], drawn: random.Random
) -> None:
    arm = {seed: value + 0.25 * (seed + 1) for seed, value in control.items()}
    mixed = list(arm.items())
    drawn.shuffle(mixed)
    (found,) = compare({"b": dict(mixed), "a": control}, "a")
    assert found.values == pytest.approx([0.25 * (seed + 1) for seed in sorted(control)])
    assert found.low <= found.mean <= found.high


def test_what_a_run_is_judged_by() -> None:
    steps: list[dict[str, Any]] = [
        {"step": at, "loss": 10.0 - at, "parts": {"nll": 5.0 - at}} for at in range(5)
    ]
    assert outcome(steps, "loss", 0.4) == 6.5  # the mean of the last two
    assert outcome(steps, "nll", 0.01) == 1.0  # at least one step
    assert outcome(steps, "nll", 1.0) == 3.0
    steps[-1]["evaluation"] = {"scenes.colour.accuracy": 0.75}
    assert outcome(steps, "evaluation.scenes.colour.accuracy", 0.4) == 0.75
    with pytest.raises(EvaluationError, match=r"it has nll \(and 'loss'\)"):
        outcome(steps, "nil", 0.4)
    with pytest.raises(EvaluationError, match="finite"):
        outcome([{"loss": math.nan, "parts": {}}], "loss", 1.0)
    with pytest.raises(EvaluationError, match="same ones"):
        compare({"a": {0: 1.0, 1: 1.0}, "b": {0: 1.0, 2: 1.0}}, "a")


@given(st.integers(1, 40), st.integers(1, 12))
def test_blocks_hold_every_step_once(steps: int, points: int) -> None:
    curves = {
        seed: [{"loss": float(at + seed), "parts": {}} for at in range(steps)] for seed in (3, 5)
    }
    found = blocks(curves, "loss", points)
    ends = [0, *(int(end) for end, _ in found)]
    assert ends[-1] == steps
    assert len(found) <= points
    for (begin, end), (_, values) in zip(itertools.pairwise(ends), found, strict=True):
        middle = (begin + end - 1) / 2
        assert values == pytest.approx([middle + 3, middle + 5])
    difference = course_of_difference(curves, curves, "loss", 0.95, points)
    assert all(one[1:] == (0, 0, 0) for one in difference)


def test_plans_are_made_of_arms(tmp_path: Path) -> None:
    plan = Plan("fake", {"a": RECIPE, "b": RECIPE}, SEEDS)
    assert plan.control == "a"
    assert plan.recipe("b", 3).seed == 3
