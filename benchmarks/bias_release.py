"""What a balancing bias decides: tokens that go elsewhere without it, and the loss.

    python benchmarks/bias_release.py MODEL [--released MODEL] [--recipe recipe.toml]
                                      [--batches 16] [--json results.json]

MODEL is the folder of a run, of a checkpoint or of an export (native, else the bias is gone). It is
measured as it is, and with its bias dropped at once. ``--released`` is a model whose bias was let
go of in training: a later checkpoint of the same run, a run that went on from it, or an export of
one. The documents are those of the recipe (that of the run, unless another is said), drawn from the
held-out split of its worlds; every model reads the same.

Shares of tokens, by layer: ``alone``, that would visit other experts if this layer alone lost its
bias; ``dropped``, that do visit others when all layers have lost it, so that their inputs differ
too; ``released``, that would visit others if the released model lost what bias is left: 0 once it
is 0; ``moved``, that the released model sends elsewhere than the first, training in between.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from _measure import write
from torch import Tensor

import llama4_core as l4
from llama4_core.plugins.catalogue import catalogue
from llama4_moe.routers.selection import largest
from llama4_train.checkpoints.runs import is_run, model_from_run
from llama4_train.objectives.next_token import NextToken
from llama4_train.protocols import Batch, StepFacts
from llama4_train.recipe import Recipe
from llama4_train.trainer.parts import data_of


@dataclass
class Read:
    """What a model made of the documents.

    Attributes:
        losses: nats per target, of each batch.
        experts: layer -> ids ``[N, K]`` that its tokens visited, in increasing order.
        plain: layer -> the ids that the same logits choose without a bias.
    """

    losses: list[float]
    experts: dict[int, Tensor]
    plain: dict[int, Tensor]


def model_of(folder: Path) -> Any:
    return (model_from_run if is_run(folder) else l4.load)(folder, dtype="float32").eval()


def recipe_of(model: Path, given: Path | None) -> Recipe:
    """The recipe, its worlds turned to what no run learns from."""
    places = [given] if given else [model / "recipe.toml", model.parent.parent / "recipe.toml"]
    found = [place for place in places if place.is_file()]
    if not found:
        sys.exit(f"{model}: holds no recipe.toml; say one with --recipe")
    recipe = Recipe.read(found[0])
    worlds = [i for i, one in enumerate(recipe.data.sources) if one.name == "worlds"]
    if len(worlds) != len(recipe.data.sources):
        sys.exit(f"{found[0]}: has sources beside worlds, which have nothing held out")
    return recipe.override({f"data.sources.{i}.settings.split": "held-out" for i in worlds})


def biases(model: Any) -> dict[int, Tensor]:
    routers = {
        i: getattr(layer.feed_forward, "router", None) for i, layer in enumerate(model.layers)
    }
    return {i: router.bias for i, router in routers.items() if hasattr(router, "bias")}


@torch.no_grad()
def without(folder: Path) -> Any:
    """The model, all its biases 0."""
    model = model_of(folder)
    for bias in biases(model).values():
        bias.zero_()
    return model


@torch.no_grad()
def read(model: Any, batches: Sequence[Batch]) -> Read:
    objective, losses = NextToken(), []
    experts: dict[int, list[Tensor]] = {}
    plain: dict[int, list[Tensor]] = {}
    for batch in batches:
        loss = objective(model, batch, StepFacts(0, batch.weight, len(batch.tokens)))
        losses.append(float(loss.parts["nll"]))
        for layer, routing in enumerate(loss.routings):
            if routing is not None and routing.logits is not None:
                ids = largest(routing.logits, routing.experts.shape[1])
                experts.setdefault(layer, []).append(routing.experts.sort(-1).values)
                plain.setdefault(layer, []).append(ids.sort(-1).values)
    joined = [{layer: torch.cat(ids) for layer, ids in one.items()} for one in (experts, plain)]
    return Read(losses, *joined)


def share(one: Tensor, other: Tensor) -> float:
    """Of the tokens whose experts differ."""
    return float((one != other).any(-1).float().mean())


def table(first: Read, dropped: Read, released: Read | None, sizes: dict[int, Tensor]) -> list[Any]:
    rows = []
    for layer, ids in first.experts.items():
        row = {
            "layer": layer,
            "largest bias": float(sizes[layer].abs().max()) if layer in sizes else 0.0,
            "alone": share(ids, first.plain[layer]),
            "dropped": share(ids, dropped.experts[layer]),
        }
        if released is not None:
            row["released"] = share(released.experts[layer], released.plain[layer])
            row["moved"] = share(ids, released.experts[layer])
        rows.append(row)
    return rows


def losses_of(name: str, one: Read, first: Read) -> dict[str, Any]:
    """Mean over batches, and the paired difference with its standard error."""
    apart = [a - b for a, b in zip(one.losses, first.losses, strict=True)]
    error = stdev(apart) / math.sqrt(len(apart)) if len(apart) > 1 else math.nan
    return {"model": name, "loss": fmean(one.losses), "more": fmean(apart), "error": error}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--released", type=Path)
    parser.add_argument("--recipe", type=Path)
    parser.add_argument("--batches", type=int, default=16)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    model = model_of(asked.model)
    if not any(bool(bias.any()) for bias in biases(model).values()):
        sys.exit(f"{asked.model}: no router has a bias that is not 0; expected a balanced model")
    recipe = recipe_of(asked.model, asked.recipe)
    pipeline = data_of(recipe.data, model, recipe.seed, catalogue())
    batches = [pipeline.batch() for _ in range(asked.batches)]

    first, dropped = read(model, batches), read(without(asked.model), batches)
    later = read(model_of(asked.released), batches) if asked.released else None
    rows = table(first, dropped, later, biases(model))
    named = {"with bias": first, "dropped at once": dropped}
    if later is not None:
        named["released"] = later
    results = [losses_of(name, one, first) for name, one in named.items()]

    print(f"{sum(len(batch.tokens) for batch in batches):,} tokens; tokens that go elsewhere:")
    names = [name for name in rows[0] if name not in ("layer", "largest bias")]
    print("layer  largest bias" + "".join(f"{name:>10}" for name in names))
    for row in rows:
        shares = "".join(f"{row[name]:10.2%}" for name in names)
        print(f"{row['layer']:5}  {row['largest bias']:12.4f}{shares}")
    print("\nmodel            nats per target   more than with bias")
    for one in results:
        print(f"{one['model']:15}  {one['loss']:15.5f}   {one['more']:+.5f} +- {one['error']:.5f}")
    write(asked.json, vars(asked), {}, [*rows, *results])


if __name__ == "__main__":
    main()
