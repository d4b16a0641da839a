"""``llama4 convert IN OUT``: writes a checkpoint in another format."""

from __future__ import annotations

import argparse
import sys


class Command:
    """Converts a folder."""

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Adds the options."""
        parser.add_argument("source", help="folder with a checkpoint in any known format")
        parser.add_argument("target", help="new folder to write")
        parser.add_argument(
            "--format",
            default="native",
            help="checkpoint format to write: native (default) or huggingface, or a plugin's",
        )
        parser.add_argument(
            "--shard-mib",
            type=int,
            default=4096,
            help="about how large a file may become, in MiB (default 4096)",
        )
        parser.epilog = "example:\n  llama4 convert Llama-4-Scout scout-native"

    def run(self, arguments: argparse.Namespace) -> int:
        """Converts, with progress on stderr."""
        from llama4_core.checkpoints.convert import convert

        shown = _Progress()
        convert(
            arguments.source,
            arguments.target,
            arguments.format,
            shard_bytes=arguments.shard_mib * 1024**2,
            progress=shown,
        )
        shown.end()
        print(f"{arguments.target}: {shown.total / 1e6:,.1f} MB, format {arguments.format}")
        return 0


class _Progress:
    """A line that is rewritten at each percent, on terminals only."""

    def __init__(self) -> None:
        self.total = 0
        self._percent = -1

    def __call__(self, done: int, total: int) -> None:
        self.total = total
        percent = 100 * done // max(total, 1)
        if percent > self._percent and sys.stderr.isatty():
            bar = "#" * (percent // 4)
            print(f"\r[{bar:25}] {percent:3d} % of {total / 1e6:,.1f} MB", end="", file=sys.stderr)
        self._percent = percent

    def end(self) -> None:
        """Leaves the line."""
        if sys.stderr.isatty():
            print(file=sys.stderr)
