"""``llama4 convert IN OUT``: writes a checkpoint in another format."""

from __future__ import annotations

import argparse

from llama4_core.cli.progress import SOURCE, Progress, add_source_options, add_target_options


class Command:
    """Converts a folder."""

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Adds the options."""
        parser.add_argument("source", help=SOURCE)
        parser.add_argument("target", help="new folder to write")
        add_source_options(parser)
        add_target_options(parser)
        parser.add_argument(
            "--shards",
            type=int,
            metavar="N",
            help="number of files for the format meta, which cuts every weight into as many equal "
            "parts (default 1; Meta publishes 8)",
        )
        parser.epilog = (
            "Killed or interrupted, the same command goes on where it stopped.\n\n"
            "example:\n  llama4 convert Llama-4-Scout scout-native"
        )

    def run(self, arguments: argparse.Namespace) -> int:
        """Converts, with progress on stderr."""
        from llama4_core.checkpoints.convert import convert

        with Progress() as shown:
            convert(
                arguments.source,
                arguments.target,
                arguments.format,
                source_format=arguments.source_format,
                shards=arguments.shards,
                shard_bytes=arguments.shard_mib * 1024**2,
                max_positions=arguments.max_positions,
                progress=shown,
            )
        print(f"{arguments.target}: {shown.total / 1e6:,.1f} MB, format {arguments.format}")
        return 0
