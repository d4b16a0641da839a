"""Gradients of a recipe's batches with and without numbers below 2^-126.

    python benchmarks/denormals.py RECIPE [--plugin FILE] [--set model.start=FOLDER ...]
                                   [--rounds 7] [--json results.json]

CPU time of one thread; both sides run in turn in one process on the same batches, forward and
backward of the recipe's objective, without the optimizer. The figure is the median ratio of
neighbouring runs: above 1, counting such numbers as 0 is faster. Weights matter: only a trained
model is sure enough of something to have such numbers.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
from contextlib import nullcontext
from pathlib import Path

from _measure import paired, probes, seconds, write

from llama4_train.protocols import Batch, StepFacts
from llama4_train.recipe import Recipe, parse_change
from llama4_train.trainer.denormals import flushed_denormals
from llama4_train.trainer.parts import Parts


def main() -> None:
    """Prints the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--plugin", action="append", default=[])
    parser.add_argument("--set", action="append", default=[], dest="changes")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    recipe = Recipe.read(arguments.recipe)
    recipe = recipe.override(dict(map(parse_change, arguments.changes)) | {"trackers": []})
    parts = Parts.of(recipe, plugins=arguments.plugin)
    parts.model.train()

    def gradients(batch: Batch) -> None:
        facts = StepFacts(0, batch.weight, len(batch.tokens), recipe.seed)
        parts.objective(parts.model, batch, facts).total.backward()
        parts.optimizer.zero_grad(set_to_none=True)

    spent: dict[str, list[float]] = {"flushed": [], "as they are": []}
    for number in range(arguments.rounds + 1):
        batch = parts.data.batch()
        for side, around in (("flushed", flushed_denormals), ("as they are", nullcontext)):
            with around():
                used = seconds(lambda batch=batch: gradients(batch))
            if number:  # the first round warms up
                spent[side].append(used)
    found = paired(spent["flushed"], spent["as they are"])
    print(
        f"{recipe.name}: {found['ratio']:.2f}x ({found['lowest']:.2f} to {found['highest']:.2f}), "
        f"{found['ours s']:.3f} s a batch where they count as 0, {found['peer s']:.3f} s where not"
    )
    write(arguments.json, vars(arguments), probes(), [{"recipe": recipe.name, **found}])


if __name__ == "__main__":
    main()
