"""Run one package's tests against its wheel, with only the dependencies that it declares.

`python tools/alone.py PACKAGE_FOLDER DIST PLACE [pytest arguments]`, run by `nox -s alone`.

PLACE becomes a fresh environment. Our distributions are installed into it from the wheels in DIST
without an index. Third-party packages are not installed a second time: links to the ones that the
declared requirements (with the extras `testing` and `test`) reach, and to no others, are put on its
path. An import that works only because the developer's environment happens to hold a package
therefore fails here.
"""

import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
EXTRAS = ("testing", "test")
OURS = "llama4-"

# Run by the fresh environment: which of our packages it can import, from where, and which of our
# distributions the catalogue's entry points name.
PROBE = """
import importlib.util, json, pkgutil
from importlib.metadata import entry_points
names = [m.name for m in pkgutil.iter_modules() if m.name.startswith("llama4_")]
print(json.dumps({
    "modules": {name: importlib.util.find_spec(name).origin for name in names},
    "plugins": sorted({e.dist.name for e in entry_points(group="llama4")}),
}))
"""


def distribution(name: str, dist: Path) -> metadata.Distribution:
    """One of our distributions from its wheel in `dist`; any other as it is installed here."""
    if not name.startswith(OURS):
        return metadata.distribution(name)
    wheels = sorted(dist.glob(f"{name.replace('-', '_')}-*.whl"))
    if len(wheels) != 1:
        sys.exit(f"expected one wheel of {name} in {dist}, got {[w.name for w in wheels]}")
    return next(iter(metadata.distributions(path=[str(wheels[0])])))


def closure(name: str, extras: Iterable[str], dist: Path) -> dict[str, metadata.Distribution]:
    """All distributions that the metadata of `name` with `extras` reaches, itself included."""
    reached: dict[str, metadata.Distribution] = {}
    waiting = [(name, extra) for extra in ("", *extras)]
    seen = set(waiting)
    while waiting:
        current, extra = waiting.pop()
        if current not in reached:
            try:
                reached[current] = distribution(current, dist)
            except metadata.PackageNotFoundError:
                sys.exit(f"{name} needs {current}, which requirements-dev.txt does not install")
        for line in reached[current].requires or ():
            requirement = Requirement(line)
            if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
                continue
            target = canonicalize_name(requirement.name)
            for found in [(target, wanted) for wanted in ("", *requirement.extras)]:
                if found not in seen:
                    seen.add(found)
                    waiting.append(found)
    return reached


def link(found: metadata.Distribution, folder: Path) -> None:
    """Link the top-level modules and the metadata of an installed distribution into `folder`."""
    tops = {Path(file).parts[0] for file in found.files or ()} - {"..", "__pycache__"}
    for top in tops:
        target = folder / top
        if not top.endswith(".pth") and not target.exists():
            target.symlink_to(Path(str(found.locate_file(top))).resolve())


def make_environment(name: str, dist: Path, place: Path) -> Path:
    """Make the fresh environment and check what it can import; return its Python.

    Raises:
        SystemExit: pip refuses, or the importable packages are not the declared ones.
    """
    shutil.rmtree(place, ignore_errors=True)
    links = place / "third-party"
    links.mkdir(parents=True)
    reached = closure(name, EXTRAS, dist)
    ours = sorted(other for other in reached if other.startswith(OURS))
    for other, found in reached.items():
        if other not in ours:
            link(found, links)

    home = place / "environment"
    venv.create(home, with_pip=False, symlinks=os.name != "nt")
    python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    purelib = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    (Path(purelib) / "third-party.pth").write_text(f"{links}\n")
    install = [sys.executable, "-m", "pip", "--python", python, "--isolated", "install", "-q"]
    install += ["--no-index", "--find-links", dist, f"{name}[{','.join(EXTRAS)}]"]
    if subprocess.call([str(word) for word in install]) != 0:
        sys.exit(f"pip cannot install {name} from {dist} and what is declared (reason above)")

    answer = subprocess.run([python, "-c", PROBE], capture_output=True, text=True, check=True)
    seen = json.loads(answer.stdout)
    if sorted(seen["modules"]) != [other.replace("-", "_") for other in ours]:
        sys.exit(f"expected exactly {ours} to be importable, got {sorted(seen['modules'])}")
    if seen["plugins"] != ours:
        sys.exit(f"expected the entry points of exactly {ours}, got {seen['plugins']}")
    for module, origin in seen["modules"].items():
        if not Path(origin).is_relative_to(home):
            sys.exit(f"{module} comes from {origin} and not from its wheel")
    print(f"{name}: importable are {', '.join(ours)} and {len(reached) - len(ours)} others")
    return python


def main(arguments: list[str]) -> int:
    """Make the environment, copy the tests beside it, run them; return pytest's exit status."""
    folder, dist, place = (Path(argument).resolve() for argument in arguments[:3])
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    os.environ.pop("PYTHONPATH", None)
    python = make_environment(folder.name, dist, place)
    # Copied, so that nothing finds the sources by a path relative to the tests.
    shutil.copytree(folder / "tests", place / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("conftest.py", "pyproject.toml"):
        shutil.copy(ROOT / name, place)
    settings = {"HYPOTHESIS_PROFILE": "alone", "OMP_NUM_THREADS": clean.get("OMP_NUM_THREADS", "1")}
    command = [str(python), "-m", "pytest", "-q", "tests", *arguments[3:]]
    return subprocess.call(command, cwd=place, env=clean | settings)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
