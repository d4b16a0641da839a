"""Every component of this package passes the kit, and nothing is declared to fail."""

import pytest

from llama4_core.testing.check import run
from llama4_core.testing.registry import checks_of, subjects
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
        for check in checks_of(subject.socket)
    ],
)
def test_passes(subject, check):
    report(run(check, subject, examples=2 if subject.name in SLOW else None))


def test_all_checked_sockets_have_components():
    assert {subject.socket for subject in OURS} >= {
        "attention_backends",
        "attention_variants",
        "mixers",
        "caches",
        "models",
    }
