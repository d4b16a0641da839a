"""Bugs of objectives, planted into next-token prediction."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from llama4_core.testing.check import Subject
from llama4_core.testing.mutants import Mutant
from llama4_train.objectives.next_token import NextToken
from llama4_train.protocols import Batch, Loss, StepFacts


class Broken(NextToken):
    """Next-token prediction, changed before and after its call.

    Args:
        before: changes batch and step.
        after: changes the loss, given the model.
        settings: of next-token prediction.
    """

    def __init__(
        self,
        before: Callable[[Batch, StepFacts], tuple[Batch, StepFacts]] | None = None,
        after: Callable[[Loss, Any], Loss] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self.before, self.after = before, after

    def __call__(self, model: Any, batch: Batch, step: StepFacts) -> Loss:
        """Calls with the changed arguments and changes the result."""
        if self.before is not None:
            batch, step = self.before(batch, step)
        loss = super().__call__(model, batch, step)
        return loss if self.after is None else self.after(loss, model)


def _mean_of_the_batch(batch: Batch, step: StepFacts) -> tuple[Batch, StepFacts]:
    return batch, dataclasses.replace(step, weight=max(batch.weight, 1e-9))


def _sum(batch: Batch, step: StepFacts) -> tuple[Batch, StepFacts]:
    return batch, dataclasses.replace(step, weight=1.0)


def _mean_of_tokens(batch: Batch, step: StepFacts) -> tuple[Batch, StepFacts]:
    return batch, dataclasses.replace(step, weight=float(step.tokens))


def _one_document(batch: Batch, step: StepFacts) -> tuple[Batch, StepFacts]:
    return dataclasses.replace(batch, lengths=(len(batch.tokens),)), step


def _prompts_too(batch: Batch, step: StepFacts) -> tuple[Batch, StepFacts]:
    targets, weights = batch.tokens.roll(-1), torch.ones_like(batch.weights)
    return dataclasses.replace(batch, targets=targets, weights=weights), step


def _all_alike(batch: Batch, step: StepFacts) -> tuple[Batch, StepFacts]:
    weights = (batch.weights > 0).to(batch.weights)
    return dataclasses.replace(batch, weights=weights), step


def _this_token(batch: Batch, step: StepFacts) -> tuple[Batch, StepFacts]:
    targets = batch.targets.where(batch.targets < 0, batch.tokens)
    return dataclasses.replace(batch, targets=targets), step


def _in_place(batch: Batch, step: StepFacts) -> tuple[Batch, StepFacts]:
    batch.weights.mul_(0.5)
    return batch, step


def _uphill(loss: Loss, model: Any) -> Loss:
    # What is shown is right.
    total = loss.total
    return dataclasses.replace(loss, total=2 * total.detach() - total)


def _detached(loss: Loss, model: Any) -> Loss:
    return dataclasses.replace(loss, total=loss.total.detach())


def _parts_with_graph(loss: Loss, model: Any) -> Loss:
    return dataclasses.replace(loss, parts={"nll": loss.total})


def _no_routings(loss: Loss, model: Any) -> Loss:
    return dataclasses.replace(loss, routings=())


def _decays(loss: Loss, model: Any) -> Loss:
    with torch.no_grad():
        model.norm.weight.mul_(0.999)
    return loss


def _frozen(loss: Loss, model: Any) -> Loss:
    model.embedding.weight.requires_grad_(False)
    return loss


def _per_batch_penalty(loss: Loss, model: Any) -> Loss:
    penalty: Tensor = model.norm.weight.square().sum()
    return dataclasses.replace(loss, total=loss.total + penalty)


class Counting(NextToken):
    """Changes its mind with every call."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __call__(self, model: Any, batch: Batch, step: StepFacts) -> Loss:
        """The loss, times the number of calls."""
        self.calls += 1
        loss = super().__call__(model, batch, step)
        return dataclasses.replace(loss, total=loss.total * self.calls)


def _before(change: Callable[..., Any]) -> Callable[[], Broken]:
    return lambda: Broken(before=change)


def _after(change: Callable[..., Any]) -> Callable[[], Broken]:
    return lambda: Broken(after=change)


def _mutant(check: str, bug: str, build: Callable[[], Any]) -> Mutant:
    # Under the name that the published law holds for.
    subject = Subject("objectives", "next-token", build, distribution="llama4-train")
    return Mutant(bug, check, subject)


MUTANTS: tuple[Mutant, ...] = (
    _mutant("loss-of-the-contract", "no gradient", _after(_detached)),
    _mutant("loss-of-the-contract", "parts hold the graph", _after(_parts_with_graph)),
    _mutant("loss-of-the-contract", "forgets the routings", _after(_no_routings)),
    _mutant("accumulation", "mean over the batch", _before(_mean_of_the_batch)),
    _mutant("accumulation", "a penalty per batch", _after(_per_batch_penalty)),
    _mutant("documents-stay-alone", "one long document", _before(_one_document)),
    _mutant("what-has-no-weight-teaches-nothing", "prompts too", _before(_prompts_too)),
    _mutant("weights-are-relative", "sum over tokens", _before(_sum)),
    _mutant("weights-are-relative", "mean over all tokens", _before(_mean_of_tokens)),
    _mutant("weights-are-relative", "all targets weigh alike", _before(_all_alike)),
    _mutant("descent-helps", "gradient of the other sign", _after(_uphill)),
    _mutant("descent-helps", "predicts the token itself", _before(_this_token)),
    _mutant("pure", "weights decay", _after(_decays)),
    _mutant("pure", "freezes the embedding", _after(_frozen)),
    _mutant("pure", "scales the weights in place", _before(_in_place)),
    _mutant("pure", "counts its calls", Counting),
    _mutant("published-loss", "predicts the token itself", _before(_this_token)),
    _mutant("published-loss", "a z-loss of its own", lambda: Broken(z_loss=1e-3)),
)
