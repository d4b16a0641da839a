"""``llama4 plugins``: what can be swapped, by whom, and what is broken. Imports without torch."""

from __future__ import annotations

import argparse
from typing import Any

from llama4_core.cli.output import (
    add_json_option,
    add_plugin_option,
    catalogue_of,
    print_json,
    table,
)
from llama4_core.plugins.catalogue import Catalogue, Entry, socket_named
from llama4_core.plugins.hookspecs import SOCKETS


class Command:
    """Lists sockets, components, name clashes and broken plugins."""

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Adds the options."""
        parser.add_argument("--socket", metavar="NAME", help="only this socket, e.g. routers")
        add_plugin_option(parser)
        add_json_option(parser)
        parser.epilog = "example:\n  llama4 plugins --socket attention_backends"

    def run(self, arguments: argparse.Namespace) -> int:
        """Prints the listing."""
        sockets = [socket_named(arguments.socket).name] if arguments.socket else list(SOCKETS)
        known = catalogue_of(arguments)
        if arguments.json:
            print_json(listing(known, sockets))
        else:
            print(_text(known, sockets))
        return 0


def listing(known: Catalogue, sockets: list[str]) -> dict[str, Any]:
    """The catalogue as plain values."""
    clashes = known.clashes()
    return {
        "sockets": {
            name: {
                "owner": SOCKETS[name].owner,
                "hook": SOCKETS[name].hook,
                "contracts": [SOCKETS[name].oldest, SOCKETS[name].current],
                "components": [_entry(entry) for entry in known.components(name)],
            }
            for name in sockets
        },
        "clashes": {name: clashes[name] for name in sockets if name in clashes},
        "problems": [
            {"distribution": p.distribution, "origin": p.origin, "reason": p.reason}
            for p in known.problems
        ],
    }


def _entry(entry: Entry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "distribution": entry.distribution,
        "version": entry.version,
        "origin": entry.origin,
        "target": entry.component.target,
        "summary": entry.component.summary,
        "requires": list(entry.component.requires),
        "contract": entry.component.contract,
        "considered_by_auto": entry.allowed,
    }


def _text(known: Catalogue, sockets: list[str]) -> str:
    lines: list[str] = []
    clashes = known.clashes()
    for name in sockets:
        lines.append(name)
        rows = [
            (
                entry.full_name if entry.name in clashes.get(name, {}) else entry.name,
                f"{entry.distribution} {entry.version[:19]}",
                entry.component.summary,
            )
            for entry in known.components(name)
        ]
        lines.append(table(rows) or f"  (nothing installed; {SOCKETS[name].owner} owns it)")
        for clash, distributions in clashes.get(name, {}).items():
            lines.append(
                f"  ! {clash!r} is offered by {', '.join(distributions)}: write distribution/name"
            )
    if known.problems:
        lines += ["", "problems"]
        lines += [f"  {p.distribution} ({p.origin}): {p.reason}" for p in known.problems]
    return "\n".join(lines)
