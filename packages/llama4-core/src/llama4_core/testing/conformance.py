"""Every registered component against every check of its socket, as one test.

Run by ``pytest -p llama4_core.testing.plugin --pyargs llama4_core.testing.conformance``.
"""

from __future__ import annotations

from llama4_core.testing.check import Check, Subject, run
from llama4_core.testing.tests import report


def test_conformance(llama4_case: tuple[Subject, Check]) -> None:
    """The component has the property."""
    subject, check = llama4_case
    report(run(check, subject))
