"""Prompts as people give them, turned into lists of ids and checked against the model."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

from llama4_core.errors import GenerationError
from llama4_core.tokenizers.tokenizer import Tokenizer

Prompt = str | Sequence[int]


def is_batch(prompts: Any) -> bool:
    """Whether this is a list of prompts, rather than one prompt.

    A string, a sequence of ids and a one-dimensional tensor are one prompt.

    Raises:
        GenerationError: neither.
    """
    if isinstance(prompts, str):
        return False
    if getattr(prompts, "ndim", 0) > 0:
        return bool(prompts.ndim != 1)
    if not isinstance(prompts, Sequence) or isinstance(prompts, bytes | bytearray):
        raise GenerationError(
            f"the prompt is a {type(prompts).__name__}; expected a string, a list of token ids, or "
            "a list of such prompts"
        )
    return len(prompts) > 0 and (
        isinstance(prompts[0], str | Sequence) or getattr(prompts[0], "ndim", 0) == 1
    )


def read_prompt(
    prompt: Any, row: int, tokenizer: Tokenizer | None, vocabulary: int, longest: int
) -> tuple[int, ...]:
    """The ids of one prompt.

    A string is encoded with the tokenizer's beginning-of-text token in front, and special tokens
    spelled in it are ordinary text; ids are taken as they are.

    Args:
        prompt: a string, or ids.
        row: which prompt, for messages.
        tokenizer: of the model, or None.
        vocabulary: V.
        longest: most tokens that the model can hold.

    Raises:
        GenerationError: the prompt is empty, too long, holds an id outside the vocabulary, or is a
            string where there is no tokenizer.
    """
    if isinstance(prompt, str):
        if not prompt:
            raise GenerationError(
                f"prompt {row} is empty; expected some text (to start from nothing, pass the ids "
                "[beginning-of-text id])"
            )
        if tokenizer is None:
            raise GenerationError(
                f"prompt {row} is a string, but the model has no tokenizer; pass token ids, or "
                "load a folder that holds a tokenizer.json"
            )
        tokens = tuple(tokenizer.encode(prompt))
    else:
        tokens = _ids(prompt, row)
    if not tokens:
        raise GenerationError(f"prompt {row} is empty; expected at least one token")
    lowest, highest = min(tokens), max(tokens)
    if lowest < 0 or highest >= vocabulary:
        wrong = lowest if lowest < 0 else highest
        raise GenerationError(
            f"prompt {row} holds the token id {wrong}; expected ids from 0 to {vocabulary - 1}, "
            f"the vocabulary of this model having {vocabulary} entries"
        )
    if len(tokens) > longest:
        raise GenerationError(
            f"prompt {row} has {len(tokens)} tokens; expected at most {longest}, the longest "
            "context of this model: shorten the prompt"
        )
    return tokens


def _ids(prompt: Any, row: int) -> tuple[int, ...]:
    values = prompt.tolist() if hasattr(prompt, "tolist") else prompt
    try:
        if any(isinstance(value, bool) for value in values):
            raise TypeError("bool")
        return tuple(map(operator.index, values))
    except TypeError as error:
        raise GenerationError(
            f"prompt {row} holds something that is no token id; expected whole numbers, got "
            f"{values!r:.80}"
        ) from error
