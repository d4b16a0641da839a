"""Release one package: changelog, version, wheel and sdist, each installed and tested, tag.

`python tools/release.py PACKAGE DIST PLACE [--version X] [--write] [--tag] [-- pytest arguments]`,
run by `nox -s release`. It uploads nothing.

As it stands it is a rehearsal: the changelog is shown as it would read, the requirements of
siblings are checked, the distributions that lie in DIST are installed and tested, and no file is
changed.

- `--write` raises `__version__` to X and moves the fragments into the changelog, then stops: look
  at the result and commit it.
- `--tag` makes the annotated tag `PACKAGE-X`; every check must hold and every test pass first.
"""

import argparse
import hashlib
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

from alone import ROOT
from packaging.version import InvalidVersion, Version
from release_checks import checks, report, version_of


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    parser = argparse.ArgumentParser(prog="nox -s release --")
    names = sorted(path.parent.name for path in ROOT.glob("packages/*/pyproject.toml"))
    parser.add_argument("package", choices=names)
    parser.add_argument("dist", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("place", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--version", help="what to release; the present __version__ if not given")
    parser.add_argument("--write", action="store_true", help="change version and changelog")
    parser.add_argument("--tag", action="store_true", help="tag, when everything holds")
    options = parser.parse_args(arguments[:end])
    options.pytest = arguments[end + 1 :]
    if options.write and options.tag:
        parser.error("--write changes files, --tag needs them committed: one after the other")
    return options


def check_bump(present: str, wanted: str) -> None:
    """Refuse a version that is none or goes back.

    Raises:
        SystemExit: with the reason.
    """
    try:
        if Version(wanted) >= Version(present):
            return
    except InvalidVersion as error:
        sys.exit(f"--version got {wanted!r}; expected a version such as 0.2.0 ({error})")
    sys.exit(f"--version got {wanted}, which is older than the present {present}")


def towncrier(folder: Path, version: str, *words: str) -> int:
    """Run towncrier on a package."""
    command = [sys.executable, "-m", "towncrier", "build", "--config", "pyproject.toml"]
    return subprocess.call([*command, "--version", version, *words], cwd=folder)


def write_version(folder: Path, version: str) -> None:
    """Put `version` into the package's `__init__.py`."""
    module = folder / "src" / folder.name.replace("-", "_") / "__init__.py"
    text = module.read_text(encoding="utf-8")
    line = re.compile(r'^__version__ = "[^"]+"$', re.MULTILINE)
    module.write_text(line.sub(f'__version__ = "{version}"', text, count=1), encoding="utf-8")


def wheel_contents(wheel: Path) -> dict[str, str]:
    """Path in the wheel -> sha256."""
    with zipfile.ZipFile(wheel) as opened:
        return {name: hashlib.sha256(opened.read(name)).hexdigest() for name in opened.namelist()}


def one(dist: Path, pattern: str) -> Path:
    """The one file of a pattern."""
    found = sorted(dist.glob(pattern))
    if len(found) != 1:
        sys.exit(f"expected one {pattern} in {dist}, got {[path.name for path in found]}")
    return found[0]


def try_sdist(name: str, dist: Path, place: Path) -> bool:
    """Build a wheel from the sdist, install it in a fresh environment, compare it with the other.

    When the two hold the same files, the tests of the one are the tests of the other.
    """
    stem = name.replace("-", "_")
    shutil.rmtree(place, ignore_errors=True)
    pip = [sys.executable, "-m", "pip", "--isolated", "--disable-pip-version-check"]
    offline = ["--no-deps", "--no-index", "-q"]
    build = [*pip, "wheel", *offline, "--no-build-isolation", "--wheel-dir", str(place)]
    if subprocess.call([*build, str(one(dist, f"{stem}-*.tar.gz"))]) != 0:
        return False
    built = one(place, f"{stem}-*.whl")
    venv.create(place / "environment", with_pip=False)
    python = place / "environment" / "bin" / "python"
    if not python.exists():
        python = place / "environment" / "Scripts" / "python.exe"
    install = [sys.executable, "-m", "pip", "--python", str(python), "--isolated", "install"]
    if subprocess.call([*install, *offline, str(built)]) != 0:
        return False
    probe = (
        f"import importlib.metadata as m; print({name!r}, m.version({name!r}), 'from its sdist')"
    )
    if subprocess.call([str(python), "-c", probe]) != 0:
        return False
    ours, theirs = wheel_contents(built), wheel_contents(one(dist, f"{stem}-*.whl"))
    different = sorted(p for p in ours.keys() | theirs.keys() if ours.get(p) != theirs.get(p))
    if different:
        print(f"the wheel of the sdist differs from the other one in {', '.join(different[:5])}")
    return not different


def main(arguments: list[str]) -> int:
    """Do what was asked; return 1 when something does not hold."""
    options = parse(arguments)
    folder = ROOT / "packages" / options.package
    present = version_of(folder)
    version = options.version or present
    check_bump(present, version)
    if options.write:
        write_version(folder, version)
        status = towncrier(folder, version, "--yes")
        print(f"{options.package} is {version} now: look at the changelog and commit it")
        return status

    if list((folder / "changes").glob("*.md")) and towncrier(folder, version, "--draft") != 0:
        return 1
    print(f"--- what a release of {options.package} {version} needs", flush=True)
    failures = report(checks(folder))
    if version != present:
        print(f"FAIL  the version is {present}, not {version}\n      run with --write and commit")
        failures += 1

    print("--- the wheel, alone", flush=True)
    helper = [sys.executable, ROOT / "tools" / "alone.py", folder, options.dist]
    words = [*helper, options.place / "wheel", *options.pytest]
    results = {
        "the wheel installs and passes its tests": subprocess.call(list(map(str, words))) == 0,
        "the sdist installs and builds the same wheel": try_sdist(
            options.package, options.dist, options.place / "sdist"
        ),
    }
    failures += report((what, holds, "see above") for what, holds in results.items())
    if options.tag:
        if failures:
            print("no tag: the failures come first")
        else:
            tag = f"{options.package}-{version}"
            message = f"{options.package} {version}"
            failures += subprocess.call(["git", "tag", "-a", tag, "-m", message], cwd=ROOT) != 0
            print(f"tagged {tag}; nothing is pushed or uploaded")
        return int(failures > 0)
    print(f"a rehearsal: {failures} point(s) open before {options.package} {version} can be tagged")
    return int(not all(results.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
