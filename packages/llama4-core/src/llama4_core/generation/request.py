"""A call of ``generate``, checked and read before the model runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from llama4_core.errors import ComponentError, GenerationError, ModalityError
from llama4_core.generation.generative import GenerativeModel
from llama4_core.generation.inputs import check_inputs, read_pixels
from llama4_core.generation.prompts import ReadPrompt, as_inputs, is_batch, read_prompt
from llama4_core.generation.rows import Ending, Row
from llama4_core.generation.sampling import Sampler, Sampling
from llama4_core.generation.stops import CONTEXT, LENGTH, stop_strings
from llama4_core.plugins.catalogue import Catalogue, catalogue

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Request:
    """A checked call of ``generate``."""

    rows: tuple[Row, ...]
    sampler: Sampler
    greedy: bool
    logprobs: int | None
    prefill_chunk: int | None
    progress: Progress | None
    cache: Any


def read_request(
    model: GenerativeModel,
    prompt: Any,
    max_tokens: int | None,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    min_p: float | None,
    seed: int | Sequence[int],
    stop: str | Sequence[str],
    stop_tokens: Iterable[int],
    ignore_eos: bool,
    logprobs: int | None,
    prefill_chunk: int | None,
    progress: Progress | None,
    cache: Any,
    sampler: Any,
    images: Any,
    pixel_values: Any,
) -> Request:
    """Checks everything that can be checked before the model runs, and reads the prompts.

    Raises:
        GenerationError: a prompt or a setting cannot be used.
        ModalityError: an input cannot be read, or does not fit the prompt.
        ComponentError: there is no such sampler, or it cannot run here.
    """
    sampling = Sampling(temperature, top_k, top_p, min_p)
    if max_tokens is not None:
        _whole("max_tokens", max_tokens, 1)
    if prefill_chunk is not None:
        _whole("prefill_chunk", prefill_chunk, 1)
    if logprobs is not None:
        _whole("logprobs", logprobs, 0)
    spec, tokenizer = model.spec, model.tokenizer
    strings = stop_strings(stop)
    if strings and tokenizer is None:
        raise GenerationError(
            f"stop is {stop!r}, but the model has no tokenizer to find text with; pass the ids in "
            "stop_tokens, or load a folder that holds a tokenizer.json"
        )
    ends = frozenset(stop_tokens)
    for token in ends:
        _whole("a stop token", token, 0)
        if token >= spec.vocabulary:
            raise GenerationError(
                f"a stop token is {token}; expected an id from 0 to {spec.vocabulary - 1}, the "
                "last of this model's vocabulary"
            )
    ending = Ending(ends if ignore_eos else ends | set(spec.tokens.eos), strings)
    batch = is_batch(prompt)
    prompts = list(prompt) if batch else [prompt]
    seeds = _seeds(seed, len(prompts))
    rows = []
    for index, one in enumerate(_prompts(model, prompts, batch, images, pixel_values)):
        room = spec.max_positions - len(one.tokens)
        reason = CONTEXT
        if max_tokens is not None and max_tokens <= room:
            room, reason = max_tokens, LENGTH
        row = Row(index, one.tokens, room, reason, ending, seeds[index], tokenizer, one.inputs)
        if room == 0:
            row.end_without_room()
        rows.append(row)
    known = getattr(model, "catalogue", None) or catalogue()
    make = _sampler(sampler, known) if isinstance(sampler, str) else sampler
    greedy = sampling.temperature == 0
    return Request(tuple(rows), make(sampling), greedy, logprobs, prefill_chunk, progress, cache)


def _prompts(
    model: GenerativeModel, prompts: Sequence[Any], batch: bool, images: Any, pixel_values: Any
) -> list[ReadPrompt]:
    """Every prompt as ids, with inputs that fit their placeholder tokens."""
    spec, tokenizer = model.spec, model.tokenizer
    in_front = as_inputs(images)
    if in_front and batch:
        raise GenerationError(
            f"got images= and a list of {len(prompts)} prompts; expected one prompt, or prompts "
            "that are lists of parts, such as [Image('cat.png'), 'What is this?']"
        )
    found = []
    for index, one in enumerate(prompts):
        try:
            read = read_prompt(
                one,
                index,
                tokenizer,
                spec.vocabulary,
                spec.max_positions,
                model=model,
                images=in_front,
            )
        except ModalityError as error:
            if len(prompts) == 1:
                raise
            raise ModalityError(f"prompt {index}: {error}") from error
        found.append(read)
    if pixel_values is not None:
        for index, (one, read) in enumerate(zip(prompts, found, strict=True)):
            if read.inputs or isinstance(one, str):
                raise ModalityError(
                    f"got pixel_values= and prompt {index} is "
                    f"{'text' if isinstance(one, str) else 'one with images'}; expected token ids "
                    "whose placeholder tokens they fill: hand pictures to images= instead"
                )
        shared = read_pixels(model, pixel_values, [read.tokens for read in found])
        found = [
            ReadPrompt(read.tokens, inputs) for read, inputs in zip(found, shared, strict=True)
        ]
    for index, read in enumerate(found):
        check_inputs(model, read.tokens, read.inputs, index)
    return found


def _sampler(name: str, known: Catalogue) -> Callable[[Sampling], Sampler]:
    """What builds the sampler called ``name``."""
    entry = known.find("samplers", name)
    reason = entry.component.refusal(None)
    if reason:
        raise ComponentError(f"sampler {name!r} {reason}")
    return entry.component.build


def _seeds(seed: int | Sequence[int], prompts: int) -> list[int]:
    if isinstance(seed, Sequence) and not isinstance(seed, str):
        seeds = list(seed)
        if len(seeds) != prompts:
            raise GenerationError(
                f"seed lists {len(seeds)} numbers for {prompts} prompts; expected one for each, or "
                "a single number"
            )
    else:
        _whole("seed", seed, 0)
        seeds = [seed + index for index in range(prompts)]
    for one in seeds:
        _whole("seed", one, 0)
    return seeds


def _whole(name: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise GenerationError(f"{name} is {value!r}; expected a whole number of at least {least}")
