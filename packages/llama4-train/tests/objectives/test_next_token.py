"""Next-token prediction (properties 55, 56, 62), in float64, where rounding hides nothing."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import accumulate
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import llama4_core as l4
from llama4_core.model.initialise import initialise
from llama4_core.specs.layers import every, llama4_layers
from llama4_core.specs.model import ModelSpec, MoESpec, RopeSpec, TemperatureSpec
from llama4_train.errors import RecipeError, TrainingError
from llama4_train.objectives.inputs import hidden_states
from llama4_train.objectives.next_token import NextToken
from llama4_train.objectives.routing import load_balance, mixtures, model_counts, router_z
from llama4_train.protocols import Batch, Loss, StepFacts

VOCABULARY, PICTURE, WIDTH = 31, 30, 16


@cache
def model_of(tied: bool = False, router: str = "sigmoid-top-k") -> Any:
    """Three layers: chunked and position-free, with experts and without."""
    spec = ModelSpec(
        name="tiny-for-tests",
        vocabulary=VOCABULARY,
        width=WIDTH,
        norm_eps=1e-5,
        max_positions=256,
        tied=tied,
        layers=llama4_layers(
            3,
            heads=2,
            kv_heads=1,
            head_dim=8,
            rope=RopeSpec(10_000.0),
            chunk=4,
            qk_norm=True,
            temperature=TemperatureSpec(scale=0.1, floor=3),
            position_free=every(2, 3),
            moe_layers=(0, 2),
            moe=MoESpec(4, top_k=1, width=12, shared_width=8, router=router),
            dense=l4_dense(),
        ),
        dtype="float64",
    )
    model = l4.assemble(spec, device="cpu")
    initialise(model, seed=3)
    return model.train()


def l4_dense() -> Any:
    from llama4_core.specs.model import DenseSpec

    return DenseSpec(24)


def batch_of(lengths: tuple[int, ...], seed: int, sources: tuple[str, ...] = ()) -> Batch:
    """Random documents; of each, some targets are ignored and the others weigh differently."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, PICTURE, (sum(lengths),), generator=generator)
    weights = torch.randint(0, 4, (sum(lengths),), generator=generator) / 2
    for end in accumulate(lengths):
        weights[end - 1] = 0
    targets = torch.where(weights > 0, tokens.roll(-1), -100)
    return Batch(tokens, targets, weights, lengths, sources)


def split(batch: Batch) -> list[Batch]:
    """Each document as a batch of its own."""
    pieces = zip(
        *(x.split(batch.lengths) for x in (batch.tokens, batch.targets, batch.weights)),
        batch.lengths,
        batch.sources or [""] * len(batch.lengths),
        strict=True,
    )
    return [Batch(t, y, w, (n,), (source,) if source else ()) for t, y, w, n, source in pieces]


def facts(*batches: Batch) -> StepFacts:
    weight = sum(batch.weight for batch in batches)
    return StepFacts(0, weight, sum(len(batch.tokens) for batch in batches))


def gradients(model: nn.Module, objective: Any, batches: list[Batch], step: StepFacts) -> Any:
    """Loss, parts and gradients, summed over the batches."""
    model.zero_grad(set_to_none=True)
    total, parts = 0.0, {}
    for batch in batches:
        loss: Loss = objective(model, batch, step)
        loss.total.backward()
        total += float(loss.total.detach())
        for name, value in loss.parts.items():
            assert not value.requires_grad
            parts[name] = parts.get(name, 0.0) + float(value)
    return total, parts, {name: p.grad.clone() for name, p in model.named_parameters()}


def equal(found: Any, expected: Any) -> None:
    """To rounding of float64: sums of some hundred numbers of the order of 1."""
    assert abs(found[0] - expected[0]) < 1e-12
    assert found[1].keys() == expected[1].keys()
    assert all(abs(found[1][name] - expected[1][name]) < 1e-12 for name in found[1])
    for name, gradient in expected[2].items():
        assert (found[2][name] - gradient).abs().max() < 1e-12, name


LENGTHS = st.lists(st.integers(2, 9), min_size=1, max_size=4).map(tuple)
SEEDS = st.integers(0, 2**16)


@given(lengths=LENGTHS, seed=SEEDS)
def test_batches_add_up_to_one_and_documents_stay_alone(lengths: Any, seed: int) -> None:
    """Packed in one batch or one by one: the same loss, parts and gradients (56 and 62)."""
    whole = batch_of(lengths, seed, tuple("ab"[i % 2] for i in range(len(lengths))))
    if not whole.weight:
        return
    objective = NextToken(z_loss=1e-2, router_z_loss=1e-2)
    packed = gradients(model_of(), objective, [whole], facts(whole))
    equal(gradients(model_of(), objective, split(whole), facts(whole)), packed)


@given(lengths=LENGTHS, seed=SEEDS, tied=st.booleans())
def test_the_loss_is_what_it_says(lengths: Any, seed: int, tied: bool) -> None:
    model, batch = model_of(tied), batch_of(lengths, seed)
    if not batch.weight:
        return
    step = StepFacts(0, 2.5 * batch.weight, 3 * len(batch.tokens))
    settings = {"z_loss": 0.02, "balance": 0.3, "router_z_loss": 0.07}
    found = gradients(model, NextToken(**settings), [batch], step)
    model.zero_grad(set_to_none=True)
    hidden, routings = model(batch.tokens, model.packed(batch.lengths))
    logits = F.linear(hidden, model.embedding.weight if tied else model.head.weight)
    nll = F.cross_entropy(logits, batch.targets, reduction="none", ignore_index=-100)
    share = batch.weights.double() / step.weight
    mixed = mixtures(routings)
    assert len(mixed) == 2
    parts = {
        "nll": (share * nll).sum(),
        "z_loss": 0.02 * (share * logits.logsumexp(1) ** 2).sum(),
        "balance": 0.3 * sum(load_balance(routing) for routing in mixed) / 3,
        "router_z_loss": 0.07 * sum(router_z(routing) for routing in mixed) / 3,
    }
    total = sum(parts.values())
    total.backward()
    grads = {name: p.grad.clone() for name, p in model.named_parameters()}
    parts = {name: float(value.detach()) for name, value in parts.items()}
    equal(found, (float(total.detach()), parts, grads))


@given(seed=SEEDS, length=st.integers(5, 12), prompt=st.integers(1, 3))
def test_a_prompt_without_weight_teaches_nothing(seed: int, length: int, prompt: int) -> None:
    """The gradient at the logits of masked places is 0: they may be anything (55)."""
    model = model_of()
    batch = batch_of((length,), seed)
    weights = torch.ones(length)
    weights[:prompt] = 0
    weights[-1] = 0
    targets = torch.where(weights > 0, batch.tokens.roll(-1), -100)
    batch = replace(batch, targets=targets, weights=weights)
    seen = []

    def look(module: nn.Module, inputs: Any, out: Tensor) -> None:
        out.retain_grad()
        seen.append(out)

    handle = model.norm.register_forward_hook(look)
    try:
        NextToken(z_loss=0.1)(model, batch, facts(batch)).total.backward()
    finally:
        handle.remove()
    gradient = seen[0].grad
    assert (gradient[weights == 0] == 0).all()
    assert (gradient[weights > 0].abs().sum(1) > 0).all()


@given(seed=SEEDS)
def test_parts_of_the_sources(seed: int) -> None:
    batch = batch_of((5, 7, 4), seed, ("code", "chat", "code"))
    step = facts(batch)
    _, parts, _ = gradients(model_of(), NextToken(), [batch], step)
    assert abs(parts["nll.code"] + parts["nll.chat"] - parts["nll"]) < 1e-12
    assert abs(parts["weight.code"] + parts["weight.chat"] - 1) < 1e-6  # weights are float32
    chat = split(batch)[1]
    if chat.weight:
        mean, _, _ = gradients(model_of(), NextToken(), [chat], facts(chat))
        assert abs(parts["nll.chat"] / parts["weight.chat"] - mean) < 1e-6


def test_activation_checkpointing_and_frozen_parts_change_nothing_else() -> None:
    batch = batch_of((6, 9), 4)
    model, objective, step = model_of(), NextToken(balance=0.1), facts(batch)
    expected = gradients(model, objective, [batch], step)

    class Twice(nn.Module):
        def __init__(self, block: nn.Module) -> None:
            super().__init__()
            self.block = block

        def __getattr__(self, name: str) -> Any:
            if name == "block":
                return super().__getattr__(name)
            return getattr(self.block, name)

        def forward(self, x: Tensor, view: Any) -> Any:
            return checkpoint(self.block, x, view, use_reentrant=False)

    layers = model.layers
    try:
        model.layers = nn.ModuleList(Twice(layer) for layer in layers)
        total, parts, found = gradients(model, objective, [batch], step)
    finally:
        model.layers = layers
    found = {name.replace(".block", ""): gradient for name, gradient in found.items()}
    equal((total, parts, found), expected)
    model.head.requires_grad_(False)
    try:
        model.zero_grad(set_to_none=True)
        objective(model, batch, step).total.backward()
        assert model.head.weight.grad is None
        for name, parameter in model.named_parameters():
            if name != "head.weight":
                assert torch.equal(parameter.grad, expected[2][name]), name
    finally:
        model.head.requires_grad_(True)


def test_losses_that_routers_ask_for_are_added() -> None:
    class Asks(nn.Module):
        modalities = ()
        head = None

        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(VOCABULARY, 4, dtype=torch.float64)

        def packed(self, lengths: Any) -> Any:
            return lengths

        def forward(self, tokens: Tensor, context: Any, features: Any) -> Any:
            hidden = self.embedding(tokens)
            asked = SimpleNamespace(losses={"entropy": hidden.square().mean()}, logits=None)
            return hidden, (asked, None, asked)

    model, batch = Asks(), batch_of((6, 9), 4)
    step = StepFacts(0, batch.weight, 30)
    loss = NextToken()(model, batch, step)
    asked = model.embedding(batch.tokens).square().mean()
    assert torch.allclose(loss.parts["router.entropy"], asked, rtol=1e-12)  # twice, half the tokens
    assert torch.allclose(loss.total.detach() - loss.parts["nll"], asked, rtol=1e-12)


class Reader(nn.Module):
    """A modality of two features per input."""

    placeholder = PICTURE

    def __init__(self) -> None:
        super().__init__()
        self.projection = nn.Linear(3, 2 * WIDTH, dtype=torch.float64)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.projection(inputs).unflatten(1, (2, WIDTH))


def test_pictures_are_read_and_learnt_from() -> None:
    model, batch = model_of(), batch_of((6, 9), 4)
    tokens = batch.tokens.clone()
    tokens[[1, 2, 8, 9]] = PICTURE
    inputs = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    batch = replace(batch, tokens=tokens, inputs={PICTURE: inputs})
    with pytest.raises(TrainingError, match="inputs for token 30; this model reads none"):
        NextToken()(model, batch, facts(batch))
    torch.manual_seed(0)
    model.vision = Reader()
    try:
        loss = NextToken()(model, batch, facts(batch))
        loss.total.backward()
        assert model.vision.projection.weight.grad.abs().sum() > 0
        features = model.vision(inputs.double()).flatten(0, 1)
        hidden, _ = model(tokens, model.packed(batch.lengths), {PICTURE: features})
        assert torch.equal(hidden_states(model, batch)[0], hidden)
    finally:
        model.vision = None


def test_counts_of_each_layer() -> None:
    model, batch = model_of(router="sigmoid-top-k-balanced"), batch_of((6, 9), 4)
    loss = NextToken()(model, batch, facts(batch))
    counts = model_counts(model, loss.routings)
    assert counts[1] is None
    for index in (0, 2):
        assert counts[index].tolist() == [
            int((loss.routings[index].experts == expert).sum()) for expert in range(4)
        ]
        router = model.layers[index].feed_forward.router
        router.after_step(counts[index])
        assert (router.bias[counts[index] < 3.75] > 0).all()


def test_bad_settings_and_empty_steps() -> None:
    for settings in ({"z_loss": -1}, {"balance": "much"}, {"router_z_loss": float("nan")}):
        (name,) = settings
        with pytest.raises(RecipeError, match=f"{name} is .*; expected a number of at least 0"):
            NextToken(**settings)
    batch = batch_of((4,), 0)
    with pytest.raises(TrainingError, match=r"step 7 weigh 0.0; expected more than 0"):
        NextToken()(model_of(), batch, StepFacts(7, 0.0, 4))
