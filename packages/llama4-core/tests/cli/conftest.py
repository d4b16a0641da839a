from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from llama4_core.cli import main
from llama4_core.plugins import Catalogue, Component, hookimpl


@pytest.fixture
def llama4(capsys) -> Callable[..., tuple[int, str, str]]:
    """Runs a command line in this process: exit code, stdout, stderr."""

    def run(*words: str) -> tuple[int, str, str]:
        code = main(words)
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def commands(monkeypatch):
    """Replaces the catalogue by core's and these commands: name -> target."""

    def replace(**targets: str) -> None:
        class Plugin:
            @hookimpl
            def llama4_commands(self):
                for name, target in targets.items():
                    yield Component(name.replace("__", "."), target, "for a test")

        known = Catalogue.from_plugins(
            [
                ("core", "llama4-core", "0.1.0", "llama4_core.plugins.builtin"),
                ("x", "foreign", "1", Plugin()),
            ]
        )
        # By sys.modules: the attribute `llama4_core.cli.main` is the function.
        monkeypatch.setattr(sys.modules["llama4_core.cli.main"], "catalogue", lambda: known)

    return replace


@pytest.fixture(scope="session")
def python() -> Callable[[str], subprocess.CompletedProcess[str]]:
    """Runs code in a fresh interpreter without the variables that steer the catalogue."""

    def run(code: str) -> subprocess.CompletedProcess[str]:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("LLAMA4_")}
        return subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )

    return run
