"""Every component of this package passes the kit, and nothing is declared to fail."""

import dataclasses
import functools

import pytest

from llama4_core.testing.check import run
from llama4_core.testing.registry import checks_for, checks_of, make_subject, subjects
from llama4_core.testing.tests import report

# flex compiles C++ for every shape, about 20 s each: two cases per check, with `-m slow` only.
SLOW = {"flex"}
OURS = [subject for subject in subjects() if subject.distribution == "llama4-core"]


@pytest.mark.parametrize(
    ("subject", "check"),
    [
        pytest.param(
            subject,
            check,
            id=f"{subject.socket}:{subject.name}:{check.name}",
            marks=[pytest.mark.slow] if subject.name in SLOW else [],
        )
        for subject in OURS
        for check in checks_for(subject)
    ],
)
def test_passes(subject, check):
    report(run(check, subject, examples=2 if subject.name in SLOW else None))


@pytest.mark.parametrize("check", checks_of("attention_backends"), ids=lambda check: check.name)
def test_flex_uncompiled(check):
    """The same plans, masks and score functions without a compiler: as many cases as the others."""
    flex = make_subject("attention_backends", "flex")
    uncompiled = functools.partial(flex.build, compiled=False)
    report(run(check, dataclasses.replace(flex, name="flex, uncompiled", build=uncompiled)))


def test_all_checked_sockets_have_components():
    assert {subject.socket for subject in OURS} >= {
        "attention_backends",
        "attention_variants",
        "mixers",
        "caches",
        "models",
        "feed_forwards",
        "checkpoint_formats",
    }
