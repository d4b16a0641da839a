"""``llama4 evaluate MODEL --task NAME``: measures a model."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama4_core.cli.loading import add_model_options, load_model
from llama4_core.cli.output import add_json_option, overrides_of, print_json, table
from llama4_train.errors import EvaluationError
from llama4_train.recipe import Slot

if TYPE_CHECKING:
    from llama4_core.model.transformer import Transformer
    from llama4_train.evaluation.results import Result
    from llama4_train.evaluation.tasks import Named


class Command:
    """Runs tasks on a model and prints their figures."""

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Adds the options."""
        add_model_options(parser)
        _optional_model(parser)
        parser.add_argument(
            "--task",
            action="append",
            default=[],
            metavar="NAME[:KEY=VALUE,...]",
            dest="tasks",
            help="what is measured, with settings; repeatable",
        )
        parser.add_argument("--list", action="store_true", help="list the tasks and their settings")
        parser.add_argument(
            "--seed", type=int, help="of all tasks that draw and do not say their own (default 0)"
        )
        parser.add_argument(
            "--out",
            type=Path,
            metavar="FOLDER",
            help="write each result there as it comes; results that are there are not measured "
            "again, so that a stopped evaluation goes on",
        )
        parser.add_argument(
            "-o",
            "--plot",
            type=Path,
            metavar="FILE",
            help="draw passkey accuracy over the length (.png, .svg, .pdf)",
        )
        add_json_option(parser)
        parser.epilog = (
            "examples:\n"
            "  llama4 evaluate runs/a --task world:world=arithmetic,count=200\n"
            "  llama4 evaluate ./tiny --task 'perplexity:source=text,settings.files=[\"a.txt\"]'\n"
            "  llama4 evaluate runs/a --task 'passkey:length=256,times=[1,4,16,64],"
            'temperatures=["off","0.1/256"]\' --out results -o lengths.png\n'
            "  llama4 evaluate --list"
        )

    def run(self, arguments: argparse.Namespace) -> int:
        """Checks the tasks, loads the model, measures, prints."""
        from llama4_train.evaluation.tasks import listing, parse_task, tasks_of

        if arguments.list:
            found = listing()
            print_json(found) if arguments.json else _print_listing(found)
            return 0
        if arguments.model is None or not arguments.tasks:
            raise EvaluationError(
                f"got {'no model' if arguments.model is None else 'no task'}; expected a model and "
                "--task NAME: llama4 evaluate --list shows the tasks"
            )
        if arguments.seed is not None and arguments.seed < 0:
            raise EvaluationError(f"--seed is {arguments.seed}; expected a number of at least 0")
        tasks = tasks_of([_seeded(parse_task(text), arguments.seed) for text in arguments.tasks])
        _check_plot(arguments.plot, tasks)
        model, length = load_measured(arguments)
        results = _measure(model, tasks, arguments, length)
        if arguments.plot is not None:
            from llama4_train.evaluation.plot import write

            write(results, arguments.plot, model.spec.name)
        if arguments.json:
            print_json(
                {"model": arguments.model, "results": [result.plain() for result in results]}
            )
            return 0
        from llama4_train.evaluation.results import rows

        print(table(rows(results)))
        return 0


def load_measured(arguments: argparse.Namespace) -> tuple[Transformer, int | None]:
    """The model, and how long the texts of its training were where it lies in a run.

    Raises:
        EvaluationError: an option does not fit a run.
    """
    from llama4_train.checkpoints.runs import RECIPE, is_run, model_from_run
    from llama4_train.recipe import Recipe

    if not is_run(arguments.model):
        return load_model(arguments), None
    for option in ("random", "revision", "source_format"):
        if getattr(arguments, option) is not None:
            name = {"source_format": "from"}.get(option, option)
            raise EvaluationError(
                f"{arguments.model} is a run of llama4 train, for which --{name} means nothing; "
                "leave it out"
            )
    if arguments.plugin:
        raise EvaluationError(
            f"{arguments.model} is a run of llama4 train, which --plugin cannot be used with; "
            "export it first (llama4_train.checkpoints.export)"
        )
    model = model_from_run(arguments.model, arguments.dtype, overrides_of(arguments))
    folder = Path(arguments.model).expanduser()
    places = [folder / RECIPE, folder.absolute().parent.parent / RECIPE]
    recipe = next((place for place in places if place.is_file()), None)
    length = None if recipe is None else Recipe.read(recipe).data.length
    return model.to(arguments.device), length


def _measure(
    model: Any, tasks: tuple[Named, ...], arguments: argparse.Namespace, length: int | None
) -> list[Result]:
    from llama4_train.evaluation.run import evaluations

    shown = sys.stderr.isatty()

    def progress(label: str, done: int, total: int) -> None:
        if shown:
            print(f"\r{label} {done}/{total}\x1b[K", end="", file=sys.stderr, flush=True)

    found = []
    for result in evaluations(
        model,
        tasks,
        folder=arguments.out,
        known=model.catalogue,
        length=length,
        progress=progress,
    ):
        found.append(result)
        start = "\r" if shown else ""
        end = "\x1b[K" if shown else ""
        print(f"{start}{result.label}: done ({len(found)}/{len(tasks)}){end}", file=sys.stderr)
    return found


def _optional_model(parser: argparse.ArgumentParser) -> None:
    """``--list`` needs none."""
    for action in parser._actions:
        if action.dest == "model":
            action.nargs = "?"
            action.required = False
            action.help = f"the folder of a run, {action.help}"


def _seeded(slot: Slot, seed: int | None) -> Slot:
    """The task with the common seed, where it draws and says none."""
    from dataclasses import fields

    from llama4_train.evaluation.tasks import task_class

    draws = any(field.name == "seed" for field in fields(task_class(slot.name)))
    if seed is None or not draws or "seed" in slot.settings:
        return slot
    return Slot(slot.name, {**slot.settings, "seed": seed})


def _check_plot(path: Path | None, tasks: tuple[Named, ...]) -> None:
    """Says before anything is measured what could not be drawn afterwards."""
    if path is None:
        return
    from llama4_core.show.drawing import blank_figure, check_path

    check_path(path)
    if not any(one.name == "passkey" for one in tasks):
        raise EvaluationError(
            f"--plot {path} draws accuracy over length, which no task measures; add --task passkey"
        )
    blank_figure(1, 1)


def _print_listing(found: list[dict[str, Any]]) -> None:
    for one in found:
        print(f"{one['task']}: {one['summary']}")
        settings = [
            (name, "required" if default is None else repr(default))
            for name, default in one["settings"].items()
        ]
        print(table(settings))
