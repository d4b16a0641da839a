"""The checks as pytest tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from llama4_core.testing.check import EXPECTED, REFUSED, Check, Outcome, Subject, run
from llama4_core.testing.registry import checks_of, make_subject


def conformance_tests(
    socket: str,
    name: str | None = None,
    *,
    target: Callable[..., Any] | None = None,
    supports: Callable[[Any], str | None] | None = None,
    tolerances: Mapping[str, float] | None = None,
    expected_failures: Mapping[str, str] | None = None,
    device: str = "cpu",
) -> Callable[[Check], None]:
    """A test function with one case per check; bind it to a name that starts with ``test``.

    Arguments as for :func:`~llama4_core.testing.registry.check_component`. Declared failures are
    strict: one that no longer happens fails. Checks of what the component refuses are skipped with
    its reason.
    """

    @pytest.mark.parametrize("check", checks_of(socket), ids=lambda check: check.name)
    def conformance(check: Check) -> None:
        subject = make_subject(
            socket,
            name,
            target=target,
            supports=supports,
            tolerances=tolerances,
            expected_failures=expected_failures,
            device=device,
        )
        report(run(check, subject))

    return conformance


def report(outcome: Outcome) -> None:
    """Turns an outcome into pytest's: failure, xfail or skip.

    Raises:
        Failed: the check failed, or a declared failure no longer happens.
    """
    if outcome.failed:
        raise pytest.fail.Exception(outcome.explain(), pytrace=False) from outcome.error
    if outcome.status == EXPECTED:
        pytest.xfail(outcome.reason)
    if outcome.status == REFUSED:
        pytest.skip(outcome.reason)


def identity(subject: Subject) -> str:
    """``socket:name`` for test ids."""
    return f"{subject.socket}:{subject.name}"
