"""The conformance kit: every component, ours or yours, passes the same named checks.

A plugin's whole test file::

    from llama4_core.testing import conformance_tests

    test_mine = conformance_tests("routers", "mine")

On the command line ``llama4 check router:mine``; over everything that is installed
``pytest -p llama4_core.testing.plugin --pyargs llama4_core.testing.conformance``.

The checks of a socket live with its owner, in the module ``<owner>.testing.<socket>`` as a tuple
``CHECKS``, each made by the decorator :func:`llama4_core.testing.check.check`. The kit needs the
extra ``llama4-core[testing]`` (hypothesis; pytest for the tests).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llama4_core.testing.check import Check, Outcome, Refused, Subject, run
    from llama4_core.testing.registry import check_component, checks_of, subject_of, subjects
    from llama4_core.testing.tests import conformance_tests

__all__ = [
    "Check",
    "Outcome",
    "Refused",
    "Subject",
    "check_component",
    "checks_of",
    "conformance_tests",
    "run",
    "subject_of",
    "subjects",
]

_HOMES = {
    **dict.fromkeys(("Check", "Outcome", "Refused", "Subject", "run"), "check"),
    **dict.fromkeys(("check_component", "checks_of", "subject_of", "subjects"), "registry"),
    "conformance_tests": "tests",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
