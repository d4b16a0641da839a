"""The mixture as a feed-forward of llama4-core: equal to the standalone one."""

import dataclasses

import torch

from llama4_core.plugins.regimes import Regime, RegimeTable
from llama4_core.protocols.routing import RoutingInfo
from llama4_core.specs.model import MoESpec
from llama4_moe import MoE, MoEConfig
from llama4_moe.experts.dense import DenseExperts
from llama4_moe.experts.loop import LoopExperts
from llama4_moe.feed_forward import MoEFeedForward
from llama4_moe.plugin import ROUTERS


@dataclasses.dataclass
class Assembler:
    """The part of an assembler that the feed-forward uses."""

    path: str = "layers.0.feed_forward"
    dtype: str = "float32"
    device: str = "cpu"

    def build(self, socket, slot, name, *args, **kwargs):
        assert (socket, slot) == ("routers", "router")
        return next(each for each in ROUTERS if each.name == name).build(*args, **kwargs)

    def regimes(self, socket, slot, name, problem):
        assert (socket, slot, name) == ("expert_backends", "backend", "auto")
        self.problem = problem
        rows = (Regime(4, None, "loop", LoopExperts()), Regime(None, None, "dense", DenseExperts()))
        return RegimeTable(rows)


def test_equals_the_standalone_mixture_and_names_its_parameters():
    torch.manual_seed(0)
    spec = MoESpec(6, 2, 24, 16, "sigmoid-top-k")
    assembler = Assembler()
    module = MoEFeedForward(spec, 16, assembler)
    shapes = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    assert shapes == {
        "router.weight": (6, 16),
        "experts.gate_up_proj": (6, 48, 16),
        "experts.down_proj": (6, 16, 24),
        "shared_expert.gate_proj.weight": (16, 16),
        "shared_expert.up_proj.weight": (16, 16),
        "shared_expert.down_proj.weight": (16, 16),
    }
    problem = assembler.problem
    assert (problem.experts, problem.top_k, problem.hidden, problem.width) == (6, 2, 16, 24)
    alone = MoE(MoEConfig(16, 6, 2, 24, shared_width=16))
    alone.load_state_dict(module.state_dict())
    for tokens in (0, 1, 4, 11):  # both rows of the table
        x = torch.randn(tokens, 16)
        y, routing = module(x, RoutingInfo())
        assert routing.experts.shape == (tokens, 2)
        # Two backends: another order of the sums.
        torch.testing.assert_close(y, alone(x), rtol=1e-5, atol=1e-5)


def test_without_a_shared_expert():
    module = MoEFeedForward(MoESpec(4, 1, 8, 0, "softmax-top-k"), 16, Assembler())
    assert not any("shared" in name for name in module.state_dict())
    y, _ = module(torch.randn(3, 16), RoutingInfo(forced=torch.full((3, 1), -1)))
    assert torch.equal(y, torch.zeros(3, 16))
