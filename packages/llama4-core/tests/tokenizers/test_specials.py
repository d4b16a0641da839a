"""The special tokens, against ids that are known one by one."""

import itertools

import pytest

from llama4_core.tokenizers.specials import COUNT, NAMED, SPECIALS, special_ids

KNOWN = {
    "<|begin_of_text|>": 200000,
    "<|end_of_text|>": 200001,
    "<|fim_prefix|>": 200002,
    "<|fim_middle|>": 200003,
    "<|fim_suffix|>": 200004,
    "<|header_start|>": 200005,
    "<|header_end|>": 200006,
    "<|eom|>": 200007,
    "<|eot|>": 200008,
    "<|step|>": 200009,
    "<|text_post_train_reserved_special_token_0|>": 200010,
    "<|text_post_train_reserved_special_token_5|>": 200015,
    "<|python_start|>": 200016,
    "<|python_end|>": 200017,
    "<|finetune_right_pad|>": 200018,
    "<|text_post_train_reserved_special_token_8|>": 200019,
    "<|text_post_train_reserved_special_token_68|>": 200079,
    "<|image_start|>": 200080,
    "<|image_end|>": 200081,
    "<|vision_reserved_special_token_0|>": 200082,
    "<|tile_x_separator|>": 200084,
    "<|tile_y_separator|>": 200085,
    "<|vision_reserved_special_token_2|>": 200086,
    "<|image|>": 200090,
    "<|vision_reserved_special_token_6|>": 200091,
    "<|patch|>": 200092,
    "<|vision_reserved_special_token_7|>": 200093,
    "<|vision_reserved_special_token_1047|>": 201133,
    "<|reasoning_reserved_special_token_0|>": 201134,
    "<|reasoning_reserved_special_token_7|>": 201141,
    "<|reasoning_thinking_start|>": 201142,
    "<|reasoning_thinking_end|>": 201143,
    "<|reserved_special_token_0|>": 201144,
    "<|reserved_special_token_903|>": 202047,
}


@pytest.mark.parametrize(("name", "number"), KNOWN.items())
def test_known_ids(name, number):
    assert special_ids(200_000)[name] == number


def test_counts():
    assert len(NAMED) == 1144
    assert len(SPECIALS) == len(set(SPECIALS)) == COUNT == 2048
    # The pad token of a converter's files; it is in no vocabulary.
    assert "<|finetune_right_pad_id|>" not in SPECIALS


def test_no_special_begins_another():
    """So that it does not matter in which order a text is searched for them."""
    ordered = sorted(SPECIALS)
    assert not [a for a, b in itertools.pairwise(ordered) if b.startswith(a)]
