"""``llama4 train ablate FILE``: compares recipes over seeds."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from llama4_core.cli.output import (
    add_json_option,
    add_plugin_option,
    catalogue_of,
    print_json,
    table,
)
from llama4_train.evaluation.results import number

if TYPE_CHECKING:
    from llama4_train.ablation.runs import Outcome


class Command:
    """Runs arms and seeds of a plan, and writes one page about them."""

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Adds the options."""
        parser.add_argument(
            "file", help="a TOML file: recipe, seeds, [arms.NAME] with what each arm changes"
        )
        parser.add_argument(
            "--out",
            required=True,
            type=Path,
            metavar="FOLDER",
            help="for all runs, card.md and results.json; the same command again goes on where it "
            "was stopped",
        )
        parser.add_argument(
            "--check", action="store_true", help="only check the plan and compare active FLOPs"
        )
        add_plugin_option(parser)
        add_json_option(parser)
        parser.epilog = (
            "example:\n"
            "  llama4 train ablate balance.toml --out runs/balance\n\n"
            "balance.toml:\n"
            '  recipe = "nano.toml"\n'
            "  seeds = [0, 1, 2]\n"
            '  control = "plain"\n'
            "  [arms.plain]\n"
            "  [arms.balanced]\n"
            "  objective = { settings = { balance = 0.01 } }"
        )

    def run(self, arguments: argparse.Namespace) -> int:
        """Checks, trains, compares, prints."""
        from llama4_train.ablation.card import write_card
        from llama4_train.ablation.plan import Plan
        from llama4_train.ablation.runs import ablate, check_flops, flops_of
        from llama4_train.checkpoints.folders import disk, write_text

        known = catalogue_of(arguments)
        plan = Plan.read(arguments.file)
        flops = flops_of(plan, known)
        check_flops(flops)
        if arguments.check:
            if arguments.json:
                print_json({"name": plan.name, "flops_per_token": flops})
            else:
                print(table([("arm", "active FLOPs per token"), *_shown(flops)]))
            return 0
        shown = sys.stderr.isatty()

        def say(arm: str, seed: int, step: int, steps: int) -> None:
            last = step == steps - 1
            if shown:
                end = "\n" if last else ""
                text = f"\r{arm}, seed {seed}: step {step + 1}/{steps}\x1b[K"
                print(text, end=end, file=sys.stderr, flush=True)
            elif last:
                print(f"{arm}, seed {seed}: {steps} steps", file=sys.stderr)

        outcome = ablate(plan, arguments.out, known=known, flops=flops, say=say)
        page = write_card(outcome, arguments.out)
        with disk(arguments.out, "written"):
            write_text(arguments.out / "results.json", json.dumps(outcome.plain(), indent=2) + "\n")
        if arguments.json:
            print_json(outcome.plain())
        else:
            _print(outcome)
            print(page)
        return 0


def _shown(flops: dict[str, float]) -> list[tuple[str, str]]:
    return [(arm, f"{value:.4g}") for arm, value in flops.items()]


def _print(outcome: Outcome) -> None:
    plan = outcome.plan
    rows = [("arm", f"less {plan.control}", f"{plan.confidence:.0%} interval", "verdict")]
    for one in outcome.differences:
        between = f"{number(one.low)} to {number(one.high)}"
        rows.append((one.arm, number(one.mean), between, one.verdict(plan.better)))
    print(f"{plan.metric}, {plan.better} is better, {len(plan.seeds)} seeds")
    print(table(rows))
