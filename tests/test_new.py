"""``llama4 new``: a package for every socket that installs, is found, and passes the kit."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from llama4_core import catalogue
from llama4_core.cli import main
from llama4_core.plugins import SOCKETS
from llama4_core.scaffold.package import LONGEST, templated, write_package

QUICK = ("routers", "mixers", "caches", "commands")
"""Sockets of both owners, with a kit and without one; the others are in the slow session."""


def name_for(socket: str) -> str:
    return f"new-{list(SOCKETS).index(socket)}"


def distribution_for(socket: str) -> str:
    return f"llama4-{name_for(socket)}"


def test_every_socket_has_a_template() -> None:
    assert templated() == tuple(SOCKETS)


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one package per socket, written on the command line."""
    folder = tmp_path_factory.mktemp("generated")
    for socket in SOCKETS.values():
        assert main(["new", socket.one, name_for(socket.name), "--into", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def installed(generated: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process that sees the packages installed."""
    target = tmp_path_factory.mktemp("installed")
    words = ["-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-index", "--no-deps"]
    words += ["--no-build-isolation", "--target", str(target), *map(str, generated.iterdir())]
    subprocess.run([sys.executable, *words], check=True)
    steering = ("LLAMA4_", "PYTEST_", "HYPOTHESIS_")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(steering)}
    return kept | {
        "PYTHONPATH": str(target),
        "OMP_NUM_THREADS": "1",
        "LLAMA4_KIT_EXAMPLES": "2",
        "LLAMA4_STRICT_PLUGINS": "1",
    }


def run(environment: dict[str, str], *words: str) -> str:
    """Runs a module of the installation; returns its output.

    Outside of the repository, whose own pytest settings are not those of a plugin's author.
    """
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=environment["PYTHONPATH"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    return done.stdout


def own_tests(environment: dict[str, str], generated: Path, sockets: tuple[str, ...]) -> None:
    folders = [str(generated / distribution_for(socket) / "tests") for socket in sockets]
    options = ["-q", "--import-mode=importlib", "-p", "no:cacheprovider"]
    out = run(environment, "pytest", *options, f"--rootdir={generated}", *folders)
    assert "passed" in out
    assert "xfailed" not in out


def test_a_package_for_every_socket_is_found_without_torch(installed: dict[str, str]) -> None:
    out = run(installed, "llama4_core.cli", "plugins", "--json")
    for socket in SOCKETS:
        assert f'"{distribution_for(socket)}"' in out
    code = "import llama4_core as l, sys; l.catalogue(); raise SystemExit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], env=installed, check=True)


def test_packages_pass_their_own_tests(installed: dict[str, str], generated: Path) -> None:
    own_tests(installed, generated, QUICK)


@pytest.mark.slow
def test_every_package_passes_its_own_tests(installed: dict[str, str], generated: Path) -> None:
    own_tests(installed, generated, tuple(SOCKETS))


def test_check_runs_on_a_generated_part(installed: dict[str, str]) -> None:
    name = f"router:{name_for('routers')}"
    assert "FAIL" not in run(installed, "llama4_core.cli", "check", name, "--examples", "2")


def test_a_generated_command_runs(installed: dict[str, str]) -> None:
    out = run(installed, "llama4_core.cli", name_for("commands"), "--socket", "routers")
    assert out.startswith("routers: ")


@pytest.mark.parametrize(
    "name", ["x", "n" * LONGEST, "many-short-words-in-a-name-of-32x"[:LONGEST]]
)
def test_packages_are_formatted_and_clean(name: str, tmp_path: Path) -> None:
    for socket in SOCKETS:
        write_package(socket, name, tmp_path / socket, catalogue())
    for words in (["check", "--no-cache", "."], ["format", "--check", "--no-cache", "."]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *words],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_parts_are_typed(generated: Path) -> None:
    sources = sorted(generated.glob("*/src/*/*.py"))
    options = ["--follow-imports=silent", "--disallow-untyped-defs", "--no-incremental"]
    ignored = ["--ignore-missing-imports", "--explicit-package-bases", "--namespace-packages"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, *ignored, *map(str, sources)],
        cwd=Path(__file__).resolve().parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("socket", list(SOCKETS))
def test_metadata(generated: Path, socket: str) -> None:
    folder = generated / distribution_for(socket)
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["llama4"].keys() == {name_for(socket)}
    assert project["optional-dependencies"]["test"] == [f"{SOCKETS[socket].owner}[testing]"]
    assert "${{ matrix.python }}" in (folder / ".github/workflows/test.yml").read_text()
    assert (folder / ".gitignore").is_file()
    assert "$ pip install -e" in (folder / "README.md").read_text()
