"""``llama4 train RECIPE``: runs a recipe, or goes on with a run."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from llama4_core.cli.output import add_plugin_option
from llama4_train.errors import RecipeError
from llama4_train.recipe import Recipe, Slot, parse_change

if TYPE_CHECKING:
    from llama4_train.trainer.step import Step


class Command:
    """Trains."""

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Adds the options."""
        parser.add_argument("recipe", type=Path, help="a TOML file")
        parser.add_argument(
            "--set",
            action="append",
            default=[],
            metavar="PATH=VALUE",
            dest="changes",
            help="change a value of the recipe, e.g. optimizer.settings.lr=3e-4; repeatable",
        )
        parser.add_argument(
            "-o", "--out", type=Path, metavar="DIR", help="new folder of checkpoints and logs"
        )
        parser.add_argument(
            "--resume", type=Path, metavar="DIR", help="go on with the run in this folder, exactly"
        )
        parser.add_argument("--json", action="store_true", help="one JSON object per step")
        parser.add_argument(
            "--dry-run", action="store_true", help="put everything together, take no step"
        )
        add_plugin_option(parser)
        parser.epilog = (
            "examples:\n"
            "  llama4 train recipes/nano.toml --out runs/nano\n"
            "  llama4 train recipes/nano.toml --resume runs/nano --set steps=2000"
        )

    def run(self, arguments: argparse.Namespace) -> int:
        """Trains until the last step; Ctrl-C leaves what the latest checkpoint holds."""
        recipe = read(arguments.recipe, arguments.changes)
        if arguments.out is not None and arguments.resume is not None:
            raise RecipeError("got --out and --resume; expected a new folder or an old one")
        from llama4_train.trainer.denormals import flushed_denormals

        # Before torch starts threads, so that all of them flush.
        with flushed_denormals():
            return self._run(arguments, recipe)

    def _run(self, arguments: argparse.Namespace, recipe: Recipe) -> int:
        from llama4_train.trainer.loop import Trainer

        folder = arguments.out or arguments.resume
        shown = () if arguments.json else (Slot("progress"),)
        trainer = Trainer.of(
            recipe,
            folder=folder,
            resume=arguments.resume is not None,
            also=shown,
            plugins=arguments.plugin,
        )
        if arguments.dry_run:
            count = sum(one.value.numel() for one in trainer.parts.trained)
            print(f"{recipe.name}: {recipe.steps} steps, {count / 1e6:.3f}M trained parameters")
            return 0
        for step in trainer:
            if arguments.json:
                print(_as_json(step), flush=True)
        if folder is None:
            print("nothing was kept: give the run a folder with --out", file=sys.stderr)
        return 0


def read(path: Path, changes: list[str]) -> Recipe:
    """A recipe from a file and from ``--set`` options.

    Raises:
        RecipeError: the file or a change cannot be used.
    """
    recipe = Recipe.read(path)
    return recipe.override(dict(map(parse_change, changes))) if changes else recipe


def _as_json(step: Step) -> str:
    from llama4_train.trackers.values import values_of

    return json.dumps({"step": step.number, **values_of(step)})
