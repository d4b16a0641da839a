from __future__ import annotations

import subprocess
import sys

import pytest

from llama4_core import __version__
from llama4_core.cli import main
from llama4_core.errors import ComponentError, SpecError
from llama4_core.plugins.catalogue import catalogue


class Shows:
    """Prints what it got."""

    def configure(self, parser) -> None:
        parser.add_argument("words", nargs="*")
        parser.add_argument("--number", type=int, default=0)

    def run(self, arguments) -> int:
        print(arguments.words, arguments.number)
        return arguments.number


class Fails(Shows):
    def run(self, arguments) -> int:
        raise SpecError("got 1,\n  expected 2")


class Interrupted(Shows):
    def run(self, arguments) -> int:
        raise KeyboardInterrupt


class Unreadable(Shows):
    def run(self, arguments) -> int:
        raise FileNotFoundError(2, "No such file or directory", "here.json")


class Nothing:
    """Is no command."""


# The name that pytest gives a test module need not be importable.
ALIAS = "llama4_commands_under_test"
SHOWS, FAILS = f"{ALIAS}:Shows", f"{ALIAS}:Fails"


@pytest.fixture(autouse=True)
def importable(monkeypatch) -> None:
    """Makes the classes of this module targets."""
    monkeypatch.setitem(sys.modules, ALIAS, sys.modules[Shows.__module__])


def test_the_version(llama4) -> None:
    assert llama4("--version") == (0, f"llama4-core {__version__}\n", "")


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",)])
def test_the_overview_lists_every_command(llama4, words) -> None:
    code, out, _ = llama4(*words)
    assert code == 0
    for entry in catalogue().components("commands"):
        assert f"\n  {entry.name.replace('.', ' ')} " in out
        assert entry.component.summary in out
    assert "example" in out


@pytest.mark.parametrize(
    "name", [e.name for e in catalogue().components("commands") if e.distribution == "llama4-core"]
)
def test_every_help_has_an_example(llama4, name: str) -> None:
    code, out, err = llama4(*name.split("."), "--help")
    assert (code, err) == (0, "")
    usage, _, example = out.partition("example")
    assert usage.startswith(f"usage: llama4 {name.replace('.', ' ')}")
    assert f"llama4 {name.replace('.', ' ')}" in example


def test_the_exit_code_is_the_commands_own(llama4, commands) -> None:
    commands(show=SHOWS)
    assert llama4("show", "a", "b", "--number", "7") == (7, "['a', 'b'] 7\n", "")


def test_names_nest_and_the_longest_wins(llama4, commands) -> None:
    commands(a=SHOWS, a__b=SHOWS, c__d=SHOWS)
    assert llama4("a", "x", "b")[1] == "['x', 'b'] 0\n"
    assert llama4("a", "b", "x")[1] == "['x'] 0\n"
    assert llama4("c", "d")[1] == "[] 0\n"
    assert llama4("c") == (2, "", "error: llama4 c needs a subcommand: c d\n")
    assert "usage: llama4 c d " in llama4("c", "d", "--help")[1]


def test_an_error_is_one_line_and_its_traceback_needs_debug(llama4, commands) -> None:
    commands(fail=FAILS)
    assert llama4("fail") == (2, "", "error: got 1, expected 2\n")
    for words in (("fail", "--debug"), ("--debug", "fail")):
        with pytest.raises(SpecError):
            main(words)
    # After "--" it is an argument like any other.
    assert llama4("fail", "--", "--debug")[0] == 2


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["show", "--number", "x"],
            "argument --number: invalid int value: 'x' (see llama4 show --help)",
        ),
        (["show", "--nothing"], "unrecognized arguments: --nothing (see llama4 show --help)"),
        (["--nothing"], "unknown option '--nothing'; expected a command: see llama4 --help"),
        (["serve"], "command 'serve', which no installed package offers: pip install llama4-serve"),
        (
            ["train", "x.toml"],
            "command 'train', which no installed package offers: pip install llama4-train",
        ),
        (
            ["evaluate"],
            "command 'evaluate', which no installed package offers: pip install llama4-train",
        ),
    ],
)
def test_bad_input_is_one_line(llama4, commands, words, line) -> None:
    commands(show=SHOWS)
    assert llama4(*words) == (2, "", f"error: {line}\n")


def test_a_file_that_cannot_be_read_is_one_line(llama4, commands) -> None:
    commands(read=f"{ALIAS}:Unreadable")
    assert llama4("read") == (2, "", "error: here.json: No such file or directory\n")


def test_an_unknown_command_suggests_the_nearest(llama4) -> None:
    code, out, err = llama4("plugin")
    assert (code, out) == (2, "")
    assert err.startswith("error: unknown command 'plugin': did you mean 'plugins'?")


def test_a_target_that_is_no_command_is_an_error(llama4, commands) -> None:
    commands(bad=f"{ALIAS}:Nothing", absent="llama4_nothing_here:Command")
    assert "expected an object with configure(parser) and run(arguments)" in llama4("bad")[2]
    assert "importing 'llama4_nothing_here:Command' failed" in llama4("absent")[2]


def test_interruption_is_130(llama4, commands) -> None:
    commands(slow=f"{ALIAS}:Interrupted")
    assert llama4("slow") == (130, "", "")


def test_a_clashing_command_is_picked_by_its_distribution(llama4, commands) -> None:
    commands(plugins=SHOWS)
    assert "write one of 'foreign/plugins', 'llama4-core/plugins'" in llama4("plugins")[2]
    assert llama4("foreign/plugins") == (0, "[] 0\n", "")
    with pytest.raises(ComponentError):
        main(["plugins", "--debug"])


def test_a_closed_pipe_is_quiet() -> None:
    writer = subprocess.Popen(
        [sys.executable, "-m", "llama4_core.cli", "plugins", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert writer.stdout is not None
    writer.stdout.close()
    assert writer.stderr is not None
    assert writer.stderr.read() == b""
    writer.stderr.close()
    assert writer.wait() == 141
