"""The helpers of the sessions `alone`, `release` and `siblings`, on small made-up packages."""

import importlib.util
import subprocess
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


class TestReleasing:
    @pytest.fixture
    def release(self, monkeypatch):
        monkeypatch.syspath_prepend(str(TOOLS))
        return load("release")

    def test_the_command_line(self, release):
        options = release.parse(["llama4-moe", "dist", "place", "--tag", "--", "-k", "x"])
        assert (options.package, options.tag, options.write) == ("llama4-moe", True, False)
        assert (options.version, options.pytest) == (None, ["-k", "x"])

    @pytest.mark.parametrize(
        "words", [["llama4-none", "d", "p"], ["llama4-moe", "d", "p", "--tag", "--write"], []]
    )
    def test_a_wrong_command_line_stops(self, release, words):
        with pytest.raises(SystemExit):
            release.parse(words)

    def test_versions_go_up(self, release):
        for wanted in ("0.1.0", "0.1.1", "0.10.0"):
            release.check_bump("0.1.0", wanted)
        with pytest.raises(SystemExit, match="older than the present"):
            release.check_bump("0.10.0", "0.9.0")
        with pytest.raises(SystemExit, match="expected a version"):
            release.check_bump("0.1.0", "next")

    def test_the_version_is_written_and_nothing_else(self, release, tmp_path):
        module = tmp_path / "llama4-x" / "src" / "llama4_x" / "__init__.py"
        module.parent.mkdir(parents=True)
        module.write_text('"""A package."""\n\n__version__ = "0.1.0"\nother = "0.1.0"\n')
        release.write_version(tmp_path / "llama4-x", "0.2.0")
        assert module.read_text() == '"""A package."""\n\n__version__ = "0.2.0"\nother = "0.1.0"\n'

    def test_a_file_that_the_sdist_forgot_is_named(self, release, tmp_path, monkeypatch, capsys):
        dist, place = tmp_path / "dist", tmp_path / "place"
        dist.mkdir()
        write_wheel(dist, "llama4-x", [])
        (dist / "llama4_x-0.1.0.tar.gz").touch()
        monkeypatch.setattr(release.venv, "create", lambda *_, **__: None)
        names = []

        def call(command):
            if "wheel" in command:
                place.mkdir()
                write_wheel(place, "llama4-x", names)
            return 0

        monkeypatch.setattr(release.subprocess, "call", call)
        assert release.try_sdist("llama4-x", dist, place)
        names.append("pluggy")
        assert not release.try_sdist("llama4-x", dist, place)
        assert "llama4_x-0.1.0.dist-info/METADATA" in capsys.readouterr().out


class TestSiblings:
    @pytest.fixture
    def workspace(self, tmp_path, monkeypatch):
        """A repository with core 0.2.0 and releases 0.1.0, 0.1.9, 0.1.10 and 0.2.0 of moe."""
        monkeypatch.syspath_prepend(str(TOOLS))
        module = load("siblings")
        monkeypatch.setattr(module, "ROOT", tmp_path)
        for name, value in {"HOME": str(tmp_path), "GIT_CONFIG_NOSYSTEM": "1"}.items():
            monkeypatch.setenv(name, value)
        self.git(tmp_path, "init", "-q")
        self.write(tmp_path, "llama4-core", "0.2.0", [])
        for version, ranges in {
            "0.1.0": "llama4-core<0.2",
            "0.1.9": "llama4-core<0.3",
            "0.1.10": "llama4-core<0.3",
            "0.2.0": "llama4-core>=0.3",
        }.items():
            self.write(tmp_path, "llama4-moe", version, [ranges])
            self.git(tmp_path, "add", ".")
            self.git(tmp_path, "commit", "-q", "-m", version)
            self.git(tmp_path, "tag", f"llama4-moe-{version}")
        self.git(tmp_path, "tag", "llama4-moe-of-old")
        return module, tmp_path

    @staticmethod
    def git(folder, *words):
        who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        subprocess.run(["git", *who, *words], cwd=folder, check=True)

    @staticmethod
    def write(root, name, version, requires):
        source = root / "packages" / name / "src" / name.replace("-", "_")
        source.mkdir(parents=True, exist_ok=True)
        (source / "__init__.py").write_text(f'__version__ = "{version}"\n')
        text = f"[project]\ndependencies = {requires!r}\n"
        (root / "packages" / name / "pyproject.toml").write_text(text)

    @pytest.mark.parametrize(("which", "tag"), [("oldest", "0.1.9"), ("newest", "0.1.10")])
    def test_the_release_at_the_end_of_what_fits(self, workspace, which, tag):
        module, root = workspace
        (pair,) = module.pairs(which, root / "scratch")
        assert pair == module.Pair("llama4-moe", f"llama4-moe-{tag}", "llama4-core", None)

    def test_the_commit_before_in_both_directions(self, workspace):
        module, root = workspace
        first, second = module.pairs("previous", root / "scratch")
        assert first.beside_at is None
        assert first.tested_at == second.beside_at
        assert second.tested_at is None
        folder = module.extract("llama4-moe", first.tested_at, root / "before")
        assert module.version_of(folder) == "0.1.10"
        assert "(present) beside llama4-core" in second.text

    def test_without_releases_nothing_is_tested_and_that_is_said(
        self, workspace, monkeypatch, capsys
    ):
        module, root = workspace
        monkeypatch.setattr(module, "releases", lambda package: [])
        assert module.main(["oldest", str(root / "place")]) == 0
        assert "nothing to test" in capsys.readouterr().out

    def test_a_revision_without_the_package_is_named(self, workspace):
        module, root = workspace
        with pytest.raises(SystemExit, match="llama4-nobody cannot be had from HEAD"):
            module.extract("llama4-nobody", "HEAD", root / "x")


class TestTagging:
    @pytest.fixture
    def tagging(self, monkeypatch, tmp_path):
        """Run the release of a package in order, or of one with something open; what was tagged."""
        monkeypatch.syspath_prepend(str(TOOLS))
        release = load("release")
        present = release.version_of(TOOLS.parent / "packages" / "llama4-moe")

        def run(*words, holds=True, tests=0):
            called = []

            def call(command, **_):
                called.append([str(word) for word in command])
                return tests if "alone.py" in " ".join(called[-1]) else 0

            monkeypatch.setattr(release.subprocess, "call", call)
            monkeypatch.setattr(release, "checks", lambda folder: [("in order", holds, "mend it")])
            monkeypatch.setattr(release, "try_sdist", lambda *_: True)
            status = release.main(["llama4-moe", str(tmp_path), str(tmp_path), *words])
            return status, [command[2:4] for command in called if command[:2] == ["git", "tag"]]

        return run, f"llama4-moe-{present}"

    def test_a_tag_needs_the_flag_and_everything_in_order(self, tagging):
        run, tag = tagging
        assert run("--tag") == (0, [["-a", tag]])
        assert run() == (0, [])
        assert run("--tag", holds=False) == (1, [])
        assert run("--tag", tests=1) == (1, [])
        assert run("--tag", "--version", "99.0") == (1, [])

    def test_a_rehearsal_fails_with_the_tests_and_not_with_what_is_open(self, tagging):
        run, _ = tagging
        assert run(holds=False) == (0, [])
        assert run(tests=1) == (1, [])
