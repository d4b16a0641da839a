"""What a named check is, what it is run on, and what comes out."""

from __future__ import annotations

import dataclasses
import inspect
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import hypothesis
import torch
from hypothesis import HealthCheck, Phase, settings
from hypothesis.strategies import SearchStrategy

from llama4_core.testing import profiles

PASSED = "pass"
FAILED = "FAIL"
EXPECTED = "expected failure"
UNEXPECTED = "unexpected pass"
REFUSED = "refused"


class Refused(Exception):  # noqa: N818 - an answer, not an error
    """Nothing of what a check is about is supported by the component; carries its reason."""


@dataclass(frozen=True)
class Subject:
    """A component under check.

    Attributes:
        socket: plural name of its socket.
        name: as reports show it.
        build: makes the part; called with the arguments that the socket's contract states.
        refusal: takes the socket's problem and returns None, or the reason for refusing it.
        tolerances: dtype -> largest relative error; what is missing falls back to the kit's own.
        expected_failures: check -> reason.
        device: type of device to run on.
        distribution: who offers it; "" for an object.
    """

    socket: str
    name: str
    build: Callable[..., Any]
    refusal: Callable[[Any], str | None] = lambda problem: None
    tolerances: Mapping[str, float] = field(default_factory=dict)
    expected_failures: Mapping[str, str] = field(default_factory=dict)
    device: str = "cpu"
    distribution: str = ""

    def tolerance(self, dtype: str) -> float:
        """Largest error relative to the largest number of the expected tensor."""
        return self.tolerances.get(dtype, profiles.TOLERANCES[dtype])


@dataclass(frozen=True)
class Check:
    """One property that every component of a socket has.

    Attributes:
        name: lower-case words joined by "-".
        proves: the property, one sentence.
        why: what goes wrong for a user when it does not hold.
        cases: makes the strategy of cases that the subject supports.
        body: ``body(subject, case)``, raises when the property does not hold.
        properties: numbers of the project's list of properties.
        examples: at most so many cases, for checks that are slow; None for the profile's number.
    """

    name: str
    proves: str
    why: str
    cases: Callable[[Subject], SearchStrategy[Any]]
    body: Callable[[Subject, Any], None]
    properties: tuple[int, ...] = ()
    examples: int | None = None


def check(
    *,
    why: str,
    cases: Callable[[Subject], SearchStrategy[Any]],
    properties: tuple[int, ...] = (),
    examples: int | None = None,
) -> Callable[[Callable[[Subject, Any], None]], Check]:
    """Makes a :class:`Check` of a function; its docstring's first line says what it proves."""

    def named(body: Callable[[Subject, Any], None]) -> Check:
        return Check(
            name=body.__name__.replace("_", "-"),
            proves=(inspect.getdoc(body) or "").split("\n\n")[0].replace("\n", " "),
            why=why,
            cases=cases,
            body=body,
            properties=properties,
            examples=examples,
        )

    return named


@dataclass(frozen=True)
class Outcome:
    """What came of one check.

    Attributes:
        check, subject: what was run on what.
        status: "pass", "FAIL", "expected failure", "unexpected pass" or "refused".
        reason: the error, the declared reason, or the reason for refusing.
        example: smallest failing case, or "".
        seed, examples: what repeats this run exactly.
        seconds: wall time.
        error: the exception of a failure.
    """

    check: Check
    subject: Subject
    status: str
    reason: str = ""
    example: str = ""
    seed: int = 0
    examples: int = 0
    seconds: float = 0.0
    error: BaseException | None = None

    @property
    def failed(self) -> bool:
        """Whether this is to be mended: a failure, or a declared one that no longer happens."""
        return self.status in (FAILED, UNEXPECTED)

    @property
    def rerun(self) -> str:
        """The command that repeats this check with the same cases."""
        device = "" if self.subject.device == "cpu" else f" --device {self.subject.device}"
        return (
            f"llama4 check {self.subject.socket}:{self.subject.name} --only {self.check.name} "
            f"--seed {self.seed} --examples {self.examples}{device}"
        )

    def explain(self) -> str:
        """Several lines for people: what failed, on what, why it matters, how to repeat it."""
        lines = [f"{self.subject.socket}:{self.subject.name} {self.check.name}: {self.status}"]
        lines.append(f"  proves:  {self.check.proves}")
        if self.reason:
            lines.append(f"  reason:  {self.reason}")
        if self.example:
            lines.append(f"  example: {self.example}")
        if self.failed:
            lines.append(f"  matters: {self.check.why}")
            lines.append(f"  rerun:   {self.rerun}")
        return "\n".join(lines)


def run(
    check: Check,
    subject: Subject,
    *,
    examples: int | None = None,
    seed: int | None = None,
    shrink: bool = True,
) -> Outcome:
    """Runs one check on one subject.

    Args:
        check: what to prove.
        subject: of what.
        examples: number of cases; None for the profile's.
        seed: of the drawing of cases; None for 0 in a derandomized profile, else for any.
        shrink: search for the smallest failing case, which takes many more runs.
    """
    count = examples or profiles.examples()
    if check.examples is not None:
        count = min(count, check.examples)
    if seed is None:
        seed = 0 if profiles.derandomized() else random.randrange(2**32)
    outcome = Outcome(check, subject, PASSED, seed=seed, examples=count)
    started = time.perf_counter()
    try:
        failure = _falsify(check, subject, count, seed, shrink)
    except Refused as refused:
        outcome = dataclasses.replace(outcome, status=REFUSED, reason=str(refused))
        failure = None
    declared = subject.expected_failures.get(check.name)
    if failure is not None:
        error, case = failure
        outcome = dataclasses.replace(
            outcome,
            status=FAILED if declared is None else EXPECTED,
            reason=declared or f"{type(error).__name__}: {error}",
            example=case,
            error=error,
        )
    elif declared is not None and outcome.status == PASSED:
        outcome = dataclasses.replace(
            outcome,
            status=UNEXPECTED,
            reason=f"declared to fail ({declared}) but holds: remove it from expected_failures",
        )
    return dataclasses.replace(outcome, seconds=time.perf_counter() - started)


def _falsify(
    check: Check, subject: Subject, count: int, seed: int, shrink: bool
) -> tuple[Any, str] | None:
    """Searches for a case without the property; returns the error and the smallest case."""
    failing: list[str] = [""]

    def execute(case: Any) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            try:
                check.body(subject, case)
            except (hypothesis.errors.UnsatisfiedAssumption, Refused):
                raise
            except Exception:
                failing[0] = repr(case)
                raise

    # A slow check is not shrunk: each step would be as slow.
    shrink = shrink and check.examples is None
    phases = [Phase.generate, Phase.shrink] if shrink else [Phase.generate]
    configured = settings(
        max_examples=count,
        deadline=None,
        database=None,
        derandomize=False,
        print_blob=False,
        report_multiple_bugs=False,
        phases=phases,
        suppress_health_check=list(HealthCheck),
        verbosity=hypothesis.Verbosity.quiet,
    )
    try:
        cases = check.cases(subject)
        hypothesis.seed(seed)(configured(hypothesis.given(cases)(execute)))()
    except Refused:
        raise
    except Exception as error:  # noqa: BLE001 - foreign code: whatever it raises is the finding
        return error, failing[0]
    return None
