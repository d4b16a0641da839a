"""What is adapted, what is frozen, and what is refused."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

import llama4_core as l4
from llama4_core.errors import CheckpointError, OverrideError
from llama4_train.errors import TrainingError
from llama4_train.lora import (
    adapted,
    apply_lora,
    merge,
    remove,
    unmerge,
)
from llama4_train.lora.attach import places
from llama4_train.optimizers.roles import parameters_of

from .small import EVERYTHING, IDS, model_of, shaken


def test_targets_choose_what_is_adapted_and_the_rest_is_frozen() -> None:
    model = model_of()
    model.logits(IDS).sum().backward()  # gradients are left over
    found = apply_lora(model, 3, 6.0, ["layers.*.feed_forward", "layers.[1].attention.q_proj"])
    assert all(p.grad is None for p in model.parameters())
    assert [one.name for one in found] == [
        "layers.0.feed_forward.gate_proj.weight",
        "layers.0.feed_forward.up_proj.weight",
        "layers.0.feed_forward.down_proj.weight",
        "layers.1.attention.q_proj.weight",
        "layers.1.feed_forward.experts.gate_up_proj",
        "layers.1.feed_forward.experts.down_proj",
        "layers.1.feed_forward.shared_expert.gate_proj.weight",
        "layers.1.feed_forward.shared_expert.up_proj.weight",
        "layers.1.feed_forward.shared_expert.down_proj.weight",
    ]
    assert found[4].shape == (4, 24, 16)
    assert found[4].size == 4 * 3 * (24 + 16)
    trained = parameters_of(model)
    assert sum(one.value.numel() for one in trained) == sum(one.size for one in found)
    assert all(".lora." in one.name for one in trained)
    assert {one.role for one in trained} == {"matrix", "experts"}
    # Another rank for other weights; what there was stays trained.
    more = apply_lora(model, 1, 1.0, ["layers.[0].attention"])
    assert [one.rank for one in more] == [1, 1, 1, 1]
    assert len(parameters_of(model)) == 2 * (len(found) + 4)


def test_fresh_adapters_follow_the_seed_and_the_name() -> None:
    def drawn(seed: int, targets: tuple[str, ...]) -> dict[str, Tensor]:
        model = model_of()
        apply_lora(model, 3, 6.0, targets, seed=seed)
        return {place.name: place.adapter.A.detach() for place in places(model)}

    first, again = drawn(1, EVERYTHING), drawn(1, ("layers.[1].attention", "**.experts"))
    assert all(torch.equal(A, first[name]) for name, A in again.items())
    assert not any(torch.equal(A, first[name]) for name, A in drawn(2, EVERYTHING).items())
    shapes: dict[Any, list[Tensor]] = {}
    for A in first.values():
        # The bound of torch's linear layers; the experts of a stack begin differently.
        assert float(A.abs().max()) <= A.shape[-1] ** -0.5
        assert float(A.abs().max()) > 0.8 * A.shape[-1] ** -0.5
        shapes.setdefault(A.shape, []).append(A)
        assert A.dim() == 2 or not torch.equal(A[0], A[1])
    assert not any(torch.equal(A, B) for same in shapes.values() for A, B in pairwise(same))


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("layers.*.feed_forwards", "addresses no parameter"),
        ("embedding", "embedding.weight is neither"),
        ("head", "head.weight is the head"),
        ("norm", "norm.weight is neither"),
        ("layers.*.feed_forward.router", "router.weight is neither"),
    ],
)
def test_what_cannot_be_adapted_is_named(target: str, why: str) -> None:
    model = model_of()
    with pytest.raises(OverrideError, match=why):
        apply_lora(model, 2, 4.0, ["layers.*.attention", target])
    assert not adapted(model)
    assert all(p.requires_grad for p in model.parameters())


def test_bad_numbers_are_refused() -> None:
    model = model_of()
    for arguments, why in (
        ((0, 1.0, ["layers.*.attention"]), "rank is 0"),
        ((2, 0.0, ["layers.*.attention"]), "alpha is 0"),
        ((2, 1.0, ["layers.*.attention"], 1.0), "dropout is 1"),
    ):
        with pytest.raises(TrainingError, match=why):
            apply_lora(model, *arguments)
    with pytest.raises(OverrideError, match="is the string"):
        apply_lora(model, 2, 1.0, "layers.*.attention")
    with pytest.raises(OverrideError, match="targets is empty"):
        apply_lora(model, 2, 1.0, [])
    for call in (merge, unmerge, remove):
        with pytest.raises(TrainingError, match="the model has no"):
            call(model)
    apply_lora(model, 2, 1.0, ["layers.*.attention"])
    with pytest.raises(
        TrainingError, match=r"layers\.1\.attention\.k_proj\.weight has an adapter on"
    ):
        apply_lora(model, 2, 1.0, ["layers.[1].attention.k_proj"])
    merge(model)
    with pytest.raises(TrainingError, match="has an adapter merged into it"):
        apply_lora(model, 2, 1.0, ["layers.[1].attention.k_proj"])


def test_an_adapted_model_is_not_saved_as_a_whole(tmp_path: Any) -> None:
    model = model_of()
    apply_lora(model, 2, 4.0, EVERYTHING)
    shaken(model)
    with pytest.raises(CheckpointError, match=r"merge them with llama4_train\.lora\.merge"):
        l4.save(model, tmp_path / "model")
    assert not (tmp_path / "model").exists()
    merge(model)
    l4.save(model, tmp_path / "model")
    assert torch.equal(l4.load(tmp_path / "model").logits(IDS), model.logits(IDS))
