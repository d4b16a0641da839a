"""``llama4 shrink IN OUT --layers 0-3 --experts 0-3``: real weights at workstation size."""

from __future__ import annotations

import argparse

from llama4_core.cli.progress import SOURCE, Progress, add_source_options, add_target_options


class Command:
    """Keeps some layers and experts."""

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Adds the options."""
        parser.add_argument("source", help=SOURCE)
        parser.add_argument("target", help="new folder to write")
        parser.add_argument(
            "--layers", metavar="RANGES", help="layers to keep, as in 0-3,7 (default all)"
        )
        parser.add_argument(
            "--experts",
            metavar="RANGES",
            help="experts of every mixture to keep, as in 0-3 (default all)",
        )
        add_source_options(parser)
        add_target_options(parser)
        parser.epilog = (
            "example:\n  llama4 shrink Llama-4-Scout scout-small --layers 0-3 --experts 0-3"
        )

    def run(self, arguments: argparse.Namespace) -> int:
        """Shrinks, with progress on stderr."""
        from llama4_core.checkpoints.shrink import parse_ranges, shrink

        with Progress() as shown:
            spec = shrink(
                arguments.source,
                arguments.target,
                layers=None if arguments.layers is None else parse_ranges(arguments.layers),
                experts=None if arguments.experts is None else parse_ranges(arguments.experts),
                format=arguments.format,
                source_format=arguments.source_format,
                max_positions=arguments.max_positions,
                shard_bytes=arguments.shard_mib * 1024**2,
                progress=shown,
            )
        print(f"{arguments.target}: {spec.name}, {len(spec.layers)} layers, "
              f"{shown.total / 1e6:,.1f} MB")  # fmt: skip
        return 0
