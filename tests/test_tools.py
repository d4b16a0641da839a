"""The helpers of the sessions `alone` and `release`, on small made-up distributions."""

import importlib.util
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

TOOLS = Path(__file__).resolve().parent.parent / "tools"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"repository_{name}", TOOLS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_wheel(dist: Path, name: str, requires: list[str]) -> None:
    stem = name.replace("-", "_")
    lines = ["Metadata-Version: 2.4", f"Name: {name}", "Version: 0.1.0"]
    lines += [f"Requires-Dist: {line}" for line in requires]
    with zipfile.ZipFile(dist / f"{stem}-0.1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{stem}-0.1.0.dist-info/METADATA", "\n".join(lines) + "\n")


class TestAlone:
    def test_reaches_what_is_declared_and_nothing_else(self, tmp_path):
        write_wheel(tmp_path, "llama4-core", ["pluggy", 'pytest; extra == "testing"'])
        write_wheel(
            tmp_path,
            "llama4-moe",
            ["llama4-core<0.2", 'llama4-core[testing]; extra == "test"', 'ruff; extra == "style"'],
        )
        alone = load("alone")
        assert set(alone.closure("llama4-core", (), tmp_path)) == {"llama4-core", "pluggy"}
        # An extra of an extra is followed; the one that nobody asked for is not.
        reached = set(alone.closure("llama4-moe", ("test",), tmp_path))
        assert reached >= {"llama4-moe", "llama4-core", "pluggy", "pytest", "iniconfig"}
        assert "ruff" not in reached

    def test_a_requirement_for_another_platform_is_left_out(self, tmp_path):
        write_wheel(tmp_path, "llama4-core", ['not-there-at-all; sys_platform == "nowhere"'])
        assert set(load("alone").closure("llama4-core", (), tmp_path)) == {"llama4-core"}

    def test_what_development_does_not_install_is_named(self, tmp_path):
        write_wheel(tmp_path, "llama4-core", ["not-there-at-all"])
        with pytest.raises(SystemExit, match="needs not-there-at-all, which"):
            load("alone").closure("llama4-core", (), tmp_path)

    def test_two_wheels_of_one_distribution_are_refused(self, tmp_path):
        write_wheel(tmp_path, "llama4-core", [])
        (tmp_path / "llama4_core-0.0.9-py3-none-any.whl").touch()
        with pytest.raises(SystemExit, match="expected one wheel of llama4-core"):
            load("alone").distribution("llama4-core", tmp_path)

    def test_links_modules_and_metadata(self, tmp_path):
        alone = load("alone")
        alone.link(alone.distribution("pluggy", tmp_path), tmp_path)
        names = {path.name for path in tmp_path.iterdir()}
        assert "pluggy" in names
        assert any(name.endswith(".dist-info") for name in names)


class TestRelease:
    @pytest.fixture
    def checks(self, tmp_path, monkeypatch):
        """Run the checks on a workspace whose second package is given by its requirement."""
        module = load("release_checks")
        monkeypatch.setattr(module, "ROOT", tmp_path)

        class Clean:
            stdout = ""

        monkeypatch.setattr(module.subprocess, "run", lambda *_, **__: Clean)

        def run(requirement="llama4-core>=0.1,<0.2", changelog="## 0.1.0 (2026-01-01)\n"):
            for name, requires in (("llama4-core", []), ("llama4-moe", [requirement])):
                folder = tmp_path / "packages" / name
                source = folder / "src" / name.replace("-", "_")
                source.mkdir(parents=True)
                (source / "__init__.py").write_text('"""A package."""\n\n__version__ = "0.1.0"\n')
                (folder / "pyproject.toml").write_text(f"[project]\ndependencies = {requires!r}\n")
                (folder / "CHANGELOG.md").write_text(changelog)
            results = module.checks(tmp_path / "packages" / "llama4-moe")
            return [what for what, holds, _ in results if not holds]

        return run

    def test_a_package_in_order_passes(self, checks):
        assert checks() == []

    @pytest.mark.parametrize(
        "requirement", ["llama4-core", "llama4-core>=0.1", "llama4-core>=0.2,<0.3"]
    )
    def test_sibling_ranges_are_bounded_and_current(self, checks, requirement):
        (failure,) = checks(requirement=requirement)
        assert requirement in failure

    def test_the_changelog_must_have_the_version(self, checks):
        assert checks(changelog="## 0.1.00 (2026-01-01)\n") == [
            "the changelog has a section for 0.1.0"
        ]
