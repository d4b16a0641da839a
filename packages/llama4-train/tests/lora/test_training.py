"""Adapters in training: steps, recomputation, sharding, and their own files."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from llama4_moe import MoE, MoEConfig
from llama4_train.lora import (
    adapted,
    apply_lora,
    load_adapter,
    merge,
    save_adapter,
)
from llama4_train.lora.attach import places
from llama4_train.objectives.next_token import NextToken
from llama4_train.optimizers.roles import parameters_of
from llama4_train.protocols import Batch, StepFacts

from .small import EVERYTHING, IDS, layer_of, model_of, shaken


def batch_of(seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, 31, (20,), generator=generator)
    targets = torch.cat([tokens[1:], torch.tensor([-100])])
    weights = (targets >= 0).float()
    return Batch(tokens, targets, weights, (20,))


def test_training_changes_adapters_alone_and_helps() -> None:
    """Twenty steps of the objective; the frozen weights get no gradient at all."""
    model = model_of().train()
    apply_lora(model, 4, 8.0, EVERYTHING)
    frozen = {n: p.detach().clone() for n, p in model.named_parameters() if not p.requires_grad}
    batch = batch_of()
    facts = StepFacts(number=0, weight=batch.weight, tokens=20)
    optimizer = torch.optim.AdamW([one.value for one in parameters_of(model)], lr=0.02)
    losses = []
    for _ in range(20):
        loss = NextToken()(model, batch, facts).total
        loss.backward()
        losses.append(float(loss.detach()))
        optimizer.step()
        assert all(p.grad is None for n, p in model.named_parameters() if n in frozen)
        optimizer.zero_grad()
    assert losses[-1] < 0.7 * losses[0]
    now = dict(model.named_parameters())
    assert all(torch.equal(now[name], value) for name, value in frozen.items())
    assert all(bool(place.adapter.B.any()) for place in places(model))


def test_recomputing_a_block_gives_the_same_gradients() -> None:
    layer = layer_of("loop")
    apply_lora(layer, 2, 4.0, ["experts"])
    shaken(layer)
    x = torch.randn(5, 8, dtype=torch.float64, requires_grad=True)
    trained = [p for p in layer.parameters() if p.requires_grad]
    wanted = torch.autograd.grad(layer(x).square().sum(), [x, *trained])
    found = torch.autograd.grad(
        checkpoint(layer, x, use_reentrant=False).square().sum(), [x, *trained]
    )
    assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))


@pytest.fixture
def alone() -> Any:
    """A process group of this process."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_sharded_modules_gather_their_adapters(alone: None) -> None:
    """FSDP2 around the bank, around projections and around all; DDP around all."""

    def make() -> MoE:
        config = MoEConfig(hidden=8, width=6, experts=4, top_k=1, shared_width=6)
        torch.manual_seed(1)
        layer = MoE(config, "loop")
        apply_lora(layer, 2, 4.0, ["experts", "shared_expert"])
        shaken(layer)
        return layer

    x = torch.randn(5, 8)

    def gradients(layer: nn.Module) -> list[Tensor]:
        layer(x).square().sum().backward()
        found = [p.grad for p in layer.parameters() if p.requires_grad]
        return [g.full_tensor() if isinstance(g, DTensor) else g for g in found]

    wanted = gradients(make())
    inner = make()
    fully_shard(inner.experts)
    fully_shard(inner.shared_expert.gate_proj)
    for layer in (fully_shard(inner), fully_shard(make()), DistributedDataParallel(make())):
        # One process: the same sums in the same order.
        assert all(
            torch.allclose(one, other, rtol=1e-6)
            for one, other in zip(gradients(layer), wanted, strict=True)
        )


def test_own_files_bring_back_every_bit(tmp_path: Any) -> None:
    model = model_of("bfloat16")
    apply_lora(model, 3, 5.0, ["layers.*.attention", "**.experts"])
    apply_lora(model, 2, 1.5, ["**.shared_expert"])
    shaken(model)
    written = save_adapter(model, tmp_path / "adapter", base="tiny")
    assert written == [one.name for one in adapted(model)]
    other = model_of("bfloat16")
    assert load_adapter(other, tmp_path / "adapter") == adapted(model)
    state = model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in other.state_dict().items())
    assert torch.equal(other.logits(IDS), model.logits(IDS))
    assert [one.name for one in parameters_of(other)] == [one.name for one in parameters_of(model)]
    # A merged model has them too.
    merge(other)
    save_adapter(other, tmp_path / "again")
    for name in ("adapter_model.safetensors",):
        assert (tmp_path / "again" / name).read_bytes() == (
            tmp_path / "adapter" / name
        ).read_bytes()
