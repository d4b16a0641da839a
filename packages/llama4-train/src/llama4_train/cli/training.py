"""``llama4 show training``: what a run did, from its log."""

from __future__ import annotations

import argparse
from pathlib import Path

from llama4_core.cli.output import add_json_option, print_json


class Command:
    """Shows the curves of a run."""

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Adds the options."""
        parser.add_argument("folder", type=Path, help="the folder of a run, with its log.jsonl")
        parser.add_argument(
            "-o",
            "--out",
            type=Path,
            metavar="FILE",
            help="draw into FILE (.png, .svg or .pdf) instead",
        )
        add_json_option(parser)
        parser.epilog = (
            "examples:\n  llama4 show training runs/nano\n"
            "  llama4 show training runs/nano -o nano.png --json"
        )

    def run(self, arguments: argparse.Namespace) -> int:
        """Reads the log and shows it."""
        from llama4_core.show.drawing import blank_figure, check_path, save
        from llama4_train.plots import draw, read_training, text

        if arguments.out is not None:
            # What cannot be drawn is said before anything is read.
            check_path(arguments.out)
            blank_figure(1, 1)
        run = read_training(arguments.folder)
        if arguments.out is not None:
            save(draw(run), arguments.out)
        if arguments.json:
            print_json(run.plain())
        elif arguments.out is None:
            print(text(run))
        else:
            print(f"Wrote {arguments.out}")
        return 0
