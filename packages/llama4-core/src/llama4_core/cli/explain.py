"""``llama4 explain MODEL``: what would run in every slot, from whom, and why the others do not."""

from __future__ import annotations

import argparse

from llama4_core.cli.output import add_json_option, add_override_options, overrides_of


class Command:
    """Assembles a model without memory and prints its report."""

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Adds the options."""
        parser.add_argument("model", help="name of a model (see llama4 models) or a folder")
        parser.add_argument("--dtype", help="what the model would run in, e.g. bfloat16")
        add_override_options(parser)
        add_json_option(parser)
        parser.epilog = (
            "example:\n  llama4 explain scout --set 'layers.[0-7].attention.backend=eager'"
        )

    def run(self, arguments: argparse.Namespace) -> int:
        """Prints the report."""
        from llama4_core.assembly.assemble import assemble

        model = assemble(
            arguments.model,
            overrides_of(arguments),
            device="meta",
            dtype=arguments.dtype,
            plugins=arguments.plugin,
        )
        print(model.report.to_json() if arguments.json else model.report.to_text())
        return 0
