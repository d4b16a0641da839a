"""Gradients and steps of training equal transformers'.

The oracle's loss is torch's own cross-entropy of its logits: its model classes average over all
tokens of a batch, and ours are weighted.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from tests.parity.oracle import (
    BASE,
    CASES,
    END,
    PATCH,
    START,
    VISION_BASE,
    RouteGaps,
    features_per_tile,
    oracle,
    random_tiles,
    random_tokens,
    saved,
    seeing_oracle,
)
from torch import Tensor, nn

import llama4_core as l4
from llama4_core.checkpoints.keys import CAUSAL, CONDITIONAL, huggingface_rows
from llama4_train.objectives.next_token import NextToken
from llama4_train.protocols import Batch, StepFacts

# Past three chunks of 8.
LENGTH = 27
# The router's smallest gap; a nearer draw may send a token to another expert by rounding alone.
GAP = 1e-4


@pytest.fixture(autouse=True)
def _no_gradients() -> None:
    """In the place of the folder's fixture: here gradients are what it is about."""


@dataclass
class Twins:
    """The same model twice.

    Attributes:
        theirs: of transformers, every matrix of a model with eager attention.
        ours: loaded from the checkpoint that it wrote.
        pixels: of the pictures at the placeholders, or None.
    """

    theirs: Any
    ours: Any
    pixels: Tensor | None = None

    def their_loss(self, batch: Batch, rows: int) -> Tensor:
        """Weighted mean over the targets; all documents are equally long."""
        seen = {} if self.pixels is None else {"pixel_values": self.pixels}
        logits = self.theirs(batch.tokens.view(rows, -1), use_cache=False, **seen).logits
        nll = F.cross_entropy(
            logits.flatten(0, 1), batch.targets, reduction="none", ignore_index=-100
        )
        return (batch.weights * nll).sum() / batch.weight

    def gaps(self) -> RouteGaps:
        """Watches the routers of transformers' text model."""
        return RouteGaps(getattr(self.theirs, "language_model", self.theirs))

    def our_loss(self, batch: Batch) -> Tensor:
        """The same by the objective."""
        return NextToken()(self.ours, batch, facts(batch)).total

    def gradients(self) -> list[tuple[str, Tensor, Tensor]]:
        """Name, our gradient and theirs, of every weight of the model."""
        naming = CAUSAL if self.pixels is None else CONDITIONAL
        mine, foreign = dict(self.ours.named_parameters()), dict(self.theirs.named_parameters())
        found = []
        for row in huggingface_rows(self.ours.spec, naming):
            gradient = foreign.pop(row.theirs).grad
            assert gradient is not None, row.theirs
            turned = gradient.transpose(-1, -2) if row.transposed else gradient
            found.append((row.ours, mine.pop(row.ours).grad, turned))
        assert not mine, list(mine)
        assert not foreign, list(foreign)
        return found


def facts(batch: Batch) -> StepFacts:
    return StepFacts(0, batch.weight, len(batch.tokens))


def words(rows: int, length: int, vocabulary: int, seed: int) -> Tensor:
    """Random tokens, never the padding token: transformers does not train its embedding."""
    tokens = random_tokens(rows, length, vocabulary, seed)
    return torch.where(tokens == BASE["pad_token_id"], tokens + 1, tokens)


def text_twins(changes: dict[str, Any], folder: Path, seed: int = 0) -> Twins:
    theirs = oracle(changes, seed)
    return Twins(theirs.train(), l4.load(saved(theirs, folder)).train())


def text_batch(rows: int, seed: int, length: int = LENGTH) -> Batch:
    """Rows of random tokens; a third of the targets has no weight."""
    tokens = words(rows, length, BASE["vocab_size"], seed)
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randint(0, 3, tokens.shape, generator=generator) / 2
    weights[:, -1] = 0
    weights[:, 0] = 1
    targets = torch.where(weights > 0, tokens.roll(-1, 1), -100)
    return Batch(tokens.flatten(), targets.flatten(), weights.flatten(), (length,) * rows)


def equal_gradients(twins: Twins) -> None:
    """Every parameter, to 1e-5 relative to the largest of its gradient's numbers.

    A gradient that is 0 by definition (queries that see one key each) is what rounding leaves of
    terms that cancel: no largest number counts as less than a hundredth of the model's.
    """
    found = twins.gradients()
    least = 0.01 * max(float(true.abs().max()) for _, _, true in found)
    for name, mine, true in found:
        assert mine is not None, name
        error, largest = float((mine - true).abs().max()), float(true.abs().max())
        assert error <= 1e-5 * max(largest, least), f"{name}: {error:.3g} of {largest:.3g}"


def compared(twins: Twins, batch: Batch, rows: int) -> float:
    """Compares losses and gradients; returns the smallest router gap."""
    gaps = twins.gaps()
    true = twins.their_loss(batch, rows)
    if gaps.smallest <= GAP:
        return gaps.smallest
    true.backward()
    mine = twins.our_loss(batch)
    mine.backward()
    # Float32 sums of losses of about 7.
    assert abs(float(mine.detach()) - float(true.detach())) <= 1e-6 * float(true.detach())
    equal_gradients(twins)
    return gaps.smallest


@pytest.mark.parametrize("name", CASES)
def test_gradients_of_named_cases(name: str, tmp_path: Path) -> None:
    assert compared(text_twins(CASES[name], tmp_path), text_batch(2, 3), 2) > GAP


@pytest.mark.parametrize("backend", ["dense", "loop", "grouped", "padded-bmm"])
def test_gradients_of_every_expert_backend(backend: str, tmp_path: Path) -> None:
    theirs = oracle(CASES["top-2"])
    overrides = {"layers.*.feed_forward.backend": backend}
    ours = l4.load(saved(theirs, tmp_path), overrides=overrides)
    assert compared(Twins(theirs, ours), text_batch(2, 4), 2) > GAP


# Each draws two models, writes and reads one: half a second.
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=10
)
@given(
    heads=st.sampled_from([(1, 3), (2, 4), (3, 3)]),
    experts=st.sampled_from([(2, 1), (4, 2), (7, 3)]),
    moe=st.sampled_from([1, 2]),
    chunk=st.integers(2, 12),
    qk_norm=st.booleans(),
    tied=st.booleans(),
    length=st.integers(4, 20),
    seed=st.integers(0, 2**16),
)
def test_gradients_of_random_configurations(
    tmp_path_factory: pytest.TempPathFactory,
    heads: tuple[int, int],
    experts: tuple[int, int],
    moe: int,
    chunk: int,
    qk_norm: bool,
    tied: bool,
    length: int,
    seed: int,
) -> None:
    changes = {
        "num_hidden_layers": 3,
        "no_rope_layers": [1, 0, 1],
        "num_key_value_heads": heads[0],
        "num_attention_heads": heads[1],
        "num_local_experts": experts[0],
        "num_experts_per_tok": experts[1],
        "interleave_moe_layer_step": moe,
        "attention_chunk_size": chunk,
        "use_qk_norm": qk_norm,
        "tie_word_embeddings": tied,
    }
    twins = text_twins(changes, tmp_path_factory.mktemp("training"), seed)
    assume(compared(twins, text_batch(1, seed, length), 1) > GAP)


@pytest.fixture
def seeing(tmp_path: Path) -> tuple[Twins, Batch]:
    """A multimodal model, and two rows with a picture each; the second has a film's two tiles."""
    pytest.importorskip("llama4_vision")
    theirs = seeing_oracle({"num_hidden_layers": 4}, VISION_BASE, seed=1)
    pixels = random_tiles(3, VISION_BASE, seed=2)
    ours = l4.load(saved(theirs, tmp_path)).train()
    each = [PATCH] * features_per_tile(VISION_BASE)
    tokens = words(2, LENGTH, PATCH, seed=5)
    for row, tiles in enumerate((1, 2)):
        picture = torch.tensor([START, *each * tiles, END])
        tokens[row, 3 + row : 3 + row + len(picture)] = picture
    weights = (tokens.roll(-1, 1) < PATCH).float()
    weights[:, -1] = 0
    targets = torch.where(weights > 0, tokens.roll(-1, 1), -100)
    flat = (x.flatten() for x in (tokens, targets, weights))
    batch = Batch(*flat, (LENGTH, LENGTH), inputs={PATCH: pixels})
    return Twins(theirs.train(), ours, pixels), batch


def test_gradients_with_pictures(seeing: tuple[Twins, Batch]) -> None:
    """Encoder, adapter and projection too."""
    twins, batch = seeing
    assert compared(twins, batch, 2) > GAP


def ten_losses(model: nn.Module, loss: Any, batches: list[Batch]) -> list[float]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.1)
    found = []
    for batch in batches:
        optimizer.zero_grad(set_to_none=True)
        value = loss(batch)
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        found.append(float(value.detach()))
    return found


def same_losses(twins: Twins, batches: list[Batch]) -> None:
    gaps = twins.gaps()
    true = ten_losses(twins.theirs, lambda batch: twins.their_loss(batch, 2), batches)
    mine = ten_losses(twins.ours, twins.our_loss, batches)
    assert gaps.smallest > GAP / 4, "another seed: an expert may flip by rounding"
    # AdamW divides by the square root of squared gradients: what is nearly 0 may step either way.
    for step, (got, expected) in enumerate(zip(mine, true, strict=True)):
        assert abs(got - expected) <= 1e-5 * expected, f"step {step}: {got} against {expected}"
    assert abs(true[0] - true[-1]) > 0.1  # they learn


# Seeds whose routers come near no tie in ten steps.
@pytest.mark.parametrize(("name", "seed"), [("scout-like", 0), ("maverick-like", 0), ("top-2", 1)])
def test_ten_steps(name: str, seed: int, tmp_path: Path) -> None:
    twins = text_twins(CASES[name], tmp_path, seed)
    same_losses(twins, [text_batch(2, seed % 2) for seed in range(10)])


def test_ten_steps_with_pictures(seeing: tuple[Twins, Batch]) -> None:
    twins, batch = seeing
    same_losses(twins, [batch] * 10)
