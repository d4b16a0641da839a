"""The special tokens of Llama 4, all 2,048 of them, by name.

The names and their order are facts about the published vocabulary (``models/llama4/tokenizer.py``
of meta-llama/llama-models); the first has the id that follows the last rank, 200,000 in the
published file. Every name is established there; none is a guess:

=============== ========================================================================
200000 - 200004 begin and end of text, fill-in-the-middle
200005 - 200079 text after pretraining: headers, turns, steps, Python, padding, 67 reserved
200080 - 201133 vision: images, tiles, patches, 1,048 reserved
201134 - 201143 reasoning: 8 reserved, then the borders of thinking
201144 - 202047 904 reserved without a purpose
=============== ========================================================================
"""

from __future__ import annotations

COUNT = 2048
"""Special tokens of a Llama 4 vocabulary; 200,000 ranks and these make 202,048."""

BEGIN_OF_TEXT = "<|begin_of_text|>"
END_OF_TEXT = "<|end_of_text|>"
END_OF_TURN = "<|eot|>"
PAD = "<|finetune_right_pad|>"


def _reserved(kind: str, start: int, stop: int) -> tuple[str, ...]:
    return tuple(f"<|{kind}reserved_special_token_{n}|>" for n in range(start, stop))


_BASIC = (
    BEGIN_OF_TEXT,
    END_OF_TEXT,
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
)
# The reserved names of each group are numbered without regard to the tokens between them.
_TEXT = (
    "<|header_start|>",
    "<|header_end|>",
    "<|eom|>",
    END_OF_TURN,
    "<|step|>",
    *_reserved("text_post_train_", 0, 6),
    "<|python_start|>",
    "<|python_end|>",
    PAD,
    *_reserved("text_post_train_", 8, 69),
)
_VISION = (
    "<|image_start|>",
    "<|image_end|>",
    *_reserved("vision_", 0, 2),
    "<|tile_x_separator|>",
    "<|tile_y_separator|>",
    *_reserved("vision_", 2, 6),
    "<|image|>",
    *_reserved("vision_", 6, 7),
    "<|patch|>",
    *_reserved("vision_", 7, 1048),
)
_REASONING = (
    *_reserved("reasoning_", 0, 8),
    "<|reasoning_thinking_start|>",
    "<|reasoning_thinking_end|>",
)
NAMED = (*_BASIC, *_TEXT, *_VISION, *_REASONING)
"""The 1,144 tokens whose names say what they are for."""

SPECIALS = (*NAMED, *_reserved("", 0, COUNT - len(NAMED)))
"""All 2,048 in the order of their ids."""


def special_ids(first: int) -> dict[str, int]:
    """Name -> id of every special token, the first of which has the id ``first``."""
    return {name: first + offset for offset, name in enumerate(SPECIALS)}
