"""The standalone mixture: parity with transformers, its laws, and other people's training code."""

import functools
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import Llama4TextConfig
from transformers.models.llama4.modeling_llama4 import Llama4TextMoe

from llama4_core.errors import ComponentError, SpecError
from llama4_core.protocols.routing import Routing, RoutingInfo
from llama4_moe import MoE, MoEConfig
from llama4_moe.testing.moe_checks import CHECKS

BACKENDS = ("auto", "loop", "grouped", "padded-bmm", "dense")


def make(backend="auto", dtype=torch.float32, **changes):
    torch.manual_seed(0)
    settings = {"hidden": 16, "experts": 6, "top_k": 1, "width": 24, "shared_width": 16}
    return MoE(MoEConfig(**{**settings, **changes}), backend).to(dtype)


def peer(experts, top_k, seed):
    """transformers' module and ours with the same weights."""
    torch.manual_seed(seed)
    config = Llama4TextConfig(
        hidden_size=16,
        intermediate_size=24,
        num_local_experts=experts,
        num_experts_per_tok=top_k,
    )
    theirs = Llama4TextMoe(config)
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    ours = MoE(MoEConfig(16, experts, top_k, 24, shared_width=24))
    state = theirs.state_dict()
    for name in ("experts.gate_up_proj", "experts.down_proj"):
        state[name] = state[name].transpose(1, 2)
    ours.load_state_dict(state)
    return ours, theirs


@pytest.mark.parametrize("backend", BACKENDS)
@given(
    tokens=st.sampled_from((1, 2, 9, 40)),
    experts=st.integers(1, 9),
    top_k=st.integers(1, 3),
    seed=st.integers(0, 2**31),
    grad=st.booleans(),
)
def test_equals_transformers(backend, tokens, experts, top_k, seed, grad):
    top_k = min(top_k, experts)
    ours, theirs = peer(experts, top_k, seed)
    ours.backend = backend
    x = torch.randn(tokens, 16)
    with torch.set_grad_enabled(grad):
        want, logits = theirs(x)
        got, routing = ours(x, return_routing=True)
    if top_k < experts:
        ordered = logits.sort(dim=1, descending=True).values
        if (ordered[:, top_k - 1] - ordered[:, top_k]).min() < 1e-4:
            return  # a near tie may fall either way
    # Float32: 5e-6 of the largest value, at least 2e-5.
    bound = max(2e-5, 5e-6 * float(want.detach().abs().max()))
    assert (got - want).abs().max() <= bound
    torch.testing.assert_close(routing.logits, logits, rtol=1e-5, atol=1e-5)


def test_gradients_equal_those_of_transformers():
    ours, theirs = peer(5, 2, 3)
    x = torch.randn(12, 16)
    ours(x).square().sum().backward()
    theirs(x)[0].square().sum().backward()
    names = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        want = names[name].grad
        want = want.transpose(1, 2) if name.startswith("experts") else want
        # Sums over 12 tokens in another order.
        bound = 1e-5 * float(want.abs().max())
        torch.testing.assert_close(parameter.grad, want, rtol=1e-4, atol=bound)


def test_weight_on_the_input_is_not_weight_on_the_output():
    x = torch.randn(8, 16)
    on_input, on_output = make(), make(weight_on="output")
    assert (on_input(x) - on_output(x)).abs().max() > 1e-4


def test_gates_near_zero_leave_the_shared_expert():
    module = make()
    with torch.no_grad():
        module.router.weight.fill_(-1000.0)
    x = torch.rand(5, 16) + 0.5
    torch.testing.assert_close(module(x), module.shared_expert(x))


@pytest.mark.parametrize("backend", BACKENDS)
def test_forced_experts_get_the_gates_of_their_own_logits(backend):
    module = make(backend, top_k=2)
    x = torch.randn(4, 16)
    forced = torch.tensor([[0, 5], [3, -1], [2, 1], [-1, -1]])
    y, routing = module(x, info=RoutingInfo(forced=forced), return_routing=True)
    logits = x @ module.router.weight.T
    want = logits.gather(1, forced.clamp(min=0)).sigmoid().masked_fill(forced < 0, 0)
    torch.testing.assert_close(routing.weights, want, rtol=1e-5, atol=1e-6)
    assert torch.equal(routing.experts, forced)
    torch.testing.assert_close(y[3], module.shared_expert(x[3:])[0])
    # Forcing the router's own choice changes nothing.
    own, chosen = module(x, return_routing=True)
    again = module(x, info=RoutingInfo(forced=chosen.experts))
    assert torch.equal(own, again)


def test_a_router_without_gates_cannot_be_forced():
    class Fixed(torch.nn.Module):
        def forward(self, x, info):
            return Routing(torch.zeros(len(x), 1).long(), torch.ones(len(x), 1))

    module = MoE(MoEConfig(16, 4, 1, 8), router=Fixed())
    assert module(torch.randn(3, 16)).shape == (3, 16)
    with pytest.raises(ComponentError, match="Fixed cannot be forced"):
        module(torch.randn(1, 16), info=RoutingInfo(forced=torch.tensor([[1]])))


@pytest.mark.parametrize("name", [name for name in CHECKS if name != "compile"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("top_k", [1, 2])
def test_in_other_peoples_training_code(name, backend, top_k):
    CHECKS[name](functools.partial(make, backend, top_k=top_k), 16)


@pytest.mark.parametrize("backend", BACKENDS)
def test_autocast_reaches_every_backend(backend):
    x = torch.randn(5, 16)
    for shared_width in (0, 16):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y, routing = make(backend, shared_width=shared_width)(x, return_routing=True)
        assert y.dtype == torch.bfloat16
        assert routing.logits.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiles_whole(dtype):
    CHECKS["compile"](functools.partial(make, dtype=dtype, top_k=2, experts=4), 16)


def test_an_object_as_backend():
    seen = []

    def backend(x, routing, weights, *, weight_on="input"):
        seen.append((x.shape, weights.gate_up.shape, weight_on))
        return torch.zeros_like(x)

    module = make(backend)
    x = torch.randn(2, 3, 16)
    torch.testing.assert_close(module(x), module.shared_expert(x))
    assert seen == [((6, 16), (6, 48, 16), "input")]


def test_each_expert_is_three_matrices_that_share_memory():
    bank = make().experts
    gate, up, down = bank.expert(4)
    assert gate.shape == up.shape == (24, 16)
    assert down.shape == (16, 24)
    with torch.no_grad():
        up.fill_(7.0)
    assert (bank.gate_up_proj[4, 24:] == 7).all()
    assert not (bank.gate_up_proj[4, :24] == 7).any()
    x = torch.randn(3, 16)
    routing = Routing(torch.full((3, 1), 4), torch.ones(3, 1))
    want = (torch.nn.functional.silu(x @ gate.T) * (x @ up.T)) @ down.T
    got = bank(x, routing, make("loop")._backends["loop"], "input")
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-4)  # values near 100
    with pytest.raises(ComponentError, match="expert 6 does not exist; expected 0 to 5"):
        bank.expert(6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"top_k": 7}, "top_k is 7"),
        ({"experts": 0}, "experts is 0"),
        ({"activation": "swish"}, "'swish'.*silu"),
        ({"weight_on": "both"}, "'both'"),
        ({"shared_width": -1}, "shared_width is -1"),
    ],
)
def test_bad_configurations_say_what_was_expected(change, message):
    with pytest.raises(SpecError, match=message):
        make(**change)


def test_bad_names_and_shapes():
    with pytest.raises(ComponentError, match="'lop' does not exist; expected 'auto', 'loop'"):
        make("lop")
    with pytest.raises(ComponentError, match="router 'hash' does not exist"):
        make(router="hash")
    for x in (torch.randn(2, 8), torch.tensor(1.0)):
        with pytest.raises(ComponentError, match=r"shape \[.*expected a last axis of hidden 16"):
            make()(x)


def test_a_named_backend_that_cannot_run_says_why():
    with pytest.raises(ComponentError, match=r"'grouped' cannot run here.*float64; .*'auto'"):
        make("grouped", torch.float64)(torch.randn(3, 16, dtype=torch.float64))
    with pytest.raises(ComponentError, match="width 20 of bfloat16 is 40"):
        make("grouped", torch.bfloat16, width=20)(torch.randn(3, 16).bfloat16())
    # what "auto" takes in its place
    assert make("auto", torch.bfloat16, width=20)(torch.randn(3, 16).bfloat16()).isfinite().all()


def test_the_catalogue_is_not_built():
    code = (
        "from llama4_moe import MoE, MoEConfig; import torch;"
        "MoE(MoEConfig(8, 2, 1, 8))(torch.zeros(1, 8));"
        "from llama4_core.plugins.catalogue import catalogue;"
        "print(catalogue.cache_info().misses)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "0"
