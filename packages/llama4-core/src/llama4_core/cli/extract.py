"""``llama4 extract IN --part PART OUT``: a part of a checkpoint as a folder of its own."""

from __future__ import annotations

import argparse

from llama4_core.cli.progress import Progress, add_source_options, add_target_options


class Command:
    """Extracts a part."""

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Adds the options."""
        parser.add_argument("source", help="folder with a checkpoint in any known format")
        parser.add_argument("target", help="new folder to write")
        parser.add_argument(
            "--part", required=True, metavar="text|vision|layer:N", help="what to extract"
        )
        add_source_options(parser)
        add_target_options(parser)
        parser.epilog = "example:\n  llama4 extract Llama-4-Scout --part text scout-text"

    def run(self, arguments: argparse.Namespace) -> int:
        """Extracts, with progress on stderr."""
        from llama4_core.checkpoints.extract import extract

        shown = Progress()
        extract(
            arguments.source,
            arguments.target,
            arguments.part,
            arguments.format,
            source_format=arguments.source_format,
            max_positions=arguments.max_positions,
            shard_bytes=arguments.shard_mib * 1024**2,
            progress=shown,
        )
        shown.end()
        print(f"{arguments.target}: {shown.total / 1e6:,.1f} MB, {arguments.part}")
        return 0
