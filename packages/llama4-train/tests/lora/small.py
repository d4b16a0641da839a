"""Small adapted models for the tests of this folder."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import llama4_core as l4
from llama4_core.model.initialise import initialise
from llama4_core.specs.layers import every, llama4_layers
from llama4_core.specs.model import DenseSpec, ModelSpec, MoESpec, RopeSpec, TemperatureSpec
from llama4_moe import MoE, MoEConfig
from llama4_train.lora.attach import places

EVERYTHING = ("layers.*.attention", "layers.*.feed_forward")

IDS = torch.randint(0, 31, (2, 11), generator=torch.Generator().manual_seed(5))


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


class Silent:
    """A backend that does not say its activation: it gets merged weights."""

    def __init__(self, backend: Any) -> None:
        self.backend = backend

    def __call__(self, *given: Any, **named: Any) -> Tensor:
        return self.backend(*given, **named)
