"""Checks of the socket objectives, for ``llama4 check objective:NAME``.

They are on a tiny dense model in float64, where rounding hides nothing, and on random documents.
Objectives are built without settings.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from hypothesis import assume
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from llama4_core.assembly.assemble import assemble
from llama4_core.model.initialise import initialise
from llama4_core.specs.layers import every, llama4_layers
from llama4_core.specs.model import DenseSpec, ModelSpec, RopeSpec
from llama4_core.testing.check import Check, Refused, Subject, check
from llama4_core.testing.compare import close, holds, same
from llama4_train.protocols import Batch, Loss, StepFacts

VOCABULARY = 23
# Sums of some hundred numbers of the order of 1, in float64.
_ROUNDING = 1e-11
# Weights are given in float32.
_WEIGHTS = 1e-6


@dataclass(frozen=True)
class Case:
    """Documents back to back.

    Attributes:
        lengths: tokens of each document.
        seed: of tokens and weights.
    """

    lengths: tuple[int, ...]
    seed: int

    def batch(self) -> Batch:
        """Random tokens; a third of the targets have no weight, others one of 0.5 or 1."""
        generator = torch.Generator().manual_seed(self.seed)
        count = sum(self.lengths)
        tokens = torch.randint(0, VOCABULARY, (count,), generator=generator)
        weights = torch.randint(0, 3, (count,), generator=generator) / 2
        weights[[end - 1 for end in accumulate(self.lengths)]] = 0.0
        assume(bool((weights > 0).any()))
        targets = torch.where(weights > 0, tokens.roll(-1), -100)
        sources = tuple("ab"[index % 2] for index in range(len(self.lengths)))
        return Batch(tokens, targets, weights, self.lengths, sources)


_CASES = st.builds(
    Case, st.lists(st.integers(2, 8), min_size=2, max_size=4).map(tuple), st.integers(0, 2**16)
)


@functools.cache
def _first_model() -> Any:
    spec = ModelSpec(
        name="kit",
        vocabulary=VOCABULARY,
        width=12,
        norm_eps=1e-5,
        max_positions=128,
        tied=False,
        layers=llama4_layers(
            2,
            heads=2,
            kv_heads=1,
            head_dim=8,
            rope=RopeSpec(10_000.0),
            chunk=3,
            qk_norm=True,
            temperature=None,
            position_free=every(2, 2),
            moe_layers=(),
            moe=None,
            dense=DenseSpec(16),
        ),
        dtype="float64",
    )
    model = assemble(spec, device="cpu")
    initialise(model, seed=1)
    return model.train()


def _model() -> Any:
    """A fresh copy, which a careless objective may spoil."""
    return copy.deepcopy(_first_model())


def _facts(*batches: Batch) -> StepFacts:
    weight = sum(batch.weight for batch in batches)
    return StepFacts(0, weight, sum(len(batch.tokens) for batch in batches))


def _documents(batch: Batch) -> list[Batch]:
    """Each document as a batch of its own."""
    pieces = zip(
        *(x.split(batch.lengths) for x in (batch.tokens, batch.targets, batch.weights)),
        strict=True,
    )
    return [
        Batch(tokens, targets, weights, (len(tokens),), (source,))
        for (tokens, targets, weights), source in zip(pieces, batch.sources, strict=True)
    ]


def _learnt(subject: Subject, batches: list[Batch], step: StepFacts) -> tuple[Tensor, Any, Any]:
    """Total, parts and gradients, summed over batches."""
    objective, model = subject.build(), _model()
    total, parts = torch.zeros((), dtype=torch.float64), dict[str, Any]()
    for batch in batches:
        loss: Loss = objective(model, batch, step)
        loss.total.backward()
        total = total + loss.total.detach()
        for name, value in loss.parts.items():
            parts[name] = parts.get(name, 0.0) + value.detach()
    return total, parts, {name: parameter.grad for name, parameter in model.named_parameters()}


def _agree(got: Any, expected: Any, what: str, tolerance: float = _ROUNDING) -> None:
    close(got[0], expected[0], tolerance, f"total {what}")
    for name, value in expected[2].items():
        mine = got[2][name]
        if value is None or mine is None:
            holds(value is mine, f"gradient of {name} {what}: only one of both has one")
        else:
            close(mine, value, tolerance, f"gradient of {name} {what}")


@check(
    why="the trainer differentiates the total and logs the parts; anything else stops the run",
    cases=lambda subject: _CASES,
)
def loss_of_the_contract(subject: Subject, case: Case) -> None:
    """The total is a finite scalar with a gradient, parts are numbers, routings one per layer."""
    batch, model = case.batch(), _model()
    loss = subject.build()(model, batch, _facts(batch))
    holds(loss.total.dim() == 0, f"the total has shape {list(loss.total.shape)}, not []")
    holds(bool(loss.total.isfinite()), f"the total is {loss.total}")
    holds(loss.total.requires_grad, "the total has no gradient")
    for name, value in loss.parts.items():
        holds(value.dim() == 0 and not value.requires_grad, f"part {name} is no detached scalar")
    layers = len(model.layers)
    holds(len(loss.routings) == layers, f"got {len(loss.routings)} routings for {layers} layers")
    loss.total.backward()
    grads = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    holds(bool(grads), "no parameter got a gradient")
    holds(all(bool(grad.isfinite().all()) for grad in grads), "a gradient is not finite")


@check(
    properties=(56,),
    why="a machine with less memory needs more batches per step, and would train another model",
    cases=lambda subject: _CASES,
    examples=10,
)
def accumulation(subject: Subject, case: Case) -> None:
    """Batches of half the documents each give together what one batch gives."""
    batch = case.batch()
    parts = _documents(batch)
    half = len(parts) // 2
    pieces = [_joined(parts[:half]), _joined(parts[half:])]
    whole = _learnt(subject, [batch], _facts(batch))
    _agree(_learnt(subject, pieces, _facts(batch)), whole, "of two batches")


def _joined(batches: list[Batch]) -> Batch:
    return Batch(
        torch.cat([batch.tokens for batch in batches]),
        torch.cat([batch.targets for batch in batches]),
        torch.cat([batch.weights for batch in batches]),
        tuple(batch.lengths[0] for batch in batches),
        tuple(batch.sources[0] for batch in batches),
    )


@check(
    properties=(62,),
    why="documents that were packed by chance would teach the model to mix them up",
    cases=lambda subject: _CASES,
    examples=8,
)
def documents_stay_alone(subject: Subject, case: Case) -> None:
    """Packed documents give what they give one by one, in whatever order."""
    batch = case.batch()
    packed = _learnt(subject, [batch], _facts(batch))
    _agree(_learnt(subject, _documents(batch), _facts(batch)), packed, "one by one")
    turned = _joined(_documents(batch)[::-1])
    _agree(_learnt(subject, [turned], _facts(batch)), packed, "in reversed order")


@check(
    properties=(55,),
    why="a model that learns its prompts by heart imitates the users",
    cases=lambda subject: _CASES,
    examples=8,
)
def what_has_no_weight_teaches_nothing(subject: Subject, case: Case) -> None:
    """Behind the last target of a document, and in one without targets, tokens change nothing."""
    batch = case.batch()
    documents = _documents(batch)
    last = documents[-1]
    silent = dataclasses.replace(
        last, targets=torch.full_like(last.targets, -100), weights=torch.zeros_like(last.weights)
    )
    tokens = (batch.tokens + 1) % VOCABULARY
    unread = torch.zeros(len(tokens), dtype=torch.bool)
    for end, document in zip(accumulate(batch.lengths), documents, strict=True):
        targets = (document.weights > 0).nonzero()
        first = int(targets[-1]) + 1 if len(targets) else 0
        unread[end - len(document.tokens) + first : end] = True
    changed = dataclasses.replace(batch, tokens=batch.tokens.where(~unread, tokens))
    step = _facts(batch)
    before = _learnt(subject, [batch], step)
    _agree(_learnt(subject, [changed], step), before, "with other tokens behind the last target")
    longer = _joined([*documents, silent])
    _agree(_learnt(subject, [longer], step), before, "with a document without targets")


@check(
    why="a recipe's learning rate would mean another one for each mixture of data",
    cases=lambda subject: st.tuples(_CASES, st.sampled_from((0.25, 2.0, 8.0))),
    examples=8,
)
def weights_are_relative(subject: Subject, case: tuple[Case, float]) -> None:
    """All weights of a step times a number change nothing; one document's weight does."""
    given, factor = case
    batch = given.batch()
    before = _learnt(subject, [batch], _facts(batch))
    louder = dataclasses.replace(batch, weights=batch.weights * factor)
    _agree(_learnt(subject, [louder], _facts(louder)), before, "with all weights scaled", _WEIGHTS)
    documents = _documents(batch)
    first, rest = documents[0], documents[1:]
    assume(first.weight > 0 and any(document.weight > 0 for document in rest))
    one = dataclasses.replace(first, weights=first.weights * 3)
    got = _learnt(subject, [_joined([one, *rest])], _facts(batch))
    alone = _learnt(subject, [first], _facts(batch))
    close(
        got[0], before[0] + 2 * alone[0], _WEIGHTS, "total with one document three times as heavy"
    )


@check(
    why="a loss with the wrong sign, or a gradient of something else, trains away from the data",
    cases=lambda subject: _CASES,
    examples=4,
)
def descent_helps(subject: Subject, case: Case) -> None:
    """A dozen small steps against the gradient lower the loss and make the targets likelier."""
    batch, objective, model = case.batch(), subject.build(), _model()
    step = _facts(batch)
    likely, costs = [_likelihood(model, batch)], []
    for _ in range(12):
        model.zero_grad(set_to_none=True)
        loss = objective(model, batch, step).total
        loss.backward()
        costs.append(float(loss.detach()))
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter.sub_(parameter.grad, alpha=0.02)
    likely.append(_likelihood(model, batch))
    holds(costs[-1] < costs[0], f"the loss goes from {costs[0]:.6g} to {costs[-1]:.6g}")
    holds(likely[1] > likely[0], f"log-likelihood goes from {likely[0]:.6g} to {likely[1]:.6g}")


@torch.no_grad()
def _likelihood(model: Any, batch: Batch) -> float:
    return -float(_nll(model, batch) @ batch.weights.double())


def _nll(model: Any, batch: Batch) -> Tensor:
    hidden, _ = model(batch.tokens, model.packed(batch.lengths))
    logits = F.linear(hidden, model.head.weight)
    return F.cross_entropy(logits, batch.targets, reduction="none", ignore_index=-100)


@check(
    why="activation checkpointing runs a forward twice: what it counts or changes, it does double",
    cases=lambda subject: _CASES,
)
def pure(subject: Subject, case: Case) -> None:
    """A second call gives the same bits, and model and batch are as before."""
    batch, objective, model = case.batch(), subject.build(), _model()
    before = copy.deepcopy(model.state_dict())
    first = objective(model, batch, _facts(batch))
    again = objective(model, case.batch(), _facts(batch))
    same(again.total.detach(), first.total.detach(), "the total the second time")
    holds(first.parts.keys() == again.parts.keys(), "other parts the second time")
    for name, value in first.parts.items():
        same(again.parts[name], value, f"part {name} the second time")
    for name, value in model.state_dict().items():
        same(value, before[name], f"{name} of the model")
    holds(all(p.grad is None for p in model.parameters()), "a call left gradients behind")
    holds(model.training and _trainable(model), "a call changed what of the model is trained")
    for name in ("tokens", "targets", "weights"):
        same(getattr(batch, name), getattr(case.batch(), name), f"{name} of the batch")


def _trainable(model: nn.Module) -> bool:
    return all(parameter.requires_grad for parameter in model.parameters())


@check(
    why="published losses are compared in nats per token",
    cases=lambda subject: _CASES,
)
def published_loss(subject: Subject, case: Case) -> None:
    """``next-token`` of llama4-train: the weighted mean of ``-log softmax(z)[target]``."""
    if (subject.distribution, subject.name) != ("llama4-train", "next-token"):
        raise Refused("only next-token of llama4-train follows this law")
    batch, model = case.batch(), _model()
    share = batch.weights.double() / batch.weight
    loss = (share * _nll(model, batch)).sum()
    loss.backward()
    grads = {name: parameter.grad for name, parameter in model.named_parameters()}
    got = _learnt(subject, [batch], _facts(batch))
    _agree(got, (loss.detach(), {}, grads), "against all logits at once")
    close(got[1]["nll"], loss.detach(), _ROUNDING, "part nll")


CHECKS: tuple[Check, ...] = (
    loss_of_the_contract,
    accumulation,
    documents_stay_alone,
    what_has_no_weight_teaches_nothing,
    weights_are_relative,
    descent_helps,
    pure,
    published_loss,
)
