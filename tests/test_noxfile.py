"""The self-bootstrapping half of noxfile.py, loaded as a module; nothing is installed here."""

import ast
import functools
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

NOXFILE = Path(__file__).resolve().parent.parent / "noxfile.py"


def execute() -> ModuleType:
    spec = importlib.util.spec_from_file_location("repository_noxfile", NOXFILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@functools.cache
def load() -> ModuleType:
    """Once: nox registers each session by name as the file is read."""
    return execute()


@pytest.fixture
def noxfile(tmp_path, monkeypatch):
    """The module, pointed at an empty copy of the layout in a temporary folder."""
    module = load()
    for name in ("requirements-dev.txt", "constraints.txt", "pyproject.toml"):
        (tmp_path / name).write_text(f"# {name}\n")
    package = tmp_path / "packages" / "llama4-core"
    package.mkdir(parents=True)
    (package / "pyproject.toml").write_text("[project]\n")
    home = tmp_path / ".venv"
    for name, value in {
        "ROOT": tmp_path,
        "ENVIRONMENT": home,
        "STAMP": home / "llama4-stamp",
        "PYTHON": home / "bin" / "python",
        "REQUIREMENTS": tmp_path / "requirements-dev.txt",
        "CONSTRAINTS": tmp_path / "constraints.txt",
    }.items():
        monkeypatch.setattr(module, name, value)
    return module


def pretend_environment(module: ModuleType) -> None:
    """A current `.venv` whose interpreter is the running one."""
    module.PYTHON.parent.mkdir(parents=True)
    module.PYTHON.symlink_to(sys.executable)
    module.STAMP.write_text(f"{module.running_version()} {module.fingerprint()}\n")


@pytest.fixture
def commands(noxfile, monkeypatch):
    """Record what would be run; every command succeeds."""
    recorded = []

    def call(command, **_):
        recorded.append([str(word) for word in command])
        if "venv" in recorded[-1] and not noxfile.PYTHON.exists():
            pretend_environment(noxfile)
            noxfile.STAMP.unlink()
        return 0

    monkeypatch.setattr(noxfile.subprocess, "call", call)
    return recorded


def test_older_pythons_can_parse_the_file_and_get_one_line(monkeypatch):
    ast.parse(NOXFILE.read_text(), feature_version=(3, 7))
    monkeypatch.setattr(sys, "version_info", (3, 9, 18, "final", 0))
    with pytest.raises(SystemExit) as stopped:
        execute()
    assert "Python 3.11 or newer" in stopped.value.code
    assert "\n" not in stopped.value.code


def test_current_environment_is_left_alone(noxfile, commands):
    pretend_environment(noxfile)
    assert noxfile.why_stale(noxfile.running_version()) is None
    noxfile.ensure_environment(noxfile.running_version())
    assert commands == []


@pytest.mark.parametrize(
    "changed",
    [
        "requirements-dev.txt",
        "constraints.txt",
        "pyproject.toml",
        "packages/llama4-core/pyproject.toml",
    ],
)
def test_each_file_that_decides_the_environment_makes_it_stale(noxfile, changed):
    pretend_environment(noxfile)
    with (noxfile.ROOT / changed).open("a") as file:
        file.write("# more\n")
    assert "changed" in noxfile.why_stale(None)


def test_a_new_package_makes_it_stale(noxfile):
    pretend_environment(noxfile)
    package = noxfile.ROOT / "packages" / "llama4-new"
    package.mkdir()
    (package / "pyproject.toml").write_text("[project]\n")
    assert "changed" in noxfile.why_stale(None)


def test_moving_text_between_files_changes_the_fingerprint(noxfile):
    before = noxfile.fingerprint()
    text = noxfile.CONSTRAINTS.read_text()
    noxfile.CONSTRAINTS.write_text("")
    noxfile.REQUIREMENTS.write_text(noxfile.REQUIREMENTS.read_text() + text)
    assert noxfile.fingerprint() != before


def test_another_python_makes_it_stale_for_the_script_and_not_for_an_installed_nox(noxfile):
    pretend_environment(noxfile)
    noxfile.STAMP.write_text(f"3.99 {noxfile.fingerprint()}\n")
    assert "made by Python 3.99" in noxfile.why_stale(noxfile.running_version())
    assert noxfile.why_stale(None) is None


def test_an_interrupted_set_up_has_no_stamp_and_is_resumed_in_place(noxfile, commands):
    pretend_environment(noxfile)
    noxfile.STAMP.unlink()
    noxfile.ensure_environment(noxfile.running_version())
    assert not any("venv" in command for command in commands)  # kept, not made anew
    assert len(commands) == 2
    assert all(str(noxfile.CONSTRAINTS) in command for command in commands)
    assert any("packages/llama4-core" in word for word in commands[1])
    assert noxfile.why_stale(noxfile.running_version()) is None


def test_a_missing_environment_is_made_by_the_running_python(noxfile, commands, capsys):
    noxfile.ensure_environment(noxfile.running_version())
    assert commands[0][:3] == [sys.executable, "-m", "venv"]
    assert "[1/3]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("existing", "wanted", "anew"),
    [
        ("3.99", "running", True),
        ("3.99", None, False),
        ("running", "running", False),
        (None, "running", True),
        (None, None, True),
    ],
)
def test_only_another_or_a_broken_python_is_made_anew(
    noxfile, commands, monkeypatch, existing, wanted, anew
):
    pretend_environment(noxfile)
    noxfile.STAMP.write_text("3.99 old\n")
    running = noxfile.running_version()
    found = running if existing == "running" else existing
    monkeypatch.setattr(noxfile, "interpreter_version", lambda python: found)
    noxfile.ensure_environment(running if wanted == "running" else wanted)
    assert any("--clear" in command for command in commands) == anew


def test_the_stamp_is_gone_while_pip_runs_and_after_it_failed(noxfile, monkeypatch):
    pretend_environment(noxfile)
    noxfile.STAMP.write_text("3.99 old\n")
    stamped = []

    def call(command, **_):
        stamped.append(noxfile.STAMP.exists())
        return 1

    monkeypatch.setattr(noxfile.subprocess, "call", call)
    with pytest.raises(noxfile.SetupError, match="run the same command again"):
        noxfile.ensure_environment()
    assert stamped == [False]
    assert not noxfile.STAMP.exists()


def test_missing_ensurepip_is_one_line(noxfile, monkeypatch, capsys):
    monkeypatch.setattr(noxfile.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(noxfile.os, "chdir", lambda path: None)
    assert noxfile.run_as_script(["-s", "demo"]) == 1
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert "ensurepip" in last
    assert "python3-venv" in last


def test_a_dangling_interpreter_counts_as_missing(noxfile):
    noxfile.PYTHON.parent.mkdir(parents=True)
    noxfile.PYTHON.symlink_to(noxfile.ROOT / "gone")
    assert noxfile.why_stale(None) == "there is none"
    assert noxfile.interpreter_version(noxfile.PYTHON) is None


def test_the_script_hands_over_to_nox_in_the_environment(noxfile, monkeypatch):
    pretend_environment(noxfile)
    monkeypatch.setattr(noxfile.os, "chdir", lambda path: None)

    class HandedOverError(Exception):
        """Raised in place of replacing this process."""

    def execv(path, command):
        raise HandedOverError(command)

    monkeypatch.setattr(noxfile.os, "execv", execv)
    with pytest.raises(HandedOverError) as handed:
        noxfile.run_as_script(["-s", "demo"])
    assert handed.value.args[0][:3] == [str(noxfile.PYTHON), "-m", "nox"]
    assert handed.value.args[0][-2:] == ["-s", "demo"]


def test_the_first_half_uses_the_standard_library_only():
    tree = ast.parse(NOXFILE.read_text())
    guard = next(
        node
        for node in tree.body
        if isinstance(node, ast.If) and "__name__" in ast.unparse(node.test)
    )
    early = [
        name
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom) and node.lineno < guard.lineno
        for name in (
            [node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
        )
    ]
    assert all(name.split(".")[0] in sys.stdlib_module_names for name in early)


def test_every_session_fails_when_a_step_fails(noxfile):
    class Session:
        def error(self, message):
            raise RuntimeError(message)

    with pytest.raises(RuntimeError, match=r"mypy \(exit 1\)"):
        noxfile.finish(Session(), {"ruff": 0, "mypy": 1})
    # pytest's status for "no tests found" is a failure too.
    with pytest.raises(RuntimeError, match="exit 5"):
        noxfile.finish(Session(), {"tests": 5})
    noxfile.finish(Session(), {"ruff": 0})


def test_every_package_has_a_budget():
    module = load()
    assert set(module.BUDGETS) == {f.name for f in module.package_folders()} | {"tests", "examples"}


def test_every_benchmark_is_found():
    found = load().benchmarks()
    assert {"attention", "model", "moe"} <= found.keys()
    for path in found.values():
        assert '__name__ == "__main__"' in path.read_text(), f"{path.name} does nothing when run"


def test_the_ci_script_runs_the_four_sessions():
    script = NOXFILE.parent / ".ci" / "run"
    assert "noxfile.py -s lint tests docs alone" in script.read_text()
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
