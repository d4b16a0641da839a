"""Gradients through eyes and fusion, and an encoder trained beside a frozen text model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.parity.oracle import (
    PATCH,
    VISION_BASE,
    RouteGaps,
    features_per_tile,
    random_tiles,
    random_tokens,
    saved,
    seeing_oracle,
)
from torch import Tensor

import llama4_core as l4
from llama4_core.checkpoints.keys import CONDITIONAL, huggingface_rows

pytest.importorskip("llama4_vision")

TILES = 3
TEXT = {"num_hidden_layers": 4, "interleave_moe_layer_step": 2}


@pytest.fixture(scope="module")
def theirs() -> Any:
    return seeing_oracle(TEXT, VISION_BASE)


@pytest.fixture
def ours(theirs: Any, tmp_path: Path) -> Any:
    return l4.load(saved(theirs, tmp_path))


def example(seed: int = 3) -> tuple[Tensor, Tensor]:
    """Ids ``[1, T]`` with two pictures of one and two tiles, and the tiles.

    No word is transformers' padding, whose embedding gets no gradient there.
    """
    each = features_per_tile(VISION_BASE)
    words = (3 + random_tokens(1, 12, PATCH - 3, seed))[0].tolist()
    ids = [*words[:4], *[PATCH] * each, *words[4:7], *[PATCH] * (2 * each), *words[7:]]
    return torch.tensor([ids]), random_tiles(TILES, VISION_BASE, seed)


def loss_of(logits: Tensor, tokens: Tensor) -> Tensor:
    """Cross-entropy of every next word that is no placeholder."""
    wanted = tokens[0, 1:]
    words = wanted != PATCH
    return torch.nn.functional.cross_entropy(logits[0, :-1][words], wanted[words])


def their_gradients(theirs: Any, tokens: Tensor, pixels: Tensor) -> dict[str, Tensor]:
    theirs.zero_grad()
    loss_of(theirs(input_ids=tokens, pixel_values=pixels).logits, tokens).backward()
    return {name: p.grad.clone() for name, p in theirs.named_parameters() if p.grad is not None}


def part_of(name: str) -> str:
    """Encoder, adapter, projector; everything else is text."""
    return name.split(".")[1] if name.startswith("vision.") else "text"


def test_gradients_equal_those_of_transformers(theirs: Any, ours: Any) -> None:
    """Through fusion, projection, adapter and every layer of the encoder, and in the text model."""
    tokens, pixels = example()
    gaps = RouteGaps(theirs.language_model)
    expected = their_gradients(theirs, tokens, pixels)
    assert gaps.smallest > 1e-4
    pixels.requires_grad_()
    loss_of(ours.logits(tokens, pixels), tokens).backward()
    assert pixels.grad is not None
    assert bool(pixels.grad.flatten(1).any(1).all())  # every tile matters
    rows = huggingface_rows(ours.spec, CONDITIONAL)
    seen = set()
    for row in rows:
        found, wanted = ours.get_parameter(row.ours).grad, expected[row.theirs]
        wanted = wanted.transpose(-2, -1) if row.transposed else wanted
        # 2e-5 of the weight's largest gradient. Over 12 draws at most 5.3e-6 was measured, about as
        # for logits, and 1.4e-5 for biases of keys: what is added to all keys alike changes
        # attention only by rotation, so their gradient is a small rest of large terms.
        limit = 2e-5 * float(wanted.abs().max())
        assert float((found - wanted).abs().max()) <= limit, row.ours
        if wanted.any():
            seen.add(part_of(row.ours))
    assert seen == {"encoder", "adapter", "projector", "text"}


def test_frozen_text_gets_no_gradient_and_eyes_the_same_one(ours: Any) -> None:
    tokens, pixels = example()
    loss_of(ours.logits(tokens, pixels), tokens).backward()
    whole = {name: p.grad.clone() for name, p in ours.vision.named_parameters()}
    ours.zero_grad()
    names = l4.freeze(ours, ["embedding", "layers.**", "norm", "head"])
    assert {part_of(name) for name in names} == {"text"}
    loss_of(ours.logits(tokens, pixels), tokens).backward()
    for name, parameter in ours.named_parameters():
        if part_of(name) == "text":
            assert parameter.grad is None, name
    for name, parameter in ours.vision.named_parameters():
        # Not one product is another one: what is left out is what nobody asked for.
        assert torch.equal(parameter.grad, whole[name]), name


def test_both_ways_of_saying_it_are_one(ours: Any) -> None:
    l4.freeze(ours, ["embedding", "layers.**", "norm", "head"])
    one = {name for name, p in ours.named_parameters() if p.requires_grad}
    assert one == set(l4.train_only(ours, ["vision"])) == set(l4.train_only(ours, ["vision.**"]))
    assert {part_of(name) for name in one} == {"encoder", "adapter", "projector"}


def test_with_frozen_eyes_no_graph_is_built_in_them(ours: Any) -> None:
    """Only the text model is trained: features come out as in inference."""
    tokens, pixels = example()
    l4.freeze(ours, ["vision"])
    assert not ours.vision(pixels).requires_grad
    loss_of(ours.logits(tokens, pixels), tokens).backward()
    assert all(p.grad is None for p in ours.vision.parameters())
    assert all(p.grad is not None for p in ours.layers[0].parameters())


def test_only_the_bridge(ours: Any) -> None:
    """The first stage of many recipes: adapter and projection beside two frozen models."""
    tokens, pixels = example()
    l4.train_only(ours, ["vision.adapter", "vision.projector"])
    assert not ours.vision.encoder(pixels).features.requires_grad
    loss_of(ours.logits(tokens, pixels), tokens).backward()
    trained = {part_of(name) for name, p in ours.named_parameters() if p.grad is not None}
    assert trained == {"adapter", "projector"}


def test_words_before_the_first_picture_need_no_graph(ours: Any) -> None:
    """A prompt without pictures is inference when only the eyes are trained."""
    l4.train_only(ours, ["vision"])
    assert not ours.logits(random_tokens(1, 9, PATCH, 1)).requires_grad


@pytest.mark.parametrize("fused", [False, True], ids=["each", "fused"])
def test_five_steps_on_the_eyes_leave_the_text_model_as_it_was(ours: Any, fused: bool) -> None:
    """An encoder trained beside a frozen text model, as published."""
    tokens, pixels = example()
    before = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    text = ours.logits(random_tokens(1, 20, PATCH, 9)).detach()
    names = l4.train_only(ours, ["vision"])
    trained = [ours.get_parameter(name) for name in names]
    # A thousandth of a weight's size a step; weight decay would reach frozen weights if they were
    # handed over, so everything is.
    chosen = list(ours.parameters()) if not fused else trained
    optimizer = torch.optim.AdamW(chosen, lr=1e-3, weight_decay=0.1, fused=fused)
    losses = []
    for _ in range(5):
        loss = loss_of(ours.logits(tokens, pixels), tokens)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    losses.append(loss_of(ours.logits(tokens, pixels), tokens).item())
    assert losses == sorted(losses, reverse=True), losses
    after = ours.state_dict()
    for name, tensor in before.items():
        # Nothing of the eyes stands still but what gets no gradient at all.
        assert torch.equal(after[name], tensor) == (part_of(name) == "text"), name
    assert torch.equal(ours.logits(random_tokens(1, 20, PATCH, 9)).detach(), text)


def test_training_never_writes_into_the_checkpoint(theirs: Any, tmp_path: Path) -> None:
    """The files are mapped, and stay what they were."""
    folder = saved(theirs, tmp_path / "sound")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    model = l4.load(folder)
    l4.train_only(model, ["vision"])
    tokens, pixels = example()
    optimizer = torch.optim.SGD(model.vision.parameters(), lr=0.1)
    loss_of(model.logits(tokens, pixels), tokens).backward()
    optimizer.step()
    l4.save(model, tmp_path / "trained")
    again, trained = l4.load(tmp_path / "trained").state_dict(), model.state_dict()
    assert again.keys() == trained.keys()
    assert all(torch.equal(again[name], trained[name]) for name in trained)
    assert before == {path.name: path.read_bytes() for path in folder.iterdir()}
