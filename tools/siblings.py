"""Test a package beside a sibling of another time.

`python tools/siblings.py WHICH PLACE [pytest arguments]`, run by `nox -s siblings`.

WHICH says of which time the siblings are:

- `previous`: the commit before this one, so that what a change of core does to packages that were
  built before it is seen in time;
- `oldest`, `newest`: the oldest and newest released version (tag `llama4-moe-0.1.0`) whose ranges
  and ours admit each other. Without a release there is nothing to test, and that is said.

The present core is tested beside each other package of that time by that package's own tests, as
they were then; each present package that needs core is tested beside the core of that time by its
present tests. Both run as in `nox -s alone`: from wheels, in a fresh environment.
"""

import io
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import InvalidVersion, Version
from release_checks import project_of, requirement_lines, version_of

ROOT = Path(__file__).resolve().parent.parent
TIMES = ("previous", "oldest", "newest")
CORE = "llama4-core"


@dataclass(frozen=True)
class Pair:
    """One run: whose tests, and the revision of each of the two packages (None: as it is here)."""

    tested: str
    tested_at: str | None
    beside: str
    beside_at: str | None

    @property
    def text(self) -> str:
        """For people."""
        return (
            f"{self.tested} ({self.tested_at or 'present'}) beside "
            f"{self.beside} ({self.beside_at or 'present'})"
        )


def git(*words: str) -> str:
    """What git prints."""
    command = ["git", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def extract(package: str, revision: str, place: Path) -> Path:
    """The folder of a package as it was at `revision`, below `place`.

    Raises:
        SystemExit: there was no such package.
    """
    name = f"packages/{package}"
    command = ["git", "archive", "--format=tar", revision, name]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{package} cannot be had from {revision}: {done.stderr.decode().strip()}")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(place, filter="data")
    return place / name


def siblings() -> list[str]:
    """Our packages other than core."""
    names = sorted(path.parent.name for path in ROOT.glob("packages/*/pyproject.toml"))
    return [name for name in names if name != CORE]


def releases(package: str) -> list[tuple[Version, str]]:
    """Released versions and their tags, oldest first."""
    found = []
    for tag in git("tag", "--list", f"{package}-*").split():
        try:
            found.append((Version(tag.removeprefix(f"{package}-")), tag))
        except InvalidVersion:
            continue  # a tag about something else
    return sorted(found)


def admits(folder: Path, package: str, version: str) -> bool:
    """Whether the requirements in `folder` allow `version` of `package`."""
    ranges = [Requirement(line) for line in requirement_lines(project_of(folder))]
    return all(r.specifier.contains(version, prereleases=True) for r in ranges if r.name == package)


def pairs(which: str, scratch: Path) -> Iterator[Pair]:
    """The runs for one time."""
    for name in siblings():
        if which == "previous":
            before = git("rev-parse", "--short", "HEAD~1").strip()
            yield Pair(name, before, CORE, None)
            yield Pair(name, None, CORE, before)
            continue
        order = slice(None) if which == "oldest" else slice(None, None, -1)
        present = version_of(ROOT / "packages" / CORE)
        for _, tag in releases(name)[order]:
            if admits(extract(name, tag, scratch / tag), CORE, present):
                yield Pair(name, tag, CORE, None)
                break
        for version, tag in releases(CORE)[order]:
            if admits(ROOT / "packages" / name, CORE, str(version)):
                yield Pair(name, None, CORE, tag)
                break


def run(pair: Pair, place: Path, arguments: list[str]) -> int:
    """Build the two wheels, install them alone, run the tests; return pytest's exit status."""
    shutil.rmtree(place, ignore_errors=True)
    dist = place / "dist"
    folders = {}
    for package, revision in ((pair.tested, pair.tested_at), (pair.beside, pair.beside_at)):
        present = ROOT / "packages" / package
        folder = present if revision is None else extract(package, revision, place / "source")
        folders[package] = folder
        command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", dist]
        if subprocess.call([*map(str, command), str(folder)]) != 0:
            sys.exit(f"{package} ({revision or 'present'}) cannot be built; the reason is above")
    helper = ROOT / "tools" / "alone.py"
    words = [sys.executable, helper, folders[pair.tested], dist, place / "alone", *arguments]
    return subprocess.call([str(word) for word in words])


def main(arguments: list[str]) -> int:
    """Run every pair; return 1 when one fails."""
    which, place = arguments[0], Path(arguments[1]).resolve()
    if which not in TIMES:
        sys.exit(f"got {which!r}; expected one of {', '.join(TIMES)}")
    os.environ.pop("PYTHONPATH", None)
    shutil.rmtree(place, ignore_errors=True)
    statuses = {}
    for number, pair in enumerate(pairs(which, place / "tags")):
        print(f"--- {pair.text}", flush=True)
        statuses[pair.text] = run(pair, place / str(number), arguments[2:])
    if not statuses:
        print(f"{which}: no version that fits is released yet; there is nothing to test")
    for text, status in statuses.items():
        print(f"{'ok  ' if status == 0 else 'FAIL'}  {text}")
    return int(any(statuses.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
