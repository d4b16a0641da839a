"""Every component of this package passes the kit, and nothing is declared to fail."""

import pytest

from llama4_core.testing.check import run
from llama4_core.testing.registry import checks_for, subjects
from llama4_core.testing.tests import report

OURS = [subject for subject in subjects() if subject.distribution == "llama4-moe"]
CASES = [(subject, check) for subject in OURS for check in checks_for(subject)]


@pytest.mark.parametrize(
    ("subject", "check"), CASES, ids=lambda value: getattr(value, "name", None)
)
def test_passes(subject, check):
    report(run(check, subject))


def test_all_sockets_have_components():
    assert {subject.socket for subject, _ in CASES} == {
        "routers",
        "expert_backends",
        "feed_forwards",
    }
