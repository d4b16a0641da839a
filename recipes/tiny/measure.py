"""Measures llama4-tiny by the tasks of ``measure.toml``; what is measured is not measured again.

``python recipes/tiny/measure.py`` measures the weights of the package, in the chat format, and
writes ``figures.json`` beside them; ``python recipes/tiny/card.py`` then puts the tables into the
model card. The folder ``--work`` keeps each task's result as it comes, so that a stopped
measurement goes on. A run of ``llama4 train`` can be measured as well: say its folder.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import llama4_core as l4
from llama4_core.cli.output import table
from llama4_core.errors import Llama4Error
from llama4_train.checkpoints.folders import write_text
from llama4_train.checkpoints.runs import is_run, model_from_run
from llama4_train.errors import EvaluationError
from llama4_train.evaluation.results import Result, rows
from llama4_train.evaluation.run import evaluations, fingerprint
from llama4_train.evaluation.tasks import Named, tasks_of
from llama4_train.recipe import Slot
from llama4_train.worlds.library import fingerprint as library

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
DATA = ROOT / "packages" / "llama4-tiny" / "src" / "llama4_tiny" / "data"
USUAL = 300
"""Questions of each kind that the counts in the file stand for."""

LENGTH = 256
"""Tokens of the texts that passkeys are learnt from: recipes/tiny/*.toml, data.length."""


def main(words: Sequence[str]) -> int:
    """Measures; 2 with one line where that cannot be done."""
    arguments = _parser().parse_args(words)
    try:
        found = measure(arguments)
    except Llama4Error as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if arguments.json:
        print(json.dumps(found, indent=2))
    else:
        print(table(rows([Result.of(one) for one in found["tasks"]])))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="tiny", help="name, folder or run (tiny)")
    parser.add_argument("--tasks", type=Path, default=HERE / "measure.toml", metavar="FILE")
    parser.add_argument("--form", choices=("chat", "pack"), default="chat")
    parser.add_argument("--questions", type=int, default=USUAL, help="of each kind (300)")
    parser.add_argument("--only", action="append", default=[], help="a label; repeatable")
    parser.add_argument("--length", type=int, default=LENGTH, help="of passkeys at 1x (256)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--work", type=Path, help="folder of results (build/tiny-figures/...)")
    parser.add_argument("--out", type=Path, help="default: figures.json beside the weights")
    parser.add_argument("--json", action="store_true")
    return parser


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """What is written, and is returned.

    Raises:
        EvaluationError: a setting makes no sense, or results of something else are in the way.
        CheckpointError: there is no such model.
    """
    if arguments.questions < 1:
        raise EvaluationError(f"--questions is {arguments.questions}; expected at least 1")
    slots = read(arguments.tasks, arguments.form, arguments.questions, arguments.length)
    tasks = chosen(tasks_of(seeded(slots, arguments.seed)), arguments.only)
    if is_run(arguments.model):
        model = model_from_run(arguments.model, arguments.dtype)
    else:
        model = l4.load(arguments.model, dtype=arguments.dtype)
    identity = fingerprint(model)
    work = arguments.work or ROOT / "build" / "tiny-figures" / f"{identity[:12]}-{arguments.form}"
    results = []
    for result in evaluations(model, tasks, folder=work, length=arguments.length):
        results.append(result)
        print(f"{result.label}: done ({len(results)}/{len(tasks)})", file=sys.stderr, flush=True)
    found = {
        "weights": weights(model.folder),
        "model": identity,
        "dtype": str(model.dtype).removeprefix("torch."),
        "form": arguments.form,
        "questions": arguments.questions,
        "seed": arguments.seed,
        "length": arguments.length,
        "torch": torch.__version__.partition("+")[0],
        "python": platform.python_version(),
        "filler": library(),
        "tasks": [result.plain() for result in results],
    }
    out = arguments.out or (DATA / "figures.json" if model.folder == DATA else None)
    if out is not None and not arguments.only:
        write_text(out, json.dumps(found, indent=1) + "\n")
    return found


def read(file: Path, form: str, questions: int, length: int) -> list[Slot]:
    """The tasks of a file.

    Args:
        file: TOML with ``[[tasks]]`` of a name and settings.
        form: of the worlds: "chat" or "pack".
        questions: counts are scaled by this over :data:`USUAL`.
        length: of passkeys at 1x.

    Raises:
        EvaluationError: the file cannot be read so.
    """
    try:
        listed = tomllib.loads(file.read_text(encoding="utf-8"))["tasks"]
        return [_slot(one["name"], one["settings"], form, questions, length) for one in listed]
    except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise EvaluationError(
            f"{file}: cannot be read as [[tasks]] with name and settings "
            f"({type(error).__name__}: {error})"
        ) from error


def _slot(name: str, settings: Mapping[str, Any], form: str, questions: int, length: int) -> Slot:
    count = max(1, settings["count"] * questions // USUAL)
    if name == "passkey":
        return Slot(name, {**settings, "count": count, "form": form, "length": length})
    inner = {**settings.get("settings", {}), "form": form}
    return Slot(name, {**settings, "count": count, "settings": inner})


def seeded(slots: Sequence[Slot], seed: int) -> list[Slot]:
    """The tasks with one seed; 0 is what they have anyway."""
    return [Slot(one.name, {**one.settings, "seed": seed}) for one in slots]


def chosen(tasks: tuple[Named, ...], labels: Sequence[str]) -> tuple[Named, ...]:
    """The tasks of these labels; all without any.

    Raises:
        EvaluationError: there is no such label.
    """
    known = [one.label for one in tasks]
    unknown = [label for label in labels if label not in known]
    if unknown:
        raise EvaluationError(f"no task is called {unknown[0]!r}; there are {', '.join(known)}")
    return tuple(one for one in tasks if not labels or one.label in labels)


def weights(folder: Path | None) -> str:
    """Sha256 of the safetensors of a folder, which ties figures to weights; "" without any."""
    files = sorted(folder.glob("*.safetensors")) if folder is not None else []
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest() if files else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
