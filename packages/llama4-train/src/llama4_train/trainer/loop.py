"""The loop of a run: batches, gradients, a step, and what is written down about it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llama4_core.errors import SpecError
from llama4_core.plugins.catalogue import Catalogue
from llama4_train.checkpoints.keeper import Keeper
from llama4_train.errors import TrainingError
from llama4_train.evaluation.run import evaluate
from llama4_train.flops import training_flops
from llama4_train.protocols import Batch, StepFacts
from llama4_train.recipe import Recipe, Slot
from llama4_train.schedules import factor, kept_bias
from llama4_train.trackers.opened import open_trackers
from llama4_train.trackers.values import loads_of, values_of
from llama4_train.trainer.denormals import flushed_denormals
from llama4_train.trainer.guard import check_finite
from llama4_train.trainer.health import gradient_health, router_health
from llama4_train.trainer.parts import Parts
from llama4_train.trainer.state import capture, opened, seed_generators
from llama4_train.trainer.step import Step


class Trainer:
    """A run that is stepped through: ``for step in trainer: ...``.

    Leaving the loop stops the run where it is; iterating again goes on.

    Args:
        parts: model, data, objective, optimizer and the rest, put together from a recipe. With a
            folder, checkpoints are written there, and a run that is there is not written over.
        resume: go on with the run that is in the folder, exactly where its latest checkpoint
            stands.
        also: trackers beside those of the recipe, such as the progress on a terminal.
        known: the catalogue.

    Attributes:
        recipe: what the run does.
        model: that is trained.
        number: of the next step.
        keeper: of checkpoints, or None without a folder.
        trackers: that are told of every step.

    Raises:
        TrainingError: the folder is in use, or there is nothing in it that can be resumed.
        CheckpointError: the checkpoint to resume is damaged.
    """

    def __init__(
        self,
        parts: Parts,
        *,
        resume: bool = False,
        also: Sequence[Slot] = (),
        known: Catalogue | None = None,
    ) -> None:
        self.parts = parts
        self.recipe: Recipe = parts.recipe
        self.model = parts.model
        self.number = 0
        self.keeper: Keeper | None = None
        seed_generators(self.recipe.seed)
        if parts.folder is not None:
            self.keeper = opened(self, parts.folder, resume)
        elif resume:
            raise TrainingError("resume is asked for, but no folder; say the folder of the run")
        self.known = known
        self.trackers = open_trackers(self.recipe, parts.folder, known=known, also=also)

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        *,
        folder: str | Path | None = None,
        resume: bool = False,
        also: Sequence[Slot] = (),
        known: Catalogue | None = None,
        plugins: Sequence[str | Path] = (),
    ) -> Trainer:
        """Puts a run together; see :meth:`llama4_train.trainer.parts.Parts.of`."""
        parts = Parts.of(recipe, folder=folder, known=known, plugins=plugins)
        return cls(parts, resume=resume, also=also, known=parts.known)

    def __iter__(self) -> Iterator[Step]:
        while self.number < self.recipe.steps:
            yield self.step()
        if self.keeper is not None:
            self.keeper.wait()
        self.parts.data.finish()
        self.trackers.finish()

    def save(self) -> None:
        """Begins to write a checkpoint of where the run stands; see :class:`Keeper`.

        Raises:
            TrainingError: the run has no folder.
            CheckpointError: it cannot be written, or the one before could not.
        """
        if self.keeper is None:
            raise TrainingError("the run has no folder; say one, so that it can be saved")
        self.keeper.save(self.number, capture(self))

    def step(self) -> Step:
        """Takes one step."""
        with flushed_denormals():
            return self._step()

    def _step(self) -> Step:
        start = time.perf_counter()
        if self.keeper is not None:
            self.keeper.check()
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
        health = router_health(counts) | gradient_health(parts.trained)
        norm = self._clip()
        check_finite(total, norm, self.number, batches, parts.folder)
        parts.optimizer.step()
        parts.optimizer.zero_grad(set_to_none=True)
        parts.balance(counts, kept_bias(recipe.schedule, self.number, recipe.steps))
        taken = Step(
            number=self.number,
            loss=total,
            learning_rate=max(group["lr"] for group in parts.optimizer.param_groups),
            gradient_norm=norm,
            tokens=facts.tokens,
            seconds=time.perf_counter() - start,
            parts={**values, **health},
            evaluation=self._evaluated(),
            loads=loads_of(counts),
            flops=self._flops(batches),
        )
        self.number += 1
        self.trackers.log(taken.number, values_of(taken))
        if self.keeper is not None and self._due(recipe.checkpoints.every, self.number):
            self.save()
        return taken

    def _due(self, every: int, done: int) -> bool:
        return done == self.recipe.steps or (every > 0 and done % every == 0)

    def _evaluated(self) -> Mapping[str, float]:
        """What the model reaches after this step, where the recipe asks for it now."""
        part = self.recipe.evaluation
        if not part.tasks or not self._due(part.every, self.number + 1):
            return {}
        return evaluate(self.model, part.tasks, known=self.known, length=self.recipe.data.length)

    def _flops(self, batches: Sequence[Batch]) -> float:
        """Operations of the step, as if every weight were trained; 0 where nobody can count."""
        total = 0.0
        for batch in batches:
            tiles = sum(len(inputs) for inputs in batch.inputs.values())
            try:
                total += training_flops(self.model.spec, batch.lengths, tiles=tiles).total
            except SpecError:  # a part whose arithmetic only its component knows
                return 0.0
        return total

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
        norm = torch.nn.utils.clip_grad_norm_(trained, self.recipe.clip or float("inf"))
        return float(norm)


def train(
    recipe: Recipe | str | Path,
    folder: str | Path | None = None,
    *,
    resume: bool = False,
    known: Catalogue | None = None,
) -> Any:
    """Runs a recipe from its first step to its last.

    Args:
        recipe: a recipe, or a file that holds one.
        folder: where checkpoints and logs go; None for nowhere.
        resume: go on with the run in ``folder``; the result is that of a run never stopped.
        known: the catalogue.

    Returns:
        The trained model.
    """
    read = recipe if isinstance(recipe, Recipe) else Recipe.read(recipe)
    trainer = Trainer.of(read, folder=folder, resume=resume, known=known)
    for _ in trainer:
        pass
    return trainer.model.eval()
