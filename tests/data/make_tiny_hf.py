"""Writes ``tiny-hf``: a small Llama 4 with random weights, saved by transformers itself.

The folder is what the loaders, the demo and the parity tests read: a checkpoint that this project
did not write. It regenerates bit for bit with the versions in ``constraints.txt``::

    python tests/data/make_tiny_hf.py [FOLDER]

Weights are random but not meek: matrices by fan-in, routers three times that, norms 1 +- 0.2, so
that a wrong rotation, mask or score moves the logits by much more than rounding does.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import GenerationConfig, Llama4ForCausalLM, Llama4TextConfig

VOCABULARY = 512
SPECIALS = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|header_start|>",
    "<|header_end|>",
    "<|eom|>",
    "<|eot|>",
    "<|step|>",
    "<|python_start|>",
    "<|python_end|>",
    "<|finetune_right_pad|>",
    "<|image_start|>",
    "<|image_end|>",
    "<|tile_x_separator|>",
    "<|tile_y_separator|>",
    "<|image|>",
    "<|patch|>",
)
SPLIT = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEXT = """
A river runs from the mountain to the sea. The old keeper of the lighthouse wrote every evening
what he had seen: three ships, a grey whale, the rain over the northern islands. When the morning
came he read it again and counted the ships that had returned. The children of the village asked
him for the names of the stars, and he told them that a name is only a place to put a story.
What is a model? A model is a small machine that remembers how sentences usually go on. It reads
the words that came before and gives a number to each word that could come next. The numbers are
called logits. Then it chooses one of them, and the sentence grows by that word.
Where does the water go when the tide is low? It goes to the other side of the sea, and there the
other children ask where the water comes from. In 1969, 2024 and 10000 years ago people looked up.
"""


def tokenizer(folder: Path) -> dict[str, int]:
    """A byte-level BPE of 496 ordinary tokens and 16 specials, in the form of Llama 4's own."""
    built = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(SPLIT), behavior="isolated", invert=False)
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    built.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    built.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(SPECIALS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    built.train_from_iterator([TEXT], trainer)
    built.add_special_tokens(list(SPECIALS))
    ids = {name: built.token_to_id(name) for name in SPECIALS}
    begin = SPECIALS[0]
    built.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A", pair=f"{begin} $A {begin} $B", special_tokens=[(begin, ids[begin])]
    )
    built.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": begin,
        "eos_token": "<|eot|>",
        "pad_token": "<|finetune_right_pad|>",
        "clean_up_tokenization_spaces": False,
        "model_max_length": 4096,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    return ids


def model(ids: dict[str, int]) -> Llama4ForCausalLM:
    """Eight layers: dense and routed in turn, every fourth without positions."""
    config = Llama4TextConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        num_hidden_layers=8,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        num_local_experts=4,
        num_experts_per_tok=1,
        intermediate_size=48,
        intermediate_size_mlp=96,
        interleave_moe_layer_step=2,
        max_position_embeddings=4096,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 16.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 1.0,
            "original_max_position_embeddings": 16,
        },
        use_qk_norm=True,
        attn_temperature_tuning=True,
        attn_scale=0.1,
        floor_scale=4,
        attention_chunk_size=8,
        bos_token_id=ids["<|begin_of_text|>"],
        eos_token_id=[ids["<|end_of_text|>"], ids["<|eom|>"], ids["<|eot|>"]],
        pad_token_id=ids["<|finetune_right_pad|>"],
        tie_word_embeddings=False,
    )
    built = Llama4ForCausalLM(config)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, weight in sorted(built.named_parameters()):
            drawn = torch.randn(weight.shape, generator=generator)
            if "norm" in name:
                weight.copy_(1 + 0.2 * drawn.clamp(-2, 2))
            elif "embed" in name:
                weight.copy_(drawn)
            else:
                fan_in = weight.shape[-2] if ".experts." in name else weight.shape[-1]
                weight.copy_(drawn * fan_in**-0.5 * (3 if "router" in name else 1))
    return built.to(torch.bfloat16)


def main(folder: Path) -> None:
    """Writes everything into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    ids = tokenizer(folder)
    written = model(ids)
    written.generation_config = GenerationConfig(
        bos_token_id=ids["<|begin_of_text|>"],
        eos_token_id=[ids["<|end_of_text|>"], ids["<|eom|>"], ids["<|eot|>"]],
        pad_token_id=ids["<|finetune_right_pad|>"],
    )
    written.save_pretrained(folder, max_shard_size="450KB")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "tiny-hf")
