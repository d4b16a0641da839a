"""``llama4 extract IN --part PART OUT``: a part of a checkpoint as a folder of its own."""

from __future__ import annotations

import argparse
from pathlib import Path

from llama4_core.cli.progress import Progress, add_source_options, add_target_options
from llama4_core.errors import CheckpointError
from llama4_core.hub.resolve import cached
from llama4_core.hub.settings import is_address, repo_of


class Command:
    """Extracts a part."""

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Adds the options."""
        parser.add_argument(
            "source",
            help="folder with a checkpoint in any known format; or a repository "
            "org/name[@revision] or http address, of which only the bytes of the part are read",
        )
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

        source: str | Path = arguments.source
        address = is_address(arguments.source)
        repo = None if address or Path(source).expanduser().exists() else repo_of(arguments.source)
        pickles = arguments.source_format == "meta"
        if repo is not None:
            source = cached(repo, pickles=pickles) or source
        elsewhere = address or (repo is not None and source == arguments.source)
        if elsewhere and arguments.source_format is not None:
            raise CheckpointError(
                f"{arguments.source}: is read by range, in the format that its description says; "
                "leave --from out, or fetch the folder first"
            )
        with Progress() as shown:
            if elsewhere:
                from llama4_core.hub.extract import extract_remote
                from llama4_core.hub.remote import RemoteCheckpoint

                extract_remote(
                    RemoteCheckpoint(arguments.source, max_positions=arguments.max_positions),
                    arguments.target,
                    arguments.part,
                    arguments.format,
                    shard_bytes=arguments.shard_mib * 1024**2,
                    progress=shown,
                )
            else:
                extract(
                    source,
                    arguments.target,
                    arguments.part,
                    arguments.format,
                    source_format=arguments.source_format,
                    max_positions=arguments.max_positions,
                    shard_bytes=arguments.shard_mib * 1024**2,
                    progress=shown,
                )
        print(f"{arguments.target}: {shown.total / 1e6:,.1f} MB, {arguments.part}")
        return 0
