"""The keys of a Hugging Face ``config.json`` for Llama 4, by what becomes of each.

Read from transformers 5.23 and the older forms that it still accepts.
"""

from __future__ import annotations

from typing import Any

#: Nothing in the forward pass reads these: kept and written back. transformers 5.23 does not read
#: the router's loss coefficient and jitter either.
CARRIED = (
    "architectures",
    "transformers_version",
    "use_cache",
    "cache_implementation",
    "initializer_range",
    "output_router_logits",
    "router_aux_loss_coef",
    "router_jitter_noise",
    "for_llm_compressor",
    "attn_implementation",
    "experts_implementation",
    "_attn_implementation_autoset",
    "_commit_hash",
    "tokenizer_class",
    "id2label",
    "label2id",
    "num_labels",
    "problem_type",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "return_dict",
    "return_dict_in_generate",
    "torchscript",
    "use_bfloat16",
    "tf_legacy_loss",
    "tie_last_hidden_states",
)

#: Understood with this value only.
NEUTRAL_TEXT: dict[str, Any] = {
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "attention_dropout": 0.0,
    "partial_rotary_factor": 1.0,
    "pretraining_tp": 1,
}
NEUTRAL_VISION: dict[str, Any] = {
    "hidden_act": "gelu",
    "attention_dropout": 0.0,
    "projector_dropout": 0.0,
    "multi_modal_projector_bias": False,
    "vision_feature_select_strategy": "default",
}
#: Fields of every transformers configuration that change what a model is.
NEUTRAL_ANY: dict[str, Any] = {
    "is_encoder_decoder": False,
    "is_decoder": False,
    "add_cross_attention": False,
    "tie_encoder_decoder": False,
    "chunk_size_feed_forward": 0,
    "pruned_heads": {},
}
#: Sampling settings that old configurations carried at their defaults.
NEUTRAL_GENERATION: dict[str, Any] = {
    "max_length": 20,
    "min_length": 0,
    "do_sample": False,
    "early_stopping": False,
    "num_beams": 1,
    "num_beam_groups": 1,
    "num_return_sequences": 1,
    "diversity_penalty": 0.0,
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 1.0,
    "typical_p": 1.0,
    "repetition_penalty": 1.0,
    "length_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "remove_invalid_values": False,
}
#: Never accepted; null is as good as absent.
REFUSED = {
    "quantization_config": (
        "the weights are stored quantised; convert the checkpoint to bfloat16 first and remove the "
        "key"
    ),
    "compression_config": "the weights are stored compressed; convert the checkpoint first",
    "auto_map": "it names code inside the checkpoint, which is never run; remove it",
    "per_layer_config": "layers with numbers of their own need a spec.toml instead",
    "sliding_window": "Llama 4 has chunked attention; for a window write a spec.toml instead",
    "finetuning_task": "only language models are understood",
    "task_specific_params": "it belongs into generation_config.json",
    "bad_words_ids": "it belongs into generation_config.json",
    "forced_bos_token_id": "it belongs into generation_config.json",
    "forced_eos_token_id": "it belongs into generation_config.json",
    "suppress_tokens": "it belongs into generation_config.json",
    "begin_suppress_tokens": "it belongs into generation_config.json",
    "exponential_decay_length_penalty": "it belongs into generation_config.json",
    "cross_attention_hidden_size": "there is no cross attention in Llama 4",
    "decoder_start_token_id": "there is no encoder-decoder form of Llama 4",
    "sep_token_id": "it has no meaning for a causal language model",
    "prefix": "a prompt belongs into the chat template",
}

_SHARED = (
    *CARRIED, *NEUTRAL_ANY, *NEUTRAL_GENERATION, *REFUSED,
    "model_type", "dtype", "torch_dtype", "_name_or_path", "name_or_path",
    "bos_token_id", "eos_token_id", "pad_token_id", "tie_word_embeddings",
)  # fmt: skip

#: Everything that is understood, for suggestions.
TEXT_KEYS = (
    *_SHARED, *NEUTRAL_TEXT,
    "vocab_size", "hidden_size", "intermediate_size", "intermediate_size_mlp",
    "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
    "max_position_embeddings", "rms_norm_eps", "num_experts_per_tok", "num_local_experts",
    "moe_layers", "interleave_moe_layer_step", "use_qk_norm", "rope_parameters", "rope_theta",
    "rope_scaling", "no_rope_layers", "no_rope_layer_interval", "attention_chunk_size",
    "layer_types", "attn_temperature_tuning", "floor_scale", "attn_scale",
)  # fmt: skip
VISION_KEYS = (
    *_SHARED, *NEUTRAL_VISION,
    "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "image_size",
    "patch_size", "num_channels", "pixel_shuffle_ratio", "projector_input_dim",
    "projector_output_dim", "vision_output_dim", "norm_eps", "rope_theta", "rope_parameters",
    "rope_scaling",
)  # fmt: skip
MODEL_KEYS = (
    *_SHARED, "text_config", "vision_config", "image_token_index", "image_token_id",
    "boi_token_index", "boi_token_id", "eoi_token_index", "eoi_token_id",
)  # fmt: skip
