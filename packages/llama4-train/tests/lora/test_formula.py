"""What adapters compute, and their gradients, against the formula."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn

from llama4_core.protocols.routing import Routing
from llama4_moe import MoE
from llama4_train.lora import (
    adapted,
    apply_lora,
    merge,
)
from llama4_train.lora.attach import places

from .small import EVERYTHING, IDS, Silent, layer_of, model_of, shaken


@given(
    rank=st.integers(1, 20),
    alpha=st.sampled_from((0.5, 3.0, 16.0)),
    seed=st.integers(0, 2**16),
    targets=st.sampled_from(
        (EVERYTHING, ("layers.*.attention.*_proj",), ("**.experts",), ("**.down_proj",))
    ),
)
def test_merged_equals_separate(
    rank: int, alpha: float, seed: int, targets: tuple[str, ...]
) -> None:
    """Property 44, and that both differ from the model before."""
    model = model_of()
    plain = model.logits(IDS).detach()
    apply_lora(model, rank, alpha, targets, seed=seed)
    with torch.no_grad():
        assert torch.equal(model.logits(IDS), plain)  # B is zero
        # Changes of the order of the weights, whatever the scale.
        shaken(model, seed, size=0.5 * rank**0.5 / alpha)
        forced = routes(model)
        separate = model.logits(IDS, forced=forced)
        merge(model)
        merged = model.logits(IDS, forced=forced)
    # Sums of some ten numbers in float32 through two layers, in another order: each rounds by
    # 6e-8, and norms of small vectors magnify that.
    limit = 2e-5 * max(1.0, float(separate.abs().max()))
    assert float((merged - separate).abs().max()) < limit
    assert float((separate - plain).abs().max()) > 100 * limit


def routes(model: Any) -> list[Tensor | None]:
    """Experts per layer: rounding at a router's tie must not decide anything here."""
    tokens = IDS.flatten()
    with torch.no_grad():
        _, routings = model(tokens, model.packed([IDS.shape[1]] * IDS.shape[0]))
    return [None if routing is None else routing.experts for routing in routings]


@st.composite
def routings(draw: st.DrawFn, experts: int = 4, top_k: int = 2) -> Routing:
    """Also tokens without an expert, experts without a token, and nobody visited at all."""
    tokens = draw(st.integers(1, 9))
    low = draw(st.sampled_from((-1, 0)))
    high = draw(st.sampled_from((0, 1, experts)))
    assume(high > low)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    ids = torch.randint(low, high, (tokens, top_k), generator=generator)
    weights = torch.rand(tokens, top_k, generator=generator, dtype=torch.float64)
    return Routing(ids, weights, None)  # an id of -1 contributes nothing, whatever its weight


def explicit(layer: MoE, x: Tensor, routing: Routing) -> Tensor:
    """The definition, token by token: every matrix is ``W + (alpha / rank) B A``."""
    bank = {}
    for name in ("gate_up_proj", "down_proj"):
        bank[name] = getattr(layer.experts, name)
    for place in places(layer):
        a, scale = place.adapter, place.adapter.alpha / place.adapter.rank
        bank[place.parameter] = bank[place.parameter] + scale * torch.einsum(
            "eor,eri->eoi", a.B, a.A
        )
    rows = []
    for token in range(x.shape[0]):
        total = torch.zeros_like(x[token])
        for slot in range(routing.experts.shape[1]):
            expert = int(routing.experts[token, slot])
            if expert < 0:
                continue
            weight = routing.weights[token, slot]
            seen = x[token] * weight if layer.config.weight_on == "input" else x[token]
            gate, up = (bank["gate_up_proj"][expert] @ seen).chunk(2)
            out = bank["down_proj"][expert] @ (F.silu(gate) * up)
            total = total + (out * weight if layer.config.weight_on == "output" else out)
        rows.append(total)
    return torch.stack(rows)


@given(
    routing=routings(),
    rank=st.integers(1, 5),
    targets=st.sampled_from((["experts"], ["experts.gate_up_proj"], ["experts.down_proj"])),
    weight_on=st.sampled_from(("input", "output")),
    merged=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_experts_and_their_gradients_follow_the_formula(
    routing: Routing, rank: int, targets: list[str], weight_on: str, merged: bool, seed: int
) -> None:
    """In float64: values, and gradients of tokens, router weights, A and B."""
    layer = layer_of("loop", weight_on=weight_on)
    backend = layer._backends["loop"]
    apply_lora(layer, rank, 3.0, targets, seed=seed)
    shaken(layer, seed)
    x = torch.randn(routing.experts.shape[0], 8, dtype=torch.float64, requires_grad=True)
    weights = routing.weights.clone().requires_grad_()
    given_routing = Routing(routing.experts, weights, None)
    trained = [p for p in layer.parameters() if p.requires_grad]
    assert len(trained) == 2 * len(adapted(layer))
    found = layer.experts(x, given_routing, Silent(backend) if merged else backend, weight_on)
    wanted = explicit(layer, x, given_routing)
    cotangent = torch.randn(x.shape, dtype=torch.float64)
    # Sums of fewer than a hundred numbers of the order of 1, in another order.
    assert torch.allclose(found, wanted, rtol=1e-10, atol=1e-12)
    leaves = [x, weights, *trained]
    gradients = [
        torch.autograd.grad((y * cotangent).sum(), leaves, allow_unused=True, retain_graph=True)
        if y.requires_grad
        else [None] * len(leaves)  # nobody was visited
        for y in (found, wanted)
    ]
    for leaf, one, other in zip(leaves, *gradients, strict=True):
        one, other = (torch.zeros_like(leaf) if g is None else g for g in (one, other))
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-11)
    # Data parallel training waits for a gradient of every trained parameter, zeros too.
    assert all(gradient is not None for gradient in gradients[0][2:])


@given(
    rank=st.integers(1, 6), bias=st.booleans(), axes=st.integers(1, 3), seed=st.integers(0, 2**16)
)
def test_projections_and_their_gradients_follow_the_formula(
    rank: int, bias: bool, axes: int, seed: int
) -> None:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(5, 7, bias=bias)).double()
    apply_lora(model, rank, 4.0, ["0"], seed=seed)
    shaken(model, seed)
    A, B = (p for p in model.parameters() if p.requires_grad)
    assert A.shape == (rank, 5)
    assert B.shape == (7, rank)
    x = torch.randn(*([2] * (axes - 1)), 3, 5, dtype=torch.float64, requires_grad=True)
    wanted = F.linear(x, model[0].weight + 4.0 / rank * B @ A, model[0].bias)
    found = model(x)
    # Sums of at most 11 numbers of the order of 1.
    assert torch.allclose(found, wanted, rtol=1e-10, atol=1e-13)
    for one, other in zip(
        torch.autograd.grad(found.square().sum(), [x, A, B]),
        torch.autograd.grad(wanted.square().sum(), [x, A, B]),
        strict=True,
    ):
        assert torch.allclose(one, other, rtol=1e-10, atol=1e-12)
