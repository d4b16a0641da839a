"""Merging, unmerging and removing leave no trace."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from llama4_train.errors import TrainingError
from llama4_train.lora import (
    adapted,
    apply_lora,
    merge,
    remove,
    unmerge,
)
from llama4_train.lora.attach import places

from .small import EVERYTHING, IDS, model_of, shaken


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
@pytest.mark.parametrize("layout", ["rows", "columns"])
def test_unmerging_is_exact(dtype: str, layout: str) -> None:
    """Bit for bit, in every dtype and for transposed weights too; and merging again is the same."""
    model = model_of(dtype)
    bank = model.layers[1].feed_forward.experts
    if layout == "columns":
        for name, stack in list(bank.named_parameters()):
            setattr(bank, name, nn.Parameter(stack.data.mT.contiguous().mT))
    apply_lora(model, 3, 6.0, EVERYTHING)
    shaken(model, size=3.0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    changed = merge(model)
    assert not [name for name in model.state_dict() if "lora" in name]
    merged = {name: value.clone() for name, value in model.state_dict().items()}
    differs = [name for name, value in merged.items() if not torch.equal(value, before[name])]
    assert sorted(differs) == sorted(changed) == sorted(one.name for one in adapted(model))
    assert unmerge(model) == changed
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in after.items())
    merge(model)
    assert all(torch.equal(value, merged[name]) for name, value in model.state_dict().items())


def test_merging_rounds_once() -> None:
    """The sum is taken in the adapter's float32, not in the bfloat16 of the weight."""
    model = model_of("bfloat16")
    apply_lora(model, 3, 6.0, EVERYTHING)
    shaken(model, size=0.02)
    wanted = {}
    for place in places(model):
        weight = getattr(place.module, place.parameter).detach().double()
        wanted[place.name] = (
            weight + 2.0 * (place.adapter.B.double() @ place.adapter.A.double()).detach()
        )
    merge(model)
    for name, weight in wanted.items():
        same = model.get_parameter(name) == weight.to(torch.bfloat16)
        # All but those at which float32 and float64 fall to different sides of a tie.
        assert float(same.float().mean()) > 0.99, name


def test_what_is_trained_is_kept_through_a_merge() -> None:
    """Evaluating a merged model in the middle of training changes neither flags nor values."""
    model = model_of()
    apply_lora(model, 2, 4.0, EVERYTHING)
    model.norm.weight.requires_grad_(True)
    flags = {name: p.requires_grad for name, p in model.named_parameters()}
    ids = {name: id(p) for name, p in model.named_parameters()}
    merge(model)
    unmerge(model)
    assert {name: p.requires_grad for name, p in model.named_parameters()} == flags
    assert {name: id(p) for name, p in model.named_parameters()} == ids  # an optimizer holds them


def test_unmerging_follows_a_move() -> None:
    model = model_of()
    apply_lora(model, 2, 4.0, ["layers.*.attention"])
    shaken(model)
    wanted = copy.deepcopy(model).double().logits(IDS)
    merge(model)
    model.double()
    unmerge(model)
    # The adapter stays float32: its numbers are the same.
    assert torch.allclose(model.logits(IDS), wanted, rtol=1e-6, atol=1e-6)
    assert model.layers[0].attention.q_proj.weight.dtype == torch.float64


def test_removing_leaves_no_trace() -> None:
    model = model_of()
    modules = {name: type(module) for name, module in model.named_modules()}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    plain = model.logits(IDS)
    names = [one.name for one in apply_lora(model, 2, 4.0, EVERYTHING)]
    shaken(model)
    assert remove(model) == names
    assert {name: type(module) for name, module in model.named_modules()} == modules
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(model.logits(IDS), plain)
    apply_lora(model, 2, 4.0, EVERYTHING)
    shaken(model)
    merge(model)
    merged = model.logits(IDS)
    remove(model)
    assert torch.equal(model.logits(IDS), merged)
    assert not adapted(model)
    with pytest.raises(TrainingError, match="has no merged adapter"):
        unmerge(model)


def test_a_copy_stands_alone() -> None:
    model = model_of()
    apply_lora(model, 2, 4.0, EVERYTHING)
    shaken(model)
    separate = model.logits(IDS)
    twin = copy.deepcopy(model)
    remove(twin)
    assert torch.equal(model.logits(IDS), separate)
    assert not torch.equal(twin.logits(IDS), separate)
    third = copy.deepcopy(model)
    remove(model)
    assert torch.equal(third.logits(IDS), separate)
