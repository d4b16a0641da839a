"""Every command of the repository: `python noxfile.py -s demo`, `-s tests`, `--list`.

Run as a script it needs Python >= 3.11 and nothing else: it makes `.venv`, installs the development
tools and the packages into it, and starts nox there. With nox installed, `nox -s tests` does the
same. The first half of this file uses the standard library only and must also *parse* on older
Pythons, so that they get one clear line and not a traceback.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - this is what an older Python gets to read
    sys.exit("This project needs Python 3.11 or newer, and this is %s." % sys.version.split()[0])  # noqa: UP031

import hashlib
import importlib.util
import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent
ENVIRONMENT = ROOT / ".venv"
STAMP = ENVIRONMENT / "llama4-stamp"
PYTHON = ENVIRONMENT / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
REQUIREMENTS = ROOT / "requirements-dev.txt"
CONSTRAINTS = ROOT / "constraints.txt"


class SetupError(Exception):
    """The environment cannot be made; the message is one line for the user."""


# --- The environment ------------------------------------------------------------------------------


def package_folders() -> list[Path]:
    """The folders of the distributions, in alphabetical order."""
    return sorted(path.parent for path in (ROOT / "packages").glob("*/pyproject.toml"))


def example_folders() -> list[Path]:
    """The folders of the example plugins: installed beside the packages, as a user would."""
    return sorted(path.parent for path in (ROOT / "examples" / "plugins").glob("*/pyproject.toml"))


def running_version() -> str:
    """The running Python as `major.minor`."""
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


def fingerprint() -> str:
    """Sha256 over the names and contents of every file that decides what `.venv` holds."""
    digest = hashlib.sha256()
    folders = [ROOT, *package_folders(), *example_folders()]
    pyprojects = [folder / "pyproject.toml" for folder in folders]
    for path in [REQUIREMENTS, CONSTRAINTS, *pyprojects]:
        content = path.read_bytes()
        digest.update(f"{path.relative_to(ROOT).as_posix()} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def why_stale(version: str | None) -> str | None:
    """Why `.venv` must be made or updated, or None when it is current.

    Args:
        version: the Python that it must have as `major.minor`; None accepts any.
    """
    if not PYTHON.exists():
        return "there is none"
    if not STAMP.exists():
        return "it was not finished"
    stamped_version, _, stamped_fingerprint = STAMP.read_text().strip().partition(" ")
    if version is not None and stamped_version != version:
        return f"it was made by Python {stamped_version}, and this is {version}"
    if stamped_fingerprint != fingerprint():
        return "the requirements, constraints or a pyproject.toml changed"
    return None


def interpreter_version(python: Path) -> str | None:
    """`major.minor` of an interpreter, or None when it does not start."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        answer = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None


def say(text: str) -> None:
    """Print at once: a first set-up takes minutes and must show where it is."""
    print(text, flush=True)


def pip(*arguments: object) -> None:
    """Run `.venv`'s pip; its own output is the progress display."""
    command = [PYTHON, "-m", "pip", "--disable-pip-version-check", "--no-input", "install"]
    command += ["--constraint", CONSTRAINTS, *arguments]
    if subprocess.call([str(part) for part in command], cwd=ROOT) != 0:
        raise SetupError(
            "pip could not finish (its reason is above); mend that and run the same command again."
        )


def ensure_environment(version: str | None = None) -> None:
    """Make or update `.venv` unless its stamp says that it is current.

    The stamp is removed first and written last, so a set-up that was interrupted is resumed. A
    `.venv` of the right Python is updated in place: pip then only fetches what changed.

    Args:
        version: the Python that it must have as `major.minor`; None accepts any.

    Raises:
        SetupError: this Python cannot make environments, or pip failed.
    """
    reason = why_stale(version)
    if reason is None:
        return
    started = time.monotonic()
    say(f"Setting up {ENVIRONMENT}: {reason}.")
    STAMP.unlink(missing_ok=True)
    existing = interpreter_version(PYTHON)
    if existing is None or (version is not None and existing != version):
        if importlib.util.find_spec("ensurepip") is None:
            raise SetupError(
                "This Python has no ensurepip, which new environments need: install your system's "
                f"python3-venv package (Debian, Ubuntu: apt install python{running_version()}-venv)"
                " and run again."
            )
        say(f"[1/3] A fresh environment with Python {running_version()}")
        if subprocess.call([sys.executable, "-m", "venv", "--clear", str(ENVIRONMENT)]) != 0:
            raise SetupError(f"{sys.executable} -m venv failed; its reason is above.")
    else:
        say(f"[1/3] Keeping the environment with Python {existing}")
    say("[2/3] Third-party packages (the first time: torch and about 100 more, some minutes)")
    pip("--requirement", REQUIREMENTS)
    say("[3/3] This repository's packages, editable")
    # hatchling is in the requirements: without isolation nothing is fetched a second time.
    folders = [*package_folders(), *example_folders()]
    pip("--no-build-isolation", *(f"--editable={folder}" for folder in folders))
    made = interpreter_version(PYTHON)
    STAMP.write_text(f"{made} {fingerprint()}\n")
    say(f"Ready after {time.monotonic() - started:.0f} s.")


def run_as_script(arguments: Sequence[str]) -> int:
    """Set up `.venv` where needed and hand over to nox there."""
    os.chdir(ROOT)
    try:
        ensure_environment(running_version())
    except SetupError as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        say("Interrupted; the same command resumes.")
        return 130
    command = [str(PYTHON), "-m", "nox", "--noxfile", str(ROOT / "noxfile.py"), *arguments]
    if os.name != "nt":  # there execv would return to the shell before the child ends
        os.execv(command[0], command)
    return subprocess.call(command)


if __name__ == "__main__":
    sys.exit(run_as_script(sys.argv[1:]))


# --- Sessions -------------------------------------------------------------------------------------

import nox  # noqa: E402 - not there yet when the file runs as a script

nox.needs_version = ">=2024.4.15"
nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "tests", "docs", "alone"]

DIST = ROOT / "dist"
ALONE = ROOT / "build" / "alone"

# Minutes of `tests` on two cores; printed beside what was used, never enforced by the clock.
BUDGETS = {
    "llama4-core": 4.0,
    "llama4-moe": 2.0,
    "llama4-vision": 1.5,
    "llama4-train": 3.0,
    "llama4-tiny": 0.5,
    "tests": 1.5,
    "examples": 1.0,
}


def call(session: nox.Session, *command: object, **environment: str) -> int:
    """Run a command from the root with `.venv` made current; return its exit status."""
    words = [str(word) for word in command]
    session.log(" ".join(words).replace(f"{ROOT}{os.sep}", ""))
    return subprocess.call(words, cwd=ROOT, env={**os.environ, **environment})


def python(session: nox.Session, *arguments: object, **environment: str) -> int:
    """Run `.venv`'s Python; return its exit status."""
    try:
        ensure_environment()
    except SetupError as error:
        session.error(str(error))
    return call(session, PYTHON, *arguments, **environment)


def finish(session: nox.Session, statuses: Mapping[str, int]) -> None:
    """Fail the session with the names of all steps that failed."""
    failed = [f"{name} (exit {status})" for name, status in statuses.items() if status != 0]
    if failed:
        session.error("failed: " + ", ".join(failed))


def pytest(session: nox.Session, *arguments: object, profile: str) -> int:
    """Run pytest under a hypothesis profile of the root `conftest.py`.

    An exit status of 5, no tests found, is a failure like any other.
    """
    # Test tensors are tiny: one thread is faster than two that wait for each other.
    threads = os.environ.get("OMP_NUM_THREADS", "1")
    options = {"HYPOTHESIS_PROFILE": profile, "OMP_NUM_THREADS": threads}
    return python(session, "-m", "pytest", *arguments, **options)


@nox.session
def demo(session: nox.Session) -> None:
    """The tour: load, explain, generate, swap parts, account for the big models."""
    finish(session, {"demo": python(session, ROOT / "examples" / "demo.py", *session.posargs)})


@nox.session
def tests(session: nox.Session) -> None:
    """Every package's tests and the cross-package ones; seconds against budgets at the end."""
    folders = {folder.name: folder / "tests" for folder in package_folders()}
    folders["tests"] = ROOT / "tests"
    folders["examples"] = ROOT / "examples" / "plugins"
    # The budgets are of two cores. Whoever passes options may want a debugger, which needs one.
    workers = [] if session.posargs else ["-n", "2", "--dist", "loadfile"]
    statuses, seconds = {}, {}
    for name, folder in folders.items():
        started = time.monotonic()
        statuses[name] = pytest(session, "-q", folder, *workers, *session.posargs, profile="ci")
        seconds[name] = time.monotonic() - started
    for name, used in seconds.items():
        budget = 60 * BUDGETS[name]
        verdict = "within" if used <= budget else "OVER"
        say(f"{name:14} {used:6.1f} s  {verdict} its budget of {budget:.0f} s")
    finish(session, statuses)


@nox.session
def slow(session: nox.Session) -> None:
    """All tests, the slow ones too, with 100 random examples for each property."""
    arguments = session.posargs or ["-q"]
    finish(session, {"slow": pytest(session, "-m", "slow or not slow", *arguments, profile="slow")})


@nox.session
def lint(session: nox.Session) -> None:
    """Style, types, the arrows between packages, and declared dependencies."""
    statuses = {
        "ruff check": python(session, "-m", "ruff", "check", "."),
        "ruff format": python(session, "-m", "ruff", "format", "--check", "."),
        "mypy": python(session, "-m", "mypy"),
        "import-linter": call(session, PYTHON.parent / "lint-imports"),
    }
    for folder in package_folders():
        config = folder / "pyproject.toml"
        statuses[f"deptry {folder.name}"] = python(
            session, "-m", "deptry", "--config", config, folder / "src"
        )
    finish(session, statuses)


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation as HTML; every warning is an error."""
    output = ROOT / "docs" / "_build" / "html"
    arguments = ["-W", "--keep-going", "-q", "-b", "html", ROOT / "docs", output]
    finish(session, {"sphinx": python(session, "-m", "sphinx", *arguments)})
    say(f"Open {output / 'index.html'}")


def benchmarks() -> dict[str, Path]:
    """Name -> file; a leading underscore is for what they share."""
    files = sorted((ROOT / "benchmarks").glob("*.py"))
    return {path.stem: path for path in files if not path.name.startswith("_")}


@nox.session
def bench(session: nox.Session) -> None:
    """Benchmarks: all of them, or `-- NAME ...`; each prints ratios and writes JSON."""
    available = benchmarks()
    unknown = [name for name in session.posargs if name not in available]
    if unknown:
        session.error(f"no benchmark named {unknown[0]}; there are: {', '.join(available)}")
    names = session.posargs or list(available)
    finish(session, {name: python(session, available[name]) for name in names})


# --- Distributions --------------------------------------------------------------------------------


def build_distributions(session: nox.Session) -> None:
    """Put a wheel and an sdist of every package into an empty `dist`."""
    shutil.rmtree(DIST, ignore_errors=True)
    # The wheel is built from the sdist, so a file that the sdist forgot is missed here.
    flags = ["--no-isolation", "--outdir", DIST]
    finish(
        session,
        {f.name: python(session, "-m", "build", *flags, f) for f in package_folders()},
    )


@nox.session
def build(session: nox.Session) -> None:
    """A wheel and an sdist of every package in `dist`."""
    build_distributions(session)


@nox.session
def alone(session: nox.Session) -> None:
    """Each package's tests against its wheel, with nothing but what its metadata declares."""
    build_distributions(session)
    helper = ROOT / "tools" / "alone.py"
    statuses = {}
    for folder in package_folders():
        place = ALONE / folder.name
        statuses[folder.name] = python(session, helper, folder, DIST, place, *session.posargs)
    finish(session, statuses)


@nox.session
@nox.parametrize("which", ["previous", "oldest", "newest"])
def siblings(session: nox.Session, which: str) -> None:
    """Packages beside siblings of the commit before, and of the oldest and newest release."""
    helper, place = ROOT / "tools" / "siblings.py", ROOT / "build" / "siblings" / which
    finish(session, {which: python(session, helper, which, place, *session.posargs)})


@nox.session
def release(session: nox.Session) -> None:
    """Rehearse a release: `-- llama4-core`; `--version X --write`, then `--tag`, make it."""
    helper, place = ROOT / "tools" / "release.py", ROOT / "build" / "release"
    if not {"--write", "--help", "-h"} & set(session.posargs):
        build_distributions(session)
    name, options = session.posargs[:1], session.posargs[1:]
    words = [*name, DIST, place, *options] if name else []
    finish(session, {"release": python(session, helper, *words)})
