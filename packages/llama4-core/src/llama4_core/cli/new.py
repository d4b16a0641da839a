"""``llama4 new SOCKET NAME``: a complete plugin package to start from. Imports without torch."""

from __future__ import annotations

import argparse
from pathlib import Path

from llama4_core.plugins.catalogue import catalogue, socket_named
from llama4_core.plugins.hookspecs import SOCKETS
from llama4_core.scaffold.package import values_of, write_package


class Command:
    """Writes a package with a naive part that passes the conformance kit as written."""

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Adds the options."""
        kinds = ", ".join(socket.one for socket in SOCKETS.values())
        parser.add_argument("socket", metavar="SOCKET", help=f"kind of part: {kinds}")
        parser.add_argument("name", metavar="NAME", help="of the component, as in round-robin")
        parser.add_argument(
            "--into", type=Path, default=Path(), metavar="DIR", help="where to put the folder (.)"
        )
        parser.epilog = "example:\n  llama4 new router round-robin --into ~/plugins"

    def run(self, arguments: argparse.Namespace) -> int:
        """Writes the package and says what to do next."""
        folder = write_package(arguments.socket, arguments.name, arguments.into, catalogue())
        values = values_of(socket_named(arguments.socket), arguments.name)
        print(f"Wrote {folder}, a working {values['kind']} for you to change. Next:")
        print(f"  pip install -e '{folder}[test]'")
        print(f"  python -m pytest {folder}")
        for line in values["usage"].splitlines():
            print(f"  {line.removeprefix('$ ')}")
        print(f"The part itself is {folder / 'src' / values['package'] / values['module']}.py")
        return 0
