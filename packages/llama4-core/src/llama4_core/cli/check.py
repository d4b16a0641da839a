"""``llama4 check SOCKET:NAME``: the conformance kit on one component."""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama4_core.cli.output import (
    add_json_option,
    add_plugin_option,
    catalogue_of,
    print_json,
    table,
)
from llama4_core.errors import ComponentError
from llama4_core.plugins.catalogue import socket_named

if TYPE_CHECKING:
    from llama4_core.plugins.catalogue import Entry
    from llama4_core.testing.check import Check, Outcome, Subject


class Command:
    """Runs the published checks of a socket on a component."""

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Adds the options."""
        parser.add_argument(
            "component", nargs="?", metavar="SOCKET:NAME", help="for example router:mine"
        )
        parser.add_argument(
            "--list", action="store_true", help="say what is checked (of SOCKET), and why"
        )
        parser.add_argument(
            "--only", action="append", default=[], metavar="CHECK", help="only this; repeatable"
        )
        parser.add_argument("--examples", type=_count, help="cases per check (25)")
        parser.add_argument("--seed", type=int, default=0, help="of the drawing of cases (0)")
        parser.add_argument("--device", default="cpu", help="type of device to run on (cpu)")
        parser.add_argument(
            "--report", type=Path, metavar="FILE", help="write everything to this file, as JSON"
        )
        add_plugin_option(parser)
        add_json_option(parser)
        parser.epilog = (
            "exit code 1 when a check fails\n\n"
            "examples:\n  llama4 check attention_backend:sdpa\n"
            "  llama4 check router:mine --plugin ./my_router.py\n"
            "  llama4 check --list router"
        )

    def run(self, arguments: argparse.Namespace) -> int:
        """Runs the checks, one line each."""
        if importlib.util.find_spec("hypothesis") is None:
            raise ComponentError(
                "llama4 check needs hypothesis: pip install 'llama4-core[testing]'"
            )
        if arguments.list:
            return _list(arguments)
        socket, colon, name = (arguments.component or "").partition(":")
        if not (socket and colon and name):
            raise ComponentError(
                f"llama4 check got {arguments.component!r}; expected SOCKET:NAME, as in "
                "attention_backend:sdpa; `llama4 plugins` lists names"
            )
        from llama4_core.assembly.assemble import usable_device
        from llama4_core.testing.check import run
        from llama4_core.testing.registry import selected, subject_of

        usable_device(arguments.device)
        place = socket_named(socket)
        entry = catalogue_of(arguments).find(place.name, name)
        subject = subject_of(entry, arguments.device)
        outcomes = []
        for check in selected(subject, arguments.only):
            outcome = run(check, subject, examples=arguments.examples, seed=arguments.seed)
            outcomes.append(outcome)
            if not arguments.json:
                print(_line(outcome), flush=True)
        failed = [outcome for outcome in outcomes if outcome.failed]
        if arguments.report is not None:
            _write(arguments.report, _report(entry, subject, outcomes, arguments.plugin))
        if arguments.json:
            print_json([_plain(outcome, arguments.plugin) for outcome in outcomes])
        else:
            for outcome in failed:
                print(f"\n{outcome.explain()}{_plugins(arguments.plugin)}")
            print(f"\n{_summary(outcomes)}")
        return 1 if failed else 0


def _list(arguments: argparse.Namespace) -> int:
    from llama4_core.testing.registry import checked_sockets, checks_of

    wanted = (arguments.component or "").partition(":")[0]
    sockets = [socket_named(wanted)] if wanted else list(checked_sockets())
    found = {socket.name: checks_of(socket.name) for socket in sockets}
    if arguments.json:
        print_json({name: [_described(check) for check in found[name]] for name in found})
        return 0
    for name, checks in found.items():
        print(name)
        for check in checks:
            print(f"  {check.name}: {check.proves}\n      why: {check.why}")
    return 0


def _line(outcome: Outcome) -> str:
    reason = "" if outcome.failed or not outcome.reason else f"  ({outcome.reason})"
    return table(
        [(f"{outcome.status:16}", f"{outcome.check.name:28}", f"{outcome.seconds:6.2f} s")]
    ) + (reason)


def _summary(outcomes: list[Outcome]) -> str:
    counts: dict[str, int] = {}
    for outcome in outcomes:
        counts[outcome.status] = counts.get(outcome.status, 0) + 1
    parts = ", ".join(f"{count} {status}" for status, count in counts.items())
    return f"{len(outcomes)} checks: {parts}; {sum(o.seconds for o in outcomes):.1f} s"


def _plain(outcome: Outcome, plugins: list[str]) -> dict[str, Any]:
    return {
        "component": f"{outcome.subject.socket}:{outcome.subject.name}",
        **_described(outcome.check),
        "status": outcome.status,
        "reason": outcome.reason,
        "example": outcome.example,
        "rerun": outcome.rerun + _plugins(plugins),
        "seed": outcome.seed,
        "examples": outcome.examples,
        "seconds": round(outcome.seconds, 3),
    }


def _report(
    entry: Entry, subject: Subject, outcomes: list[Outcome], plugins: list[str]
) -> dict[str, Any]:
    """What was checked, with what, and what came of it."""
    import hypothesis
    import torch

    return {
        "component": f"{subject.socket}:{subject.name}",
        "distribution": entry.distribution,
        "version": entry.version,
        "device": subject.device,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "hypothesis": hypothesis.__version__,
        "expected_failures": dict(subject.expected_failures),
        "failed": sum(outcome.failed for outcome in outcomes),
        "seconds": round(sum(outcome.seconds for outcome in outcomes), 3),
        "checks": [_plain(outcome, plugins) for outcome in outcomes],
    }


def _write(path: Path, report: dict[str, Any]) -> None:
    try:
        path.write_text(json.dumps(report, indent=2) + "\n")
    except OSError as error:
        raise ComponentError(
            f"--report {path}: cannot be written ({error.strerror}); name a file in a folder that "
            "exists and may be written"
        ) from error


def _described(check: Check) -> dict[str, Any]:
    return {
        "check": check.name,
        "proves": check.proves,
        "why": check.why,
        "properties": list(check.properties),
    }


def _plugins(files: list[str]) -> str:
    return "".join(f" --plugin {file}" for file in files)


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return number
