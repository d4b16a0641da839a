"""Adapters beside weights: what they compute, what they train, and that they leave no trace."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

import llama4_core as l4
from llama4_core.errors import CheckpointError, OverrideError
from llama4_core.model.initialise import initialise
from llama4_core.protocols.routing import Routing
from llama4_core.specs.layers import every, llama4_layers
from llama4_core.specs.model import DenseSpec, ModelSpec, MoESpec, RopeSpec, TemperatureSpec
from llama4_moe import MoE, MoEConfig
from llama4_moe.plugin import EXPERT_BACKENDS
from llama4_train.errors import TrainingError
from llama4_train.lora import (
    adapted,
    apply_lora,
    load_adapter,
    merge,
    remove,
    save_adapter,
    unmerge,
)
from llama4_train.lora.attach import places
from llama4_train.objectives.next_token import NextToken
from llama4_train.optimizers.roles import parameters_of
from llama4_train.protocols import Batch, StepFacts

EVERYTHING = ("layers.*.attention", "layers.*.feed_forward")


def model_of(dtype: str = "float32", seed: int = 3) -> Any:
    """Two layers, a dense one and one with four experts and a shared one."""
    spec = ModelSpec(
        name="tiny-for-tests",
        vocabulary=31,
        width=16,
        norm_eps=1e-5,
        max_positions=64,
        tied=False,
        layers=llama4_layers(
            2,
            heads=2,
            kv_heads=1,
            head_dim=8,
            rope=RopeSpec(10_000.0),
            chunk=4,
            qk_norm=True,
            temperature=TemperatureSpec(scale=0.1, floor=3),
            position_free=every(2, 2),
            moe_layers=(1,),
            moe=MoESpec(4, top_k=2, width=12, shared_width=8, router="sigmoid-top-k"),
            dense=DenseSpec(24),
        ),
        dtype=dtype,
    )
    model = l4.assemble(spec, device="cpu")
    initialise(model, seed)
    return model.eval()


def shaken(model: nn.Module, seed: int = 0, size: float = 0.3) -> None:
    """Gives every adapter a B that is not zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for place in places(model):
            B = place.adapter.B
            B.copy_(size * torch.randn(B.shape, generator=generator, dtype=torch.float64))


def layer_of(
    backend: Any = "auto", *, weight_on: str = "input", top_k: int = 2, **more: Any
) -> MoE:
    """Experts in anybody's model."""
    torch.manual_seed(1)
    config = MoEConfig(hidden=8, width=6, experts=4, top_k=top_k, weight_on=weight_on, **more)
    return MoE(config, backend).double()


IDS = torch.randint(0, 31, (2, 11), generator=torch.Generator().manual_seed(5))


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


class Silent:
    """A backend that does not say its activation: it gets merged weights."""

    def __init__(self, backend: Any) -> None:
        self.backend = backend

    def __call__(self, *given: Any, **named: Any) -> Tensor:
        return self.backend(*given, **named)


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
