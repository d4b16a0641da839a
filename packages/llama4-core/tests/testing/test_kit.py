"""What surrounds the checks: outcomes, profiles, the command, the pytest plugin."""

import dataclasses
import json

import pytest
from hypothesis import settings
from hypothesis import strategies as st

from llama4_core.cli.main import main
from llama4_core.errors import ComponentError
from llama4_core.testing import check_component, conformance_tests, profiles, registry, run
from llama4_core.testing.check import (
    EXPECTED,
    FAILED,
    PASSED,
    REFUSED,
    UNEXPECTED,
    Refused,
    Subject,
    check,
)

pytest_plugins = ["pytester"]

MINE = """
from llama4_core.plugins.component import Component
from llama4_core.plugins.hookspecs import hookimpl
from llama4_core.contexts.caches import HeadMajorCache

class Mine(HeadMajorCache):
    @property
    def nbytes(self):
        return 0

@hookimpl
def llama4_caches():
    yield Component("mine", f"{__name__}:Mine", expected_failures={declared})
"""


@check(why="small numbers are cheap", cases=lambda subject: st.integers(0, 1000))
def stays_small(subject, case):
    """Numbers stay below ten.

    More of this is not in the report.
    """
    if case >= subject.build():
        raise ValueError(f"{case} is too large")


def subject(limit=10, **fields):
    return Subject("caches", "numbers", lambda: limit, **fields)


def test_what_repeats_a_check_names_the_device():
    outcome = run(stays_small, subject(device="meta"), seed=3, examples=50)
    assert outcome.rerun.endswith("--seed 3 --examples 50 --device meta")


def test_a_failure_shows_the_smallest_case_and_how_to_repeat_it():
    outcome = run(stays_small, subject(), seed=3, examples=50)
    assert (outcome.status, outcome.example) == (FAILED, "10")
    text = outcome.explain()
    for part in (
        "proves:  Numbers stay below ten.",
        "ValueError: 10 is too large",
        "matters: small numbers are cheap",
        "llama4 check caches:numbers --only stays-small --seed 3 --examples 50",
    ):
        assert part in text


def test_the_same_seed_draws_the_same_cases():
    drawn = []

    @check(why="", cases=lambda subject: st.integers(0, 10**9))
    def records(subject, case):
        """Records."""
        drawn.append(case)

    for seed in (1, 1, 2):
        run(records, subject(), seed=seed, examples=10)
    first, second, third = drawn[:10], drawn[10:20], drawn[20:]
    assert first == second != third


def test_declared_failures_are_strict():
    declared = {"stays-small": "no numbers here"}
    outcome = run(stays_small, subject(expected_failures=declared), seed=0)
    assert (outcome.status, outcome.reason, outcome.failed) == (EXPECTED, "no numbers here", False)
    outcome = run(stays_small, subject(2000, expected_failures=declared), seed=0)
    assert (outcome.status, outcome.failed) == (UNEXPECTED, True)
    assert "remove it from expected_failures" in outcome.reason


def test_refusals_carry_their_reason():
    def refuses(subject):
        raise Refused("not here")

    outcome = run(dataclasses.replace(stays_small, cases=refuses), subject(), seed=0)
    assert (outcome.status, outcome.reason, outcome.failed) == (REFUSED, "not here", False)


def test_slow_checks_have_few_cases():
    outcome = run(dataclasses.replace(stays_small, examples=2), subject(2000), examples=50)
    assert (outcome.status, outcome.examples) == (PASSED, 2)


def test_number_of_cases(monkeypatch):
    monkeypatch.setenv("LLAMA4_KIT_EXAMPLES", "7")
    assert profiles.examples() == 7
    monkeypatch.setenv("LLAMA4_KIT_EXAMPLES", "many")
    with pytest.raises(ComponentError, match="'many'; expected a whole number"):
        profiles.examples()
    monkeypatch.delenv("LLAMA4_KIT_EXAMPLES")
    before = settings.get_current_profile_name()
    try:
        settings.load_profile("default")
        assert profiles.examples() == profiles.EXAMPLES == 25
        settings.register_profile("eleven", max_examples=11, derandomize=True)
        settings.load_profile("eleven")
        assert (profiles.examples(), profiles.derandomized()) == (11, True)
    finally:
        settings.load_profile(before)


def test_every_check_says_what_it_proves_and_why():
    for socket in registry.checked_sockets():
        names = [each.name for each in registry.checks_of(socket.name)]
        assert len(names) == len(set(names))
        for each in registry.checks_of(socket.name):
            assert each.proves.endswith("."), each.name
            assert len(each.why) > 20, each.name


def test_objects_need_no_registration():
    from llama4_core.contexts.caches import HeadMajorCache

    class Half(HeadMajorCache):
        @property
        def nbytes(self):
            return self.keys.nbytes

    good = check_component("cache", target=HeadMajorCache, examples=3, seed=0)
    assert {outcome.status for outcome in good} == {PASSED}
    bad = check_component("caches", target=Half, only=["nbytes-is-true"], examples=3, seed=0)
    assert [outcome.status for outcome in bad] == [FAILED]


def test_unknown_names_are_errors():
    with pytest.raises(ComponentError, match="did you mean 'caches'"):
        registry.checks_of("cachez")
    with pytest.raises(ComponentError, match="unknown check 'speed'; caches has storage"):
        registry.selected("caches", ["speed"])
    with pytest.raises(ComponentError, match="no checks for socket 'commands'"):
        registry.checks_of("commands")
    with pytest.raises(ComponentError, match="neither a name nor a target"):
        check_component("caches")


test_cache_by_three_lines = conformance_tests("caches", "full")


@pytest.fixture
def mine(tmp_path):
    def write(declared):
        file = tmp_path / "mine.py"
        file.write_text(MINE.replace("{declared}", repr(declared)))
        return str(file)

    return write


def test_command_reports_failures(mine, capsys):
    file = mine({})
    words = ["check", "cache:mine", "--plugin", file, "--only", "nbytes-is-true", "--examples", "3"]
    assert main(words) == 1
    out = capsys.readouterr().out
    assert "FAIL" in out
    assert "matters: memory is planned" in out
    assert f"--seed 0 --examples 3 --plugin {file}" in out


def test_command_shows_declared_failures(mine, capsys):
    file = mine({"nbytes-is-true": "counts elsewhere"})
    words = ["check", "caches:mine", "--plugin", file, "--only", "nbytes-is-true", "--json"]
    assert main(words) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["status"], found["reason"]) == ("expected failure", "counts elsewhere")


def test_command_errors_are_one_line(capsys):
    for words, part in (
        (["check"], "expected SOCKET:NAME"),
        (["check", "cache"], "expected SOCKET:NAME"),
        (["check", "cache:none"], "unknown cache 'none'"),
        (["check", "cache:full", "--only", "speed"], "unknown check 'speed'"),
        (["check", "cache:full", "--device", "foo"], "device is 'foo', which torch cannot use"),
        (["check", "cache:full", "--examples", "0"], "at least 1"),
    ):
        assert main(words) == 2
        err = capsys.readouterr().err
        assert part in err
        assert err.count("\n") == 1


def test_command_lists_checks(capsys):
    assert main(["check", "--list", "cache"]) == 0
    out = capsys.readouterr().out
    assert "any-history: Extend, commit in part" in out
    assert "why:" in out


def test_pytest_plugin(pytester, monkeypatch):
    monkeypatch.setenv("LLAMA4_KIT_EXAMPLES", "2")
    result = pytester.runpytest_inprocess(
        "-p", "llama4_core.testing.plugin", "--pyargs", "llama4_core.testing.conformance",
        "--component", "cache:full", "-v",
    )  # fmt: skip
    result.assert_outcomes(passed=5)
    result.stdout.fnmatch_lines(["*caches:full:storage*PASSED*"])
    result.stdout.fnmatch_lines(["*seconds per socket*", "caches * of * s, 1 component(s)*"])


STRICT = """
from llama4_core.contexts.caches import HeadMajorCache
from llama4_core.testing import conformance_tests

test_sound = conformance_tests(
    "caches", target=HeadMajorCache, expected_failures={"storage": "not mended yet"}
)
"""


def test_a_declared_failure_that_passes_fails_the_plugin(pytester, monkeypatch):
    monkeypatch.setenv("LLAMA4_KIT_EXAMPLES", "2")
    pytester.makepyfile(STRICT)
    result = pytester.runpytest_inprocess()
    result.assert_outcomes(passed=4, failed=1)
    result.stdout.fnmatch_lines(["*unexpected pass*", "*remove it from expected_failures*"])


def test_command_fails_when_a_declared_failure_passes(mine, capsys):
    file = mine({"storage": "not mended yet"})
    words = ["check", "caches:mine", "--plugin", file, "--only", "storage", "--examples", "2"]
    assert main(words) == 1
    assert "unexpected pass" in capsys.readouterr().out


def test_command_writes_a_report(mine, tmp_path, capsys):
    declared = {"nbytes-is-true": "counts elsewhere", "memory-as-stated": "counts elsewhere"}
    file, path = mine(declared), tmp_path / "report.json"
    words = ["check", "cache:mine", "--plugin", file, "--examples", "2", "--report", str(path)]
    assert main(words) == 0
    assert "5 checks" in capsys.readouterr().out
    report = json.loads(path.read_text())
    assert (report["component"], report["failed"]) == ("caches:mine", 0)
    assert report["expected_failures"] == declared
    assert {each["check"]: each["status"] for each in report["checks"]} == {
        "storage": "pass",
        "overlapping-move": "pass",
        "nbytes-is-true": "expected failure",
        "any-history": "pass",
        "memory-as-stated": "expected failure",
    }
    for each in report["checks"]:
        assert (each["seed"], each["examples"]) == (0, 2)
        assert each["why"]
        assert each["rerun"]
    assert main([*words[:-1], str(tmp_path / "no" / "report.json")]) == 2
    assert "--report" in capsys.readouterr().err


def test_a_distribution_adds_checks_of_its_own():
    common = {each.name for each in registry.checks_of("feed_forwards")}
    ours = registry.make_subject("feed_forward", "dense")
    assert {each.name for each in registry.checks_for(ours)} == common
    stranger = dataclasses.replace(ours, distribution="no-such-distribution")
    assert {each.name for each in registry.checks_for(stranger)} == common


def test_pytest_plugin_refuses_unknown_components(pytester):
    result = pytester.runpytest_inprocess(
        "-p", "llama4_core.testing.plugin", "--pyargs", "llama4_core.testing.conformance",
        "--component", "cache:none",
    )  # fmt: skip
    result.stdout.fnmatch_lines(["*unknown cache 'none'*"])
    assert result.ret != 0
