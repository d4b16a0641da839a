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
from transformers import (
    Llama4Config,
    Llama4ForCausalLM,
    Llama4ForConditionalGeneration,
    Llama4TextConfig,
)

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


# The last ids of the vocabulary: the placeholder, and what stands before and behind a picture.
PATCH, START, END = 509, 510, 511

# 28-pixel tiles of 4 x 4 patches: 16 places, and 4 features for the text model.
VISION_BASE: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 128,
    "image_size": 28,
    "patch_size": 7,
    "num_channels": 3,
    "pixel_shuffle_ratio": 0.5,
    "projector_input_dim": 24,
    "projector_output_dim": 24,
    "vision_output_dim": 24,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
}


def eyes(**changes: Any) -> dict[str, Any]:
    """A vision_config in which the numbers that transformers couples fit."""
    found = {**VISION_BASE, **changes}
    width = changes.get("adapter", found["projector_input_dim"])
    found.pop("adapter", None)
    found |= dict.fromkeys(("projector_input_dim", "projector_output_dim"), width)
    found["vision_output_dim"] = width
    found["intermediate_size"] = round(found["hidden_size"] / found["pixel_shuffle_ratio"] ** 2)
    return found


# Heads of 16, 12 (a third pair count), 8 and 4 numbers; grids of 4, 6, 2 and 8; no shuffle at all.
VISION_CASES: dict[str, dict[str, Any]] = {
    "base": eyes(),
    "one-layer": eyes(num_hidden_layers=1, num_attention_heads=8),
    "three-heads": eyes(hidden_size=36, num_attention_heads=3, image_size=24, patch_size=4),
    "one-channel": eyes(num_channels=1, num_attention_heads=4, image_size=14, adapter=40),
    "quarter": eyes(pixel_shuffle_ratio=0.25, image_size=56),
    "no-shuffle": eyes(pixel_shuffle_ratio=1.0, hidden_size=16, num_attention_heads=1),
    "other-theta": eyes(rope_parameters={"rope_type": "default", "rope_theta": 50.0}),
}


def seeing_oracle(
    text: dict[str, Any], vision: dict[str, Any], seed: int = 0
) -> Llama4ForConditionalGeneration:
    """A float32 multimodal model of transformers with telling random weights, eager attention."""
    config = Llama4Config(
        text_config={**BASE, **text},
        vision_config=vision,
        image_token_index=PATCH,
        boi_token_index=START,
        eoi_token_index=END,
    )
    config._attn_implementation = "eager"
    for part in (config.text_config, config.vision_config):
        part._attn_implementation = "eager"
    torch.manual_seed(seed)
    model = Llama4ForConditionalGeneration(config).float().eval()
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if name.endswith((".bias", "class_embedding", "positional_embedding_vlm")):
                # As large as what they are added to, so that a wrong row or sign is seen.
                parameter.copy_(0.5 * noise)
            elif parameter.dim() == 1:
                parameter.copy_(1 + 0.2 * noise)
            elif "embed_tokens" in name:
                parameter.copy_(noise)
            else:
                gain = 3.0 if "router" in name else 1.0
                parameter.copy_(noise * gain * parameter.shape[1] ** -0.5)
    return model


def random_tiles(count: int, vision: dict[str, Any], seed: int) -> Tensor:
    """``[count, C, S, S]`` in [-1, 1], as a processor gives them."""
    generator = torch.Generator().manual_seed(seed)
    size = vision["image_size"]
    return torch.rand(count, vision["num_channels"], size, size, generator=generator) * 2 - 1


def features_per_tile(vision: dict[str, Any]) -> int:
    """Placeholder tokens that stand for one tile."""
    side = vision["image_size"] // vision["patch_size"]
    return int((side * vision["pixel_shuffle_ratio"]) ** 2)


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
        self.smallest = min(self.smallest, float((best[..., -2] - best[..., -1]).detach().min()))


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
