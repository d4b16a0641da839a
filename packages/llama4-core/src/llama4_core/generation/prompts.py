"""Prompts as people give them, turned into lists of ids and checked against the model."""

from __future__ import annotations

import operator
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llama4_core.chat.messages import Image, Input, Text
from llama4_core.errors import GenerationError, ModalityError
from llama4_core.generation.inputs import ReadInput, read_inputs
from llama4_core.tokenizers.tokenizer import Tokenizer


@dataclass(frozen=True)
class ReadPrompt:
    """A prompt that was read before: what :class:`~llama4_core.chat.conversation.Turn` hands over.

    Attributes:
        tokens: its ids, those of inputs included.
        inputs: what was read, in the order of their ids.
    """

    tokens: tuple[int, ...]
    inputs: tuple[ReadInput, ...] = ()


Part = str | Text | Input
Prompt = str | Sequence[int] | Sequence[Part] | ReadPrompt


def is_batch(prompts: Any) -> bool:
    """Whether this is a list of prompts, rather than one prompt.

    One prompt is a string, a sequence of ids, a one-dimensional tensor, or a list of parts: strings
    with at least one ``Image`` or ``Video`` among them. So ``["a", "b"]`` is two prompts,
    ``["a", Image("b.png")]`` is one, and ``[["a", Image("b.png")], "c"]`` is two again.

    Raises:
        GenerationError: neither.
    """
    if isinstance(prompts, str | ReadPrompt):
        return False
    if getattr(prompts, "ndim", 0) > 0:
        return bool(prompts.ndim != 1)
    if not isinstance(prompts, Sequence) or isinstance(prompts, bytes | bytearray):
        raise GenerationError(
            f"the prompt is {_named(prompts)}; expected a string, a list of token ids, a list of "
            "strings and images, or a list of such prompts"
        )
    if not len(prompts) or _is_parts(prompts):
        return False
    first = prompts[0]
    return isinstance(first, str | Sequence | ReadPrompt) or getattr(first, "ndim", 0) == 1


def read_prompt(
    prompt: Any,
    row: int,
    tokenizer: Tokenizer | None,
    vocabulary: int,
    longest: int,
    *,
    model: Any = None,
    images: Sequence[Input] = (),
) -> ReadPrompt:
    """The ids of one prompt, and its inputs.

    Text is encoded with the tokenizer's beginning-of-text token in front of the whole, and special
    tokens spelled in it are ordinary text; ids are taken as they are.

    Args:
        prompt: a string, ids, parts, or what was read before.
        row: which prompt, for messages.
        tokenizer: of the model, or None.
        vocabulary: V.
        longest: most tokens that the model can hold.
        model: whose modalities read inputs.
        images: to put in front of the prompt, behind its beginning-of-text token.

    Raises:
        GenerationError: the prompt is empty, too long, holds an id outside the vocabulary or
            something that is no part, or needs a tokenizer where there is none.
        ModalityError: an input cannot be read, or the model does not read its kind.
    """
    found = _read(prompt, row, tokenizer, model, images)
    tokens = found.tokens
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
        of_inputs = sum(len(one.reading.tokens) for one in found.inputs)
        raise GenerationError(
            f"prompt {row} has {len(tokens)} tokens; expected at most {longest}, the longest "
            "context of this model: shorten the prompt"
            + (f" ({of_inputs} of them are images)" if of_inputs else "")
        )
    return found


def as_inputs(images: Any) -> list[Input]:
    """The value of ``images=`` as parts: sources become images.

    Raises:
        ModalityError: it is one source instead of a list, or holds what is no source.
    """
    if isinstance(images, str | bytes | os.PathLike | Input) or not isinstance(images, Sequence):
        raise ModalityError(
            f"images is {_named(images)}; expected a list, such as ['cat.png'] or [Image(...)]"
        )
    for one in images:
        if one is None or isinstance(one, Mapping):
            raise ModalityError(
                f"images holds {_named(one)}; expected paths, pictures, Image(...) or Video(...)"
                + ("" if one is None else ": descriptions of tools go in tools=")
            )
    return [one if isinstance(one, Input) else Image(one) for one in images]


def _read(
    prompt: Any, row: int, tokenizer: Tokenizer | None, model: Any, images: Sequence[Input]
) -> ReadPrompt:
    if isinstance(prompt, ReadPrompt):
        if images:
            raise GenerationError(
                f"prompt {row} was read before, and images= cannot be put in front of it; give "
                "them to whoever reads it"
            )
        return prompt
    if isinstance(prompt, str) and not prompt:
        raise GenerationError(
            f"prompt {row} is empty; expected some text (to start from nothing, pass the ids "
            "[beginning-of-text id])"
        )
    if isinstance(prompt, str) or _is_parts(prompt):
        if tokenizer is None:
            what = "a string" if isinstance(prompt, str) else "a list of texts and images"
            raise GenerationError(
                f"prompt {row} is {what}, but the model has no tokenizer; pass token ids, or load "
                "a folder that holds a tokenizer.json"
            )
        parts = [prompt] if isinstance(prompt, str) else _parts(prompt, row)
        return _expanded([*images, *parts], tokenizer, model)
    if isinstance(prompt, Input):
        raise GenerationError(
            f"prompt {row} is {_named(prompt)} alone; expected a list of parts, such as "
            "[Image('cat.png'), 'What is this?']"
        )
    tokens = _ids(prompt, row)
    if not images:
        return ReadPrompt(tokens)
    inputs = read_inputs(model, images)
    bos = {model.spec.tokens.bos, None if tokenizer is None else tokenizer.bos} - {None}
    start = 1 if tokens[:1] and tokens[0] in bos else 0
    inner = [token for one in inputs for token in one.reading.tokens]
    return ReadPrompt((*tokens[:start], *inner, *tokens[start:]), inputs)


def _expanded(parts: Sequence[str | Input], tokenizer: Tokenizer, model: Any) -> ReadPrompt:
    """Texts encoded, inputs read: each run of text for itself, so that it can spell no special."""
    inputs = read_inputs(model, [part for part in parts if isinstance(part, Input)])
    if not inputs:
        return ReadPrompt(tuple(tokenizer.encode("".join(map(str, parts)))))
    tokens = [] if tokenizer.bos is None else [tokenizer.bos]
    pending = iter(inputs)
    text = ""
    for part in parts:
        if isinstance(part, str):
            text += part
            continue
        if text:
            tokens += tokenizer.encode(text, bos=False)
            text = ""
        tokens += next(pending).reading.tokens
    if text:
        tokens += tokenizer.encode(text, bos=False)
    return ReadPrompt(tuple(tokens), inputs)


def _is_parts(prompt: Any) -> bool:
    """Whether this is a list of parts: looked at whole only if it begins with one."""
    if isinstance(prompt, str) or not isinstance(prompt, Sequence) or not len(prompt):
        return False
    first = isinstance(prompt[0], str | Text | Input)
    return first and any(isinstance(part, Input) for part in prompt)


def _parts(prompt: Sequence[Any], row: int) -> list[str | Input]:
    found: list[str | Input] = []
    for part in prompt:
        if isinstance(part, Text):
            part = part.text
        if not isinstance(part, str | Input):
            raise GenerationError(
                f"prompt {row} is a list of parts and holds {part!r:.80}; expected strings, "
                "Image(...) and Video(...) (a batch is a list of such lists)"
            )
        found.append(part)
    return found


def _named(value: Any) -> str:
    name = type(value).__name__
    return f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}"


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
            + (
                ": texts in a list of their own are one prompt only with an Image among them"
                if isinstance(values, Sequence) and any(isinstance(one, str) for one in values)
                else ""
            )
        ) from error
