"""The loop of a run: batches, gradients, a step, and what is written down about it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llama4_core.plugins.catalogue import Catalogue
from llama4_train.protocols import Batch, StepFacts
from llama4_train.recipe import Recipe
from llama4_train.schedules import factor
from llama4_train.trainer.parts import Parts
from llama4_train.trainer.step import Step


class Trainer:
    """A run that is stepped through: ``for step in trainer: ...``.

    Leaving the loop stops the run where it is; iterating again goes on.

    Args:
        parts: model, data, objective, optimizer and the rest, put together from a recipe.

    Attributes:
        recipe: what the run does.
        model: that is trained.
        number: of the next step.
    """

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.recipe: Recipe = parts.recipe
        self.model = parts.model
        self.number = 0

    @classmethod
    def of(cls, recipe: Recipe, **settings: Any) -> Trainer:
        """Puts a run together; see :meth:`llama4_train.trainer.parts.Parts.of`."""
        return cls(Parts.of(recipe, **settings))

    def __iter__(self) -> Iterator[Step]:
        while self.number < self.recipe.steps:
            yield self.step()

    def step(self) -> Step:
        """Takes one step."""
        start = time.perf_counter()
        parts, recipe = self.parts, self.recipe
        self.model.train()
        rate = factor(recipe.schedule, self.number, recipe.steps)
        for group in parts.optimizer.param_groups:
            group["lr"] = group["base_lr"] * rate
        batches = [parts.data.batch() for _ in range(recipe.data.accumulate)]
        facts = StepFacts(
            number=self.number,
            weight=sum(batch.weight for batch in batches),
            tokens=sum(len(batch.tokens) for batch in batches),
            seed=recipe.seed,
        )
        total, values, counts = self._accumulate(batches, facts)
        norm = self._clip()
        parts.optimizer.step()
        parts.optimizer.zero_grad(set_to_none=True)
        parts.balance(counts)
        taken = Step(
            number=self.number,
            loss=total,
            learning_rate=max(group["lr"] for group in parts.optimizer.param_groups),
            gradient_norm=norm,
            tokens=facts.tokens,
            seconds=time.perf_counter() - start,
            parts=values,
        )
        self.number += 1
        return taken

    def _accumulate(
        self, batches: list[Batch], facts: StepFacts
    ) -> tuple[float, Mapping[str, float], list[Tensor | None]]:
        """Gradients of all batches; the loss, its parts, and tokens per expert and layer."""
        total = 0.0
        values: dict[str, float] = {}
        counts: list[Tensor | None] = []
        for batch in batches:
            loss = self.parts.objective(self.model, batch, facts)
            loss.total.backward()
            total += float(loss.total.detach())
            for name, value in loss.parts.items():
                values[name] = values.get(name, 0.0) + float(value)
            counts = self.parts.counted(loss.routings, counts)
        return total, values, counts

    def _clip(self) -> float:
        trained = [parameter for parameter in self.model.parameters() if parameter.grad is not None]
        largest = self.recipe.clip
        norm = torch.nn.utils.clip_grad_norm_(trained, float("inf") if largest is None else largest)
        return float(norm)


def train(
    recipe: Recipe | str | Path,
    folder: str | Path | None = None,
    *,
    known: Catalogue | None = None,
) -> Any:
    """Runs a recipe from its first step to its last.

    Args:
        recipe: a recipe, or a file that holds one.
        folder: where checkpoints and logs go; None for nowhere.
        known: the catalogue.

    Returns:
        The trained model.
    """
    trainer = Trainer.of(recipe, folder=folder, known=known)
    for _ in trainer:
        pass
    return trainer.model.eval()
