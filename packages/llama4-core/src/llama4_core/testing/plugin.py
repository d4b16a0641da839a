"""The pytest plugin of the conformance kit.

``pytest -p llama4_core.testing.plugin --pyargs llama4_core.testing.conformance`` parametrises
:func:`llama4_core.testing.conformance.test_conformance` over every registered component;
``--component router:mine`` picks some of them (repeatable; a socket alone takes all of its own).
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from llama4_core.errors import ComponentError
from llama4_core.plugins.catalogue import catalogue, socket_named
from llama4_core.testing import profiles
from llama4_core.testing.check import Subject
from llama4_core.testing.registry import checks_for, subject_of, subjects
from llama4_core.testing.tests import identity


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds ``--component`` and ``--llama4-device``."""
    group = parser.getgroup("llama4", "Llama 4 conformance kit")
    group.addoption(
        "--component",
        action="append",
        default=[],
        metavar="SOCKET[:NAME]",
        help="check only this component, for example router:mine (repeatable)",
    )
    group.addoption("--llama4-device", default="cpu", help="device to run the checks on")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One case per component and check, ids ``socket:name:check``."""
    if "llama4_case" not in metafunc.fixturenames:
        return
    config = metafunc.config
    try:
        chosen = _chosen(config.getoption("--component"), config.getoption("--llama4-device"))
        cases = [(subject, check) for subject in chosen for check in checks_for(subject)]
    except ComponentError as error:
        raise pytest.UsageError(str(error)) from error
    ids = [f"{identity(subject)}:{check.name}" for subject, check in cases]
    metafunc.parametrize("llama4_case", cases, ids=ids)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, Any, None]:
    """Notes the component of a case on its report, which also crosses processes."""
    outcome = yield
    case = getattr(item, "callspec", None)
    if case is not None and "llama4_case" in case.params and call.when == "call":
        outcome.get_result().user_properties.append(
            ("llama4_component", identity(case.params["llama4_case"][0]))
        )


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Seconds per socket beside their budget; nothing fails by the clock."""
    spent: dict[str, float] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, value in getattr(report, "user_properties", ()):
                if name == "llama4_component":
                    spent[value] = spent.get(value, 0.0) + report.duration
    if not spent:
        return
    terminalreporter.section("seconds per socket")
    for socket in sorted({component.partition(":")[0] for component in spent}):
        own = {name: took for name, took in spent.items() if name.startswith(f"{socket}:")}
        total, allowed = sum(own.values()), len(own) * profiles.budget(socket)
        over = [
            name.partition(":")[2] for name, took in own.items() if took > profiles.budget(socket)
        ]
        note = f"; over: {', '.join(over)}" if over else ""
        terminalreporter.line(
            f"{socket:20} {total:7.1f} of {allowed:6.1f} s, {len(own)} component(s){note}"
        )


def _chosen(wanted: list[str], device: str) -> list[Subject]:
    if not wanted:
        return subjects(device=device)
    known = catalogue()
    found = []
    for address in wanted:
        socket, _, name = address.partition(":")
        place = socket_named(socket)
        entries = [known.find(place.name, name)] if name else known.components(place.name)
        found += [subject_of(entry, device) for entry in entries]
    return found
