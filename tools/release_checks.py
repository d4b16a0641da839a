"""What must be true of a package before it is built for release.

`python tools/release_checks.py PACKAGE_FOLDER`, part of `nox -s release`. Prints every check and
exits 1 when one fails.
"""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent


def project_of(folder: Path) -> dict[str, Any]:
    """The `[project]` table of a package."""
    table: dict[str, Any] = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    return table


def version_of(folder: Path) -> str:
    """The static `__version__` of a package."""
    module = folder / "src" / folder.name.replace("-", "_") / "__init__.py"
    found = re.search(r'^__version__ = "([^"]+)"', module.read_text(), re.MULTILINE)
    if found is None:
        sys.exit(f'{module} has no line `__version__ = "..."`')
    return found[1]


def requirement_lines(project: dict[str, Any]) -> list[str]:
    """The requirements of a package and of all its extras."""
    extras = project.get("optional-dependencies", {})
    return [
        *project.get("dependencies", ()),
        *(line for lines in extras.values() for line in lines),
    ]


def checks(folder: Path) -> Iterator[tuple[str, bool, str]]:
    """Yield (what is checked, whether it holds, what to do when it does not)."""
    version = version_of(folder)
    status = ["git", "status", "--porcelain", "--", str(folder)]
    changed = subprocess.run(status, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    yield "everything is committed", not changed, "commit or revert:\n" + changed

    changelog = (folder / "CHANGELOG.md").read_text()
    what = f"the changelog has a section for {version}"
    command = f"python noxfile.py -s release -- {folder.name} --version {version} --write"
    yield what, re.search(rf"^## {re.escape(version)}\b", changelog, re.M) is not None, command

    pending = sorted(path.name for path in (folder / "changes").glob("*.md"))
    yield "no change waits outside the changelog", not pending, f"{command}  ({pending})"

    versions = {
        path.parent.name: version_of(path.parent) for path in ROOT.glob("packages/*/*.toml")
    }
    for line in requirement_lines(project_of(folder)):
        requirement = Requirement(line)
        sibling = versions.get(requirement.name)
        if sibling is None or requirement.name == folder.name:
            continue
        fits = requirement.specifier.contains(sibling, prereleases=True)
        bounded = any(part.operator == "<" for part in requirement.specifier)
        what = f"`{line}` has an upper bound and admits {requirement.name} {sibling}"
        yield what, fits and bounded, "mend the range in pyproject.toml"


def report(results: Iterable[tuple[str, bool, str]]) -> int:
    """Print each check; return the number of those that fail."""
    failures = 0
    for what, holds, advice in results:
        print(f"{'ok  ' if holds else 'FAIL'}  {what}" + ("" if holds else f"\n      {advice}"))
        failures += not holds
    return failures


def main(arguments: list[str]) -> int:
    """Print each check; return 1 when one fails."""
    return int(report(checks(Path(arguments[0]).resolve())) > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
