"""Tiny random Llama 4s of transformers, the oracle of the parity tests.

Weights are random but not meek (matrices by fan-in, routers three times that, norms 1 +- 0.2): a
wrong rotation, mask, norm or score then moves the logits by far more than rounding does.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Llama4ForCausalLM, Llama4TextConfig

BASE: dict[str, Any] = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 48,
    "intermediate_size_mlp": 96,
    "num_hidden_layers": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "num_local_experts": 4,
    "num_experts_per_tok": 1,
    "interleave_moe_layer_step": 1,
    "attention_chunk_size": 8,
    "floor_scale": 4,
    "attn_scale": 0.1,
    "attn_temperature_tuning": True,
    "use_qk_norm": True,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
    "tie_word_embeddings": False,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
}

SCOUT_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 16.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 1.0,
}

# The ten configurations that one reference or a port is known to have got wrong somewhere.
CASES: dict[str, dict[str, Any]] = {
    "scout-like": {"rope_parameters": {**SCOUT_ROPE, "original_max_position_embeddings": 8192}},
    "scaling-bites": {"rope_parameters": {**SCOUT_ROPE, "original_max_position_embeddings": 16}},
    "maverick-like": {"interleave_moe_layer_step": 2, "use_qk_norm": False},
    "step-2-qk-norm": {"interleave_moe_layer_step": 2},
    "top-2": {"num_experts_per_tok": 2},
    "one-kv-head": {"num_key_value_heads": 1},
    "no-groups": {"num_key_value_heads": 4},
    "chunk-5": {"attention_chunk_size": 5},
    "no-temperature": {"attn_temperature_tuning": False},
    # transformers needs a chunk, so it is made longer than any sequence here
    "guard-like": {
        "moe_layers": [],
        "no_rope_layers": [1] * 8,
        "attention_chunk_size": 4096,
        "use_qk_norm": False,
        "attn_temperature_tuning": False,
    },
}


def oracle(changes: dict[str, Any], seed: int = 0) -> Llama4ForCausalLM:
    """A float32 model of transformers with telling random weights and eager attention."""
    config = Llama4TextConfig(**{**BASE, **changes})
    config._attn_implementation = "eager"
    torch.manual_seed(seed)
    model = Llama4ForCausalLM(config).float().eval()
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() == 1:
                parameter.copy_(1 + 0.2 * noise)
            elif "embed_tokens" in name:
                parameter.copy_(noise)
            else:
                # experts are stored [E, in, out], everything else [out, in]
                fan_in = parameter.shape[1]
                gain = 3.0 if "router" in name else 1.0
                parameter.copy_(noise * gain * fan_in**-0.5)
    return model


def saved(model: nn.Module, folder: Path) -> Path:
    """Writes the checkpoint the way its author does."""
    model.save_pretrained(folder)
    return folder


def random_tokens(rows: int, length: int, vocabulary: int, seed: int) -> Tensor:
    """``[rows, length]`` ids."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, vocabulary, (rows, length), generator=generator)


class RouteGaps:
    """Smallest gap between the last chosen and the first rejected router logit of a forward.

    A draw whose gap is within rounding can flip an expert, which moves logits by more than 2; such
    draws say nothing and are set aside.
    """

    def __init__(self, model: Llama4ForCausalLM) -> None:
        self.smallest = float("inf")
        self.top_k = model.config.num_experts_per_tok
        for module in model.modules():
            if type(module).__name__ == "Llama4Router":
                module.register_forward_hook(self._look)

    def _look(self, module: nn.Module, inputs: Any, outputs: Any) -> None:
        logits = nn.functional.linear(inputs[0], module.weight)
        if logits.shape[-1] <= self.top_k:
            return
        best = logits.topk(self.top_k + 1).values
        self.smallest = min(self.smallest, float((best[..., -2] - best[..., -1]).min()))


class Routes:
    """The experts that a model of transformers visits in its next forward, layer by layer.

    Attributes:
        experts: per layer ``[N, K]`` ids, None for layers without experts.
    """

    def __init__(self, model: Llama4ForCausalLM) -> None:
        self.experts: list[Tensor | None] = [None] * len(model.model.layers)
        for index, layer in enumerate(model.model.layers):
            router = getattr(layer.feed_forward, "router", None)
            if router is not None:
                router.register_forward_hook(partial(self._look, index))

    def _look(self, index: int, module: nn.Module, inputs: Any, outputs: Any) -> None:
        logits = nn.functional.linear(inputs[0], module.weight)
        self.experts[index] = logits.topk(module.top_k).indices


def tolerance(logits: Tensor) -> float:
    """5e-6 of the largest logit, at least 2e-5.

    Two references that share no code differ by 3.8e-6 to 8.0e-6 at logits of about 4; the smallest
    known bug (a norm's eps) moves them by 1.9e-3.
    """
    return max(2e-5, 5e-6 * float(logits.detach().abs().max()))
