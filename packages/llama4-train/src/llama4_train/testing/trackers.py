"""Checks of the socket trackers, for ``llama4 check tracker:NAME``.

Trackers are built without settings, in a folder of their own. What is missing here refuses.
"""

from __future__ import annotations

import math
import os
import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import torch
from hypothesis import strategies as st

from llama4_core.testing.check import Check, Refused, Subject, check
from llama4_core.testing.compare import holds
from llama4_train.recipe import DataPart, ModelPart, Recipe, SourcePart
from llama4_train.trackers.jsonl import read_log
from llama4_train.trackers.values import Value

# Some trackers look at the machine for seconds when they begin.
_EXAMPLES = 4


@dataclass(frozen=True)
class Case:
    """What a run logs.

    Attributes:
        steps: of the run.
        broken: step before which the run is killed.
        again: step at which it goes on.
        seed: of the values.
    """

    steps: int
    broken: int
    again: int
    seed: int

    def values(self, step: int) -> dict[str, Value]:
        """Numbers of one step; the second step of all has some that are not finite."""
        draw = random.Random(self.seed * 1000 + step)
        bad = (math.nan, math.inf, -math.inf) if step == 1 else (0.5, 1e-30, -1e30)
        return {
            "loss": draw.random() * 10,
            "gradient_norm": bad[draw.randrange(3)],
            "learning_rate": 1e-3,
            "tokens": 128,
            "seconds": 0.25,
            "flops": 1e6,
            "loss.a b": -draw.random(),
            "router.violation.1": bad[0],
            "router.load.1": [0.25, 0.5, 0.25],
        }


@st.composite
def _cases(draw: Callable[..., Any]) -> Case:
    steps = draw(st.integers(3, 24))
    broken = draw(st.integers(2, steps))
    again = draw(st.integers(0, broken))
    return Case(steps, broken, again, draw(st.integers(0, 999)))


def _recipe(steps: int) -> Recipe:
    source = SourcePart("jsonl", settings={"path": "a.jsonl"})
    return Recipe("kit", steps, ModelPart("nano"), DataPart(8, 8, (source,)))


@contextmanager
def _folder(subject: Subject) -> Iterator[Path]:
    reason = subject.refusal(None)
    if reason is not None:
        raise Refused(reason)
    with tempfile.TemporaryDirectory() as path:
        yield Path(path) / "run"


def _run(tracker: Any, case: Case, first: int, end: int) -> None:
    for step in range(first, end):
        tracker.log(step, case.values(step))


@check(
    why="a number that is not finite is when the log is needed most: it must not end the run",
    cases=lambda subject: _cases(),
    examples=_EXAMPLES,
)
def takes_any_numbers(subject: Subject, case: Case) -> None:
    """NaN, infinities, lists, tiny and huge numbers and odd names; values stay as they are."""
    with _folder(subject) as folder:
        tracker = subject.build(folder, _recipe(case.steps))
        for step in range(case.steps):
            values = case.values(step)
            tracker.log(step, values)
            same = repr(values) == repr(case.values(step))
            holds(same, f"the values of step {step} are changed to {values}")
        tracker.finish()


@check(
    properties=(57,),
    why="a run that is watched must give the same weights as one that is not",
    cases=lambda subject: _cases(),
    examples=_EXAMPLES,
)
def changes_nothing(subject: Subject, case: Case) -> None:
    """Random numbers, gradients, threads, the working folder and the environment stay as set."""
    with _folder(subject) as folder, _elsewhere(folder.parent):
        # Imports of clients may draw and set what they like once, before any run.
        subject.build(folder, _recipe(case.steps)).finish()
        before = _state()
        tracker = subject.build(folder, _recipe(case.steps))
        _run(tracker, case, 0, case.steps)
        tracker.finish()
        for name, value in _state().items():
            holds(value == before[name], f"{name} changed")
        around = sorted(path.name for path in folder.parent.iterdir())
        holds(set(around) <= {"run", "here"}, f"files outside of the folder of the run: {around}")
        holds(not list((folder.parent / "here").iterdir()), "files in the working folder")


@contextmanager
def _elsewhere(folder: Path) -> Iterator[None]:
    """In an empty working folder."""
    before = Path.cwd()
    here = folder / "here"
    here.mkdir()
    os.chdir(here)
    try:
        yield
    finally:
        os.chdir(before)


def _state() -> dict[str, Any]:
    return {
        "the state of torch's random numbers": torch.get_rng_state().tolist(),
        "the state of Python's random numbers": random.getstate(),
        "the state of numpy's random numbers": repr(numpy.random.get_state()),  # noqa: NPY002
        "whether gradients are computed": torch.is_grad_enabled(),
        "the number of threads": torch.get_num_threads(),
        "the default dtype": torch.get_default_dtype(),
        "the working folder": Path.cwd(),
        "the environment": dict(os.environ),
    }


@check(
    why="a killed run would be lost, for its log cannot be taken up again",
    cases=lambda subject: _cases(),
    examples=_EXAMPLES,
)
def goes_on_after_a_kill(subject: Subject, case: Case) -> None:
    """A second tracker takes the folder of one that never finished, and steps that come again."""
    with _folder(subject) as folder:
        killed = subject.build(folder, _recipe(case.steps))
        _run(killed, case, 0, case.broken)
        resumed = subject.build(folder, _recipe(case.steps))
        _run(resumed, case, case.again, case.steps)
        resumed.finish()
        # Only so that nothing is left open: a killed process does not come to this.
        killed.finish()


@check(
    why="the end of a run, or an error before its first step, must not raise another one",
    cases=lambda subject: st.integers(0, 2),
    examples=_EXAMPLES,
)
def finishes(subject: Subject, steps: int) -> None:
    """A run may end before its first step, and be finished twice."""
    case = Case(3, 3, 3, steps)
    with _folder(subject) as folder:
        tracker = subject.build(folder, _recipe(3))
        _run(tracker, case, 0, steps)
        tracker.finish()
        tracker.finish()


@check(
    why="plots and comparisons read the log: a step too many or a digit too few is a wrong figure",
    cases=lambda subject: _cases(),
)
def published_lines(subject: Subject, case: Case) -> None:
    """``jsonl`` of llama4-train: every step once, in order, every number bit for bit."""
    if (subject.distribution, subject.name) != ("llama4-train", "jsonl"):
        raise Refused("only jsonl of llama4-train follows this law")
    with _folder(subject) as folder:
        killed = subject.build(folder, _recipe(case.steps))
        _run(killed, case, 0, case.broken)
        got = read_log(folder / "log.jsonl")
        _same_lines(got, case, case.broken, "while the run goes on")
        with (folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write('{"step": 99, "lo')
        resumed = subject.build(folder, _recipe(case.steps))
        _run(resumed, case, case.again, case.steps)
        # A run that is resumed at its end logs nothing more.
        expected = case.steps if case.again < case.steps else case.broken
        _same_lines(read_log(folder / "log.jsonl"), case, expected, "of the resumed run")
        resumed.finish()
        killed.finish()


def _same_lines(got: list[dict[str, Any]], case: Case, steps: int, what: str) -> None:
    expected = [{"step": step, **case.values(step)} for step in range(steps)]
    numbers = [line["step"] for line in got]
    holds(numbers == list(range(steps)), f"steps {what} are {numbers}, expected 0 to {steps - 1}")
    # By their text: NaN is not equal to itself.
    for line, values in zip(got, expected, strict=True):
        holds(repr(line) == repr(values), f"{what}: got {line}, expected {values}")


CHECKS: tuple[Check, ...] = (
    takes_any_numbers,
    changes_nothing,
    goes_on_after_a_kill,
    finishes,
    published_lines,
)
