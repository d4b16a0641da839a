"""Planted bugs: the kit's own test.

A mutant is a component with one bug that changes behaviour, and the check that has to catch it.
:func:`survivors` runs them; a kit whose mutants survive proves nothing. The mutants of each socket
are in ``mutants_<socket>.py`` of its owner.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from llama4_core.testing.check import FAILED, Outcome, Subject, run
from llama4_core.testing.registry import selected


@dataclass(frozen=True)
class Mutant:
    """A bug.

    Attributes:
        bug: what is wrong, a few words.
        check: name of the check that has to catch it.
        subject: the broken component.
        planted: a context in which the bug is there, for bugs outside of the component.
    """

    bug: str
    check: str
    subject: Subject
    planted: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext

    def hunt(self, *, examples: int | None = None, seed: int = 0) -> Outcome:
        """Runs the check on the bug."""
        check = selected(self.subject, [self.check])[0]
        with self.planted():
            return run(check, self.subject, examples=examples, seed=seed, shrink=False)


def survivors(mutants: Sequence[Mutant], *, examples: int | None = None) -> list[Mutant]:
    """The mutants that their check does not catch."""
    return [m for m in mutants if m.hunt(examples=examples).status != FAILED]


def patched(owner: Any, name: str, value: Any) -> Callable[[], AbstractContextManager[None]]:
    """A context in which ``owner.name`` is ``value``."""

    @contextlib.contextmanager
    def planted() -> Iterator[None]:
        before = owner.__dict__[name]
        setattr(owner, name, value)
        try:
            yield
        finally:
            setattr(owner, name, before)

    return planted
