"""Our mixture inside transformers' Llama 4: same state dict, equal logits, less work.

    python examples/moe_inside_transformers.py

transformers computes every expert for every token and adds up zeros. The module below takes the
place of its ``Llama4TextMoe``: the checkpoint keys and shapes stay as they are.
"""

from __future__ import annotations

import statistics
import time

import torch
from torch import Tensor, nn
from transformers import Llama4ForCausalLM, Llama4TextConfig
from transformers.models.llama4.modeling_llama4 import Llama4TextMoe

from llama4_core.protocols.routing import RoutingInfo
from llama4_core.protocols.weights import ExpertWeights
from llama4_moe.experts.loop import LoopExperts
from llama4_moe.routers.sigmoid import SigmoidTopK


class RoutedMoe(nn.Module):
    """Drop-in for ``Llama4TextMoe``; takes over its parameters, nothing is copied."""

    def __init__(self, theirs: Llama4TextMoe) -> None:
        super().__init__()
        self.router = SigmoidTopK(theirs.hidden_dim, theirs.num_experts, theirs.top_k)
        self.router.weight = theirs.router.weight
        self.experts = theirs.experts  # holds gate_up_proj [E, D, 2F] and down_proj [E, F, D]
        self.shared_expert = theirs.shared_expert
        self.backend = LoopExperts()

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, Tensor]:
        x = hidden_states.reshape(-1, hidden_states.shape[-1])
        routing = self.router(x, RoutingInfo())
        # Backends take [E, out, in] in any strides: a transposed view of the checkpoint's layout.
        weights = ExpertWeights(
            self.experts.gate_up_proj.transpose(1, 2), self.experts.down_proj.transpose(1, 2)
        )
        y = self.shared_expert(x) + self.backend(x, routing, weights, weight_on="input")
        return y, routing.logits


def replace(model: Llama4ForCausalLM) -> None:
    """Puts :class:`RoutedMoe` in the place of every mixture of the model."""
    for layer in model.model.layers:
        if isinstance(layer.feed_forward, Llama4TextMoe):
            layer.feed_forward = RoutedMoe(layer.feed_forward)


def seconds(model: Llama4ForCausalLM, tokens: Tensor) -> float:
    """CPU time of one forward."""
    start = time.thread_time()
    model(tokens)
    return time.thread_time() - start


def main() -> None:
    """Compares logits and times."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = Llama4TextConfig(
        vocab_size=512,
        hidden_size=256,
        intermediate_size=512,
        intermediate_size_mlp=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        num_local_experts=16,
        num_experts_per_tok=1,
        interleave_moe_layer_step=1,
        attention_chunk_size=128,
        max_position_embeddings=1024,
        pad_token_id=0,
        attn_implementation="eager",
    )
    theirs = Llama4ForCausalLM(config).eval()
    for layer in theirs.model.layers:  # transformers leaves the experts' weights to the checkpoint
        for weight in layer.feed_forward.parameters():
            nn.init.normal_(weight, std=0.05)
    ours = Llama4ForCausalLM(config).eval()
    replace(ours)
    print("same state dict:", ours.load_state_dict(theirs.state_dict()))
    with torch.inference_mode():
        tokens = torch.randint(1, 512, (2, 192))
        want = theirs(tokens).logits
        got = ours(tokens).logits
        error = float((got - want).abs().max() / want.abs().max())
        print(f"largest difference of the logits: {error:.1e} of the largest logit")
        if error > 1e-5:  # float32; another order of the same sums
            raise SystemExit("the logits differ")
        for name, few in (("1 token", tokens[:1, :1]), ("384 tokens", tokens)):
            ratios = [seconds(theirs, few) / seconds(ours, few) for _ in range(7)]
            print(
                f"{name}: the whole model takes {statistics.median(ratios):.1f}x less CPU time "
                f"than transformers alone ({min(ratios):.1f} to {max(ratios):.1f}, 7 pairs)"
            )


if __name__ == "__main__":
    main()
