"""``llama4 COMMAND ...``: finds the command in the catalogue, imports it, runs it.

Exit codes: what the command returns; 2 for bad input (one line on stderr, the traceback only with
``--debug``); 130 when interrupted; 141 when nobody reads the output any more.
"""

from __future__ import annotations

import argparse
import inspect
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn, Protocol

from llama4_core.errors import ComponentError, Llama4Error, PluginError
from llama4_core.plugins.catalogue import Catalogue, Entry, catalogue


class Command(Protocol):
    """What the target of a component in the socket ``commands`` is, or builds when called."""

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Adds arguments, a description, and an example as the epilog."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Does the work; returns the exit code."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are one line."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(*args, **kwargs)

    def error(self, message: str) -> NoReturn:
        """Ends the program with exit code 2 and one line."""
        self.exit(2, f"error: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line and returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    plain = words.index("--") if "--" in words else len(words)
    debug = "--debug" in words[:plain]
    words = [word for word in words[:plain] if word != "--debug"] + words[plain:]
    try:
        code = _run(words)
        sys.stdout.flush()
    except Llama4Error as error:
        if debug:
            raise
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The interpreter flushes stdout at exit; let it flush into nothing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:  # a file that the command line names cannot be read or written
        if debug or error.filename is None:
            raise
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    except SystemExit as end:  # argparse: help, version, or a complaint that it has printed
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 2
    return code


def _run(words: list[str]) -> int:
    if words and words[0] == "--version":
        from llama4_core import __version__

        print(f"llama4-core {__version__}")
        return 0
    entries = catalogue().components("commands")
    if not words or words[0] in ("-h", "--help"):
        print(_overview(entries))
        return 0
    entry, rest = _command(catalogue(), words)
    command = _load(entry)
    parser = Parser(prog=f"llama4 {entry.name.replace('.', ' ')}")
    parser.description = entry.component.summary
    command.configure(parser)
    parser.add_argument(
        "--debug", action="store_true", help="show the traceback of an error (anywhere)"
    )
    return command.run(parser.parse_args(rest))


def _command(known: Catalogue, words: list[str]) -> tuple[Entry, list[str]]:
    """The command with the longest name at the start of ``words``, and what follows it."""
    names = {entry.name for entry in known.components("commands")}
    leading = 0
    while leading < len(words) and not words[leading].startswith("-"):
        leading += 1
    for length in range(leading, 0, -1):
        name = ".".join(words[:length])
        if name.rpartition("/")[2] in names:
            return known.find("commands", name), words[length:]
    below = sorted(name.replace(".", " ") for name in names if name.startswith(f"{words[0]}."))
    if below:
        raise ComponentError(f"llama4 {words[0]} needs a subcommand: {', '.join(below)}")
    if leading == 0:
        raise ComponentError(f"unknown option {words[0]!r}; expected a command: see llama4 --help")
    known.find("commands", words[0])  # raises, and says what is near or what to install
    raise ComponentError(f"unknown command {words[0]!r}: see llama4 --help")


def _load(entry: Entry) -> Command:
    found = entry.component.load()
    command: Any = found(**entry.component.settings) if inspect.isclass(found) else found
    if not (callable(getattr(command, "configure", None)) and callable(_runner(command))):
        raise PluginError(
            f"command {entry.name!r} of {entry.distribution} is {command!r}; expected an object "
            "with configure(parser) and run(arguments)"
        )
    return command


def _runner(command: Any) -> Any:
    return getattr(command, "run", None)


def _overview(entries: list[Entry]) -> str:
    width = max((len(entry.name) for entry in entries), default=0)
    lines = [
        "usage: llama4 COMMAND ... | llama4 COMMAND --help | llama4 --version",
        "",
        "Assemble, inspect and run Llama 4 models made of swappable parts.",
        "",
        "commands:",
        *(f"  {e.name.replace('.', ' '):{width}}  {e.component.summary}" for e in entries),
        "",
        "every command takes --debug, which shows the traceback of an error",
        "",
        "example:",
        "  llama4 explain nano",
    ]
    return "\n".join(lines)
