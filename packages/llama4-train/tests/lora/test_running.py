"""Adapters under dropout, other backends, compilation and autocast."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from llama4_moe import MoE, MoEConfig
from llama4_moe.plugin import EXPERT_BACKENDS
from llama4_train.errors import TrainingError
from llama4_train.lora import (
    apply_lora,
)

from .small import EVERYTHING, IDS, Silent, layer_of, model_of, shaken


def test_dropout_hides_inputs_of_a_in_training_alone() -> None:
    model = model_of()
    apply_lora(model, 2, 4.0, EVERYTHING, dropout=0.5)
    shaken(model)
    still = model.logits(IDS)
    assert torch.equal(model.logits(IDS), still)
    model.train()
    torch.manual_seed(0)
    one, other = model.logits(IDS), model.logits(IDS)
    assert not torch.equal(one, other)
    bank = layer_of("loop")
    apply_lora(bank, 2, 4.0, ["experts.gate_up_proj"], dropout=0.5)
    shaken(bank)
    x = torch.randn(5, 8, dtype=torch.float64)
    assert not torch.equal(bank.train()(x), bank(x))
    assert torch.equal(bank.eval()(x), bank(x))
    # On average nothing changes: of one projection, whose output is linear in what is dropped.
    layer = nn.Sequential(nn.Linear(6, 4)).double()
    apply_lora(layer, 2, 4.0, ["0"], dropout=0.25)
    shaken(layer)
    x = torch.randn(6, dtype=torch.float64).repeat(20_000, 1)
    mean = layer.train()(x).mean(0)
    # Eight standard errors of 20,000 draws of numbers of the order of 0.3.
    assert torch.allclose(mean, layer.eval()(x[0]), atol=0.02)


def test_dropout_is_refused_where_weights_are_merged_in_the_forward() -> None:
    layer = layer_of("loop")
    layer.backend = Silent(layer._backends["loop"])
    apply_lora(layer, 2, 4.0, ["experts"], dropout=0.1)
    layer.eval()(torch.ones(3, 8, dtype=torch.float64))
    with pytest.raises(TrainingError, match="Silent runs on merged weights"):
        layer.train()(torch.ones(3, 8, dtype=torch.float64))


def test_every_backend_of_ours_runs_experts_by_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """They say their activation; without it each forward would copy the bank."""

    def refuse(*_: Any) -> Tensor:
        raise AssertionError("merged in the forward")

    monkeypatch.setattr("llama4_train.lora.experts._written_out", refuse)
    x = torch.randn(5, 8, dtype=torch.float64)
    for component in EXPERT_BACKENDS:
        layer = layer_of()
        layer.backend = component.build(activation="gelu")
        apply_lora(layer, 2, 4.0, ["experts"])
        assert layer(x).shape == x.shape


def test_another_activation_is_kept() -> None:
    layer = layer_of("loop", activation="relu2")
    apply_lora(layer, 2, 4.0, ["experts"])
    x = torch.randn(5, 8, dtype=torch.float64)
    with torch.no_grad():
        plain = layer_of("loop", activation="relu2")(x)
        # Another order of the same sums.
        assert torch.allclose(layer(x), plain, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("dtype", "rank"), [(torch.float32, 3), (torch.bfloat16, 8), (torch.bfloat16, 3)]
)
def test_compiles_without_a_break(dtype: torch.dtype, rank: int) -> None:
    """Where the grouped product runs (bfloat16, aligned) and where weights are merged."""
    torch._dynamo.reset()
    config = MoEConfig(hidden=16, width=16, experts=4, top_k=2, shared_width=8)
    torch.manual_seed(0)
    layer = MoE(config).to(dtype)
    apply_lora(layer, rank, 8.0, ["experts", "shared_expert"])
    shaken(layer)
    x = torch.randn(9, 16, dtype=dtype)
    captured = torch.compile(layer, backend="aot_eager", fullgraph=True)
    gradients = []
    outputs = []
    for call in (layer, captured):
        layer.zero_grad()
        y = call(x)
        y.float().square().mean().backward()
        outputs.append(y.detach().float())
        gradients.append([p.grad.float() for p in layer.parameters() if p.requires_grad])
    # A merged bfloat16 weight is rounded once more: a few steps of 2 ** -8 of the largest.
    limit = 1e-5 if dtype == torch.float32 else 0.05
    for one, other in zip([outputs[0], *gradients[0]], [outputs[1], *gradients[1]], strict=True):
        assert float((one - other).abs().max()) <= limit * float(one.abs().max())


def test_autocast_computes_in_its_dtype() -> None:
    config = MoEConfig(hidden=16, width=16, experts=4, top_k=1, shared_width=8)
    layer = MoE(config)
    apply_lora(layer, 2, 4.0, ["experts", "shared_expert"])
    shaken(layer)
    x = torch.randn(7, 16)
    wanted = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        found = layer(x)
    found.float().sum().backward()
    assert found.dtype == torch.bfloat16
    # Sums of bfloat16 products: some steps of 2 ** -8.
    assert torch.allclose(found.float(), wanted, rtol=0.05, atol=0.05)
    assert all(p.grad.dtype == torch.float32 for p in layer.parameters() if p.requires_grad)
