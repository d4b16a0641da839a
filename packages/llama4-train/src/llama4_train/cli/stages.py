"""``llama4 train stages FILE...``: trains in stages."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from llama4_core.cli.output import add_json_option, add_plugin_option, catalogue_of, print_json


class Command:
    """Runs stages one after the other, each from the weights of the one before."""

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Adds the options."""
        parser.add_argument(
            "files", nargs="+", metavar="FILE", help="recipes in order, or one file of stages"
        )
        parser.add_argument(
            "--out",
            required=True,
            type=Path,
            metavar="FOLDER",
            help="for the runs stage-1, stage-2, ...; the same command again goes on where it was "
            "stopped",
        )
        add_plugin_option(parser)
        add_json_option(parser)
        parser.epilog = (
            "example:\n"
            "  llama4 train stages long.toml --out runs/long\n\n"
            "long.toml:\n"
            "  [[stages]]\n"
            '  recipe = "nano.toml"\n'
            "  [[stages]]\n"
            "  chunk = 512\n"
            "  floor = 1024\n"
            "  max_positions = 16384\n"
            '  set = { steps = 200, "data.length" = 1024 }'
        )

    def run(self, arguments: argparse.Namespace) -> int:
        """Trains, and prints the folders."""
        from llama4_train.stages import read_stages, run_stages

        stages = read_stages(arguments.files)
        shown = sys.stderr.isatty()

        def said(number: int, step: Any) -> None:
            steps = stages[number - 1].recipe.steps
            last = step.number == steps - 1
            text = f"stage {number}: step {step.number + 1}/{steps}, loss {step.loss:.4f}"
            if shown:
                print(f"\r{text}\x1b[K", end="\n" if last else "", file=sys.stderr, flush=True)
            elif last:
                print(text, file=sys.stderr)

        runs = run_stages(stages, arguments.out, known=catalogue_of(arguments), said=said)
        if arguments.json:
            print_json({"runs": [str(run) for run in runs]})
        else:
            print("\n".join(map(str, runs)))
        return 0
