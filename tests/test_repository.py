"""Promises of the repository itself: pins, packaging, lazy imports."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = sorted(path.parent for path in ROOT.glob("packages/*/pyproject.toml"))
by_name = pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)


def requirement_lines(path: Path) -> list[str]:
    lines = (line.split("#")[0].strip() for line in path.read_text().splitlines())
    return [line for line in lines if line]


def pins() -> dict[str, Requirement]:
    requirements = map(Requirement, requirement_lines(ROOT / "constraints.txt"))
    return {canonicalize_name(requirement.name): requirement for requirement in requirements}


def table(package: Path) -> dict:
    return tomllib.loads((package / "pyproject.toml").read_text())


def test_constraints_pin_exactly_and_name_no_host_or_local_version():
    for requirement in pins().values():
        assert re.fullmatch(r"==[0-9][^+*,]*", str(requirement.specifier)), requirement
        assert requirement.url is None
    assert "://" not in (ROOT / "constraints.txt").read_text()
    assert not re.search(r"^\s*-", (ROOT / "requirements-dev.txt").read_text(), re.MULTILINE)


def test_everything_that_development_names_is_pinned_and_the_pin_fits():
    pinned = pins()
    lines = requirement_lines(ROOT / "requirements-dev.txt")
    for package in PACKAGES:
        project = table(package)["project"]
        lines += project["dependencies"]
        lines += [line for extra in project["optional-dependencies"].values() for line in extra]
        lines += table(package)["build-system"]["requires"]
    for requirement in map(Requirement, lines):
        name = canonicalize_name(requirement.name)
        if name in {package.name for package in PACKAGES}:
            continue
        assert name in pinned, f"constraints.txt does not pin {name}"
        version = str(pinned[name].specifier).removeprefix("==")
        assert requirement.specifier.contains(version), f"{requirement} excludes the pin {version}"


@by_name
def test_each_package_has_what_a_distribution_needs(package):
    module = package / "src" / package.name.replace("-", "_")
    assert (module / "py.typed").exists()
    for name in ("README.md", "CHANGELOG.md", "LICENSE"):
        assert (package / name).stat().st_size > 0
    assert (package / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    text = (module / "__init__.py").read_text()
    assert len(re.findall(r'^__version__ = "\d+\.\d+\.\d+"$', text, re.MULTILINE)) == 1
    configuration = table(package)
    assert configuration["build-system"]["build-backend"] == "hatchling.build"
    assert configuration["project"]["requires-python"] == ">=3.11"
    assert configuration["tool"]["towncrier"]["name"] == package.name


@by_name
def test_torch_has_no_upper_bound_and_siblings_have_one(package):
    for line in table(package)["project"]["dependencies"]:
        requirement = Requirement(line)
        bounded = any(part.operator in {"<", "<=", "==", "~="} for part in requirement.specifier)
        assert bounded == requirement.name.startswith("llama4-"), line


def test_the_ground_floor_imports_without_torch():
    code = """
import importlib, pkgutil, sys
for name in ("llama4_core", "llama4_core.errors"):
    importlib.import_module(name)
for name in ("llama4_core.protocols", "llama4_core.plugins", "llama4_core.specs"):
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(package.__path__, name + "."):
        importlib.import_module(module.name)
        assert "torch" not in sys.modules, module.name
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
