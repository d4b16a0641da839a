"""Puts what was measured, and what training took, into the model card of llama4-tiny.

``python recipes/tiny/card.py`` renders ``figures.json`` and ``training.json`` of the package's data
into the marked parts of its README; ``--check`` only says whether they are there as they should be.
``--runs build/tiny/1-recall build/tiny/2-pictures ...`` first writes ``training.json`` from the
logs of the runs that the weights come from, in order.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llama4_core.errors import CheckpointError, Llama4Error
from llama4_train.checkpoints.folders import write_text
from llama4_train.recipe import Recipe
from llama4_train.trackers.carbon import read_carbon

PACKAGE = Path(__file__).resolve().parent.parent.parent / "packages" / "llama4-tiny"
DATA = PACKAGE / "src" / "llama4_tiny" / "data"
CARD = PACKAGE / "README.md"

ASKED = {
    "passkey-1x": "one of 4 keys, text as long as in training",
    "passkey-4x": "one of 4 keys, 4 times as long",
    "passkey-16x": "one of 4 keys, 16 times as long",
    "passkey-64x": "one of 4 keys, 64 times as long",
    "scenes-1": "picture of one object",
    "scenes-1-new-pairs": "one object of a colour and shape never seen together",
    "scenes-4": "picture of 1 to 4 objects",
    "scenes-4-new-pairs": "1 to 4 objects of colours and shapes never seen together",
    "films": "film of a moving shape",
    "arithmetic-sums": "+ and - of 1 and 2 digits",
    "arithmetic-products": "x of 1 and 2 digits",
    "arithmetic": "+, - and x of 1 and 2 digits",
    "languages": "sentences in twelve languages",
    "tools": "tools",
}
"""Label of a task -> what it asks, for people."""

WORDS = {
    "box": "box, shares more than half",
    "end": "position at the end",
    "call": "the right call",
    "result": "what it says of the result",
    "arithmetic-1": "1 digit",
    "arithmetic-2": "2 digits",
}


def main(words: Sequence[str]) -> int:
    """Renders; 1 where ``--check`` finds another text, 2 with one line where it cannot be done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, nargs="+", default=[], help="folders, in order")
    parser.add_argument("--device", default="", help="that the runs ran on, in words")
    parser.add_argument(
        "--watts", type=float, help="drawn by it, about, where the energy was not measured"
    )
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--card", type=Path, default=CARD)
    parser.add_argument("--data", type=Path, default=DATA)
    arguments = parser.parse_args(words)
    try:
        if arguments.runs:
            stages = [stage(run, arguments.watts) for run in arguments.runs]
            found = {"device": arguments.device, "watts": arguments.watts, "stages": stages}
            write_text(arguments.data / "training.json", json.dumps(found, indent=1) + "\n")
        old = arguments.card.read_text(encoding="utf-8")
        new = rendered(old, arguments.data)
        if not arguments.check:
            write_text(arguments.card, new)
    except (Llama4Error, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if arguments.check and old != new:
        print(
            f"{arguments.card}: does not say what {arguments.data} does; run recipes/tiny/card.py"
        )
        return 1
    return 0


def rendered(card: str, data: Path) -> str:
    """The card with its marked parts made anew.

    Raises:
        CheckpointError: a file of the data cannot be read, or the card has no such part.
    """
    for part, table in (("figures", figures), ("training", training)):
        begin, end = f"<!-- {part} -->\n", f"<!-- end of {part} -->"
        head, found, rest = card.partition(begin)
        _, closed, tail = rest.partition(end)
        if not found or not closed:
            raise CheckpointError(f"the card has no part between {begin.strip()} and {end}")
        card = f"{head}{begin}\n{table(_json(data / f'{part}.json'))}\n{end}{tail}"
    return card


def figures(found: Mapping[str, Any] | None) -> str:
    """The table of what was measured."""
    if found is None:
        return "Not measured yet.\n"
    how = f"In the {found['form']} format, greedy, weights run in {found['dtype']}"
    lines = [
        f"{how}, seed {found['seed']} of the held-out split.",
        "",
        "| asked | of | right | 95 % interval | questions | chance | majority |",
        "|---|---|---|---|---|---|---|",
    ]
    for task in found["tasks"]:
        for one in task["figures"]:
            if shown(task["label"], one):
                lines.append(row(task["label"], one))
    return "\n".join(lines) + "\n"


def shown(label: str, figure: Mapping[str, Any]) -> bool:
    """All but scores, and means over kinds of questions that have little in common."""
    whole = figure["name"] == "all" and not label.startswith("arithmetic")
    return figure["metric"] == "accuracy" and not whole


def row(label: str, figure: Mapping[str, Any]) -> str:
    """One line of the table."""
    name = WORDS.get(figure["name"], figure["name"])
    if label.startswith("passkey"):
        tokens, _, temperature = figure["name"].partition("@")
        name = f"{int(tokens):,} tokens" + (", no temperature" if temperature else "")
    cells = (
        ASKED.get(label, label),
        name,
        f"{figure['value']:.3f}",
        f"{figure['low']:.3f} to {figure['high']:.3f}",
        f"{figure['count']}",
        *(f"{figure[rate]:.3f}" if rate in figure else "" for rate in ("chance", "majority")),
    )
    return f"| {' | '.join(cells)} |"


def training(found: Mapping[str, Any] | None) -> str:
    """The table of what training took."""
    if found is None:
        return "Not written down yet.\n"
    lines = [
        "| stage | what it learns | steps | tokens | hours | kWh |",
        "|---|---|---|---|---|---|",
    ]
    stages = found["stages"]
    total = {
        key: sum(one[key] for one in stages if one[key] is not None)
        for key in ("steps", "tokens", "seconds", "kwh")
    }
    for one in [*stages, {"name": "all", "description": "", **total}]:
        kwh = "not measured" if one["kwh"] is None else f"{one['kwh']:.3f}"
        lines.append(
            f"| {one['name']} | {one['description']} | {one['steps']:,} | {one['tokens']:,} | "
            f"{one['seconds'] / 3600:.2f} | {kwh} |"
        )
    if found["device"]:
        lines += ["", f"On {found['device']}."]
    if found["watts"] is not None:
        lines += ["", f"Energy that was not measured is taken as {found['watts']:g} W."]
    return "\n".join(lines) + "\n"


def stage(run: Path, watts: float | None) -> dict[str, Any]:
    """What one run took, by its log.

    Raises:
        CheckpointError: it has no log that can be read.
    """
    recipe = Recipe.read(run / "recipe.toml")
    try:
        text = (run / "log.jsonl").read_text(encoding="utf-8")
        lines = [json.loads(line) for line in text.splitlines()]
        steps = [line for line in lines if "tokens" in line and "seconds" in line]
        # A step that was taken again after a stop counts once in what was learnt, and as often as
        # it was taken in what it cost.
        tokens = sum({line["step"]: line["tokens"] for line in steps}.values())
        seconds = sum(line["seconds"] for line in steps)
        count = len({line["step"] for line in steps})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{run}: has no log of a run ({type(error).__name__}: {error}); say the folder that "
            "`llama4 train --out` wrote"
        ) from error
    measured = read_carbon(run)
    kwh = None if watts is None else seconds * watts / 3.6e6
    return {
        "name": recipe.name,
        "description": recipe.description,
        "steps": count,
        "tokens": tokens,
        "seconds": round(seconds, 1),
        "kwh": kwh if measured is None else measured["energy_kwh"],
        "measured": measured is not None,
    }


def _json(file: Path) -> Any:
    if not file.is_file():
        return None
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{file}: is no JSON ({error}); measure again") from error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
