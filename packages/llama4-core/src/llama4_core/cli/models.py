"""``llama4 models``: the models that have a name here. Imports without torch."""

from __future__ import annotations

import argparse

from llama4_core.cli.output import (
    add_json_option,
    add_plugin_option,
    catalogue_of,
    print_json,
    table,
)


class Command:
    """Lists the socket ``models``."""

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Adds the options."""
        add_plugin_option(parser)
        add_json_option(parser)
        parser.epilog = "example:\n  llama4 models"

    def run(self, arguments: argparse.Namespace) -> int:
        """Prints the listing."""
        entries = catalogue_of(arguments).components("models")
        if arguments.json:
            print_json(
                [
                    {
                        "name": entry.name,
                        "summary": entry.component.summary,
                        "distribution": entry.distribution,
                        "version": entry.version,
                    }
                    for entry in entries
                ]
            )
            return 0
        print(
            table(
                (e.name, e.component.summary, f"[{e.distribution} {e.version[:19]}]")
                for e in entries
            )
        )
        return 0
