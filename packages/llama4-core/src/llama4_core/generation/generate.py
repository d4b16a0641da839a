"""Text from a model: prefill in chunks, then one token per sequence and forward.

Works on anything with the small interface of :class:`GenerativeModel`. The prompts of a batch may
have any lengths; they share each forward, every one with its own positions, random numbers and end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from llama4_core.generation.generative import CachedContext, GenerativeModel
from llama4_core.generation.inputs import Features
from llama4_core.generation.prompts import Prompt, is_batch
from llama4_core.generation.request import Progress, Request, read_request
from llama4_core.generation.result import Piece
from llama4_core.generation.rows import Row
from llama4_core.generation.sampling import log_probabilities

# Tokens after the prompt that the cache makes room for at once; it grows when there are more. A
# sequence that is allowed a million tokens and stops after ten should not pay for the million.
_ROOM_AT_ONCE = 1024


def generate(
    model: GenerativeModel,
    prompt: Prompt | Sequence[Prompt],
    max_tokens: int | None = 64,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    seed: int | Sequence[int] = 0,
    stop: str | Sequence[str] = (),
    stop_tokens: Iterable[int] = (),
    ignore_eos: bool = False,
    logprobs: int | None = None,
    prefill_chunk: int | None = None,
    progress: Progress | None = None,
    cache: Any = "auto",
    sampler: Any = "inversion",
    images: Any = (),
    pixel_values: Tensor | None = None,
) -> Any:
    """Continues one prompt, or a batch of prompts.

    Args:
        model: see :class:`GenerativeModel`.
        prompt: a string (encoded with the beginning-of-text token; specials spelled in it are
            ordinary text); token ids, taken as they are; a list of parts, strings with at least
            one ``Image`` or ``Video`` among them; or a list of such prompts. So ``["a", "b"]`` is
            two prompts and ``["a", Image("b.png")]`` is one.
        max_tokens: most tokens to generate per prompt; None for as many as the context holds.
        temperature: 0 is greedy.
        top_k: keep the k most probable tokens; the first filter after the temperature.
        top_p: then the fewest of them, most probable first, that hold this share of their
            probability.
        min_p: then those at least this many times as probable as the most probable one; more in
            :class:`~llama4_core.generation.sampling.Sampling`.
        seed: of the random numbers. A sequence's numbers depend on its seed alone. A whole number
            gives prompt i the seed ``seed + i``; a list gives one for each prompt.
        stop: text, or texts, that end a sequence; not part of the result.
        stop_tokens: ids that end a sequence, beside the end-of-text ids of ``model.spec.tokens``.
        ignore_eos: do not stop at the end-of-text ids of the model.
        logprobs: None for none; 0 for the log-probability of each token; n for those of the n most
            probable alternatives too.
        prefill_chunk: most prompt tokens per row and forward; None for whole prompts at once. The
            result is the same, the memory is less.
        progress: called as ``progress(done, total)``, in prompt tokens, after each prefill forward.
        cache: what keeps keys and values; passed on to ``model.cached``.
        sampler: what draws the tokens: a component's name, or a class as
            :class:`~llama4_core.generation.sampling.Sampler` describes it.
        images: paths, pictures, or ``Image`` and ``Video`` parts, to put in front of a single
            prompt, behind its beginning-of-text token.
        pixel_values: ready-made tiles ``[tiles, channels, height, width]`` of all prompts in order;
            their features fill the placeholder tokens of prompts of ids. Tokens behind an image
            that were generated before may be among the ids: so a text with images is continued.

    Returns:
        A :class:`~llama4_core.generation.result.Generation`; for a list of prompts a list of them,
        in order. Its ``prompt_tokens`` are the ids that the model saw, those of images included.

    Raises:
        GenerationError: a prompt or a setting cannot be used, or the model produced logits that
            are not numbers.
        ModalityError: an image cannot be read, there are too many, the model reads none, or
            placeholder tokens and features are not equally many.
        ComponentError: there is no such sampler, or it cannot run here.
    """
    arguments = dict(locals())
    request = read_request(**arguments)
    for _ in _run(model, request):
        pass
    done = [row.generation(*_reported(logprobs)) for row in request.rows]
    return done if is_batch(prompt) else done[0]


def stream(
    model: GenerativeModel,
    prompt: Prompt | Sequence[Prompt],
    max_tokens: int | None = 64,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    seed: int | Sequence[int] = 0,
    stop: str | Sequence[str] = (),
    stop_tokens: Iterable[int] = (),
    ignore_eos: bool = False,
    logprobs: int | None = None,
    prefill_chunk: int | None = None,
    progress: Progress | None = None,
    cache: Any = "auto",
    sampler: Any = "inversion",
    images: Any = (),
    pixel_values: Tensor | None = None,
) -> Iterator[Piece]:
    """As :func:`generate`, piece by piece while the model runs.

    The pieces of each row concatenate to what :func:`generate` returns. Text that may still become
    a stop string, and the bytes of an incomplete character, are held back. Arguments are checked
    at the call, before the first piece is asked for.

    Returns:
        An iterator of :class:`~llama4_core.generation.result.Piece`, one per sequence and step; the
        last piece of each row carries its stop reason.

    Raises:
        GenerationError: as :func:`generate`; ModalityError and ComponentError likewise.
    """
    arguments = dict(locals())
    request = read_request(**arguments)
    return _pieces(model, request)


def _pieces(model: GenerativeModel, request: Request) -> Iterator[Piece]:
    reported = _reported(request.logprobs)
    for row, text in _run(model, request):
        yield row.piece(text, *reported)


def _run(model: GenerativeModel, request: Request) -> Iterator[tuple[Row, str]]:
    """Generates, yielding each row with its new text after each of its tokens."""
    full = [row for row in request.rows if row.stop_reason is not None]
    for row in full:
        yield row, ""
    active = [row for row in request.rows if row.stop_reason is None]
    if not active:
        return
    # Rows of the cache are numbered without the prompts that leave no room.
    slots = {row.row: slot for slot, row in enumerate(active)}
    expected = max(len(row.prompt) + min(row.room, _ROOM_AT_ONCE) for row in active)
    context = model.cached(len(active), capacity=expected, cache=request.cache)
    hidden = _prefill(model, context, active, request)
    lengths = [1] * len(active)
    while True:
        for row, token in zip(active, _sample(model, hidden, active, request), strict=True):
            yield row, row.add(token)
        for row in active:
            if row.stop_reason is not None:
                lengths[slots[row.row]] = 0
        active = [row for row in active if row.stop_reason is None]
        if not active:
            return
        hidden = _forward(model, context, [row.tokens[-1] for row in active], lengths)


def _prefill(
    model: GenerativeModel, context: CachedContext, rows: list[Row], request: Request
) -> Tensor:
    """Feeds the prompts; returns the hidden state ``[B, D]`` of each prompt's last token."""
    longest = max(len(row.prompt) for row in rows)
    chunk = request.prefill_chunk or longest
    total = sum(len(row.prompt) for row in rows)
    last: list[Tensor | None] = [None] * len(rows)
    features = Features(model, [row.inputs for row in rows])
    for row in rows:
        row.inputs = ()  # pixels, which nobody needs any more
    done = 0
    for start in range(0, longest, chunk):
        parts = [row.prompt[start : start + chunk] for row in rows]
        lengths = [len(part) for part in parts]
        hidden = _forward(
            model,
            context,
            [token for part in parts for token in part],
            lengths,
            features.take(parts),
        )
        end = 0
        for index, length in enumerate(lengths):
            end += length
            if length:
                # A copy: a view would keep the hidden states of the whole chunk alive.
                last[index] = hidden[end - 1].clone()
        done += sum(lengths)
        if request.progress is not None:
            request.progress(done, total)
    with torch.inference_mode():
        return torch.stack([state for state in last if state is not None])


def _forward(
    model: GenerativeModel,
    context: CachedContext,
    tokens: list[int],
    lengths: list[int],
    features: Mapping[int, Tensor] | None = None,
) -> Tensor:
    # Only when there are any: a model that reads text alone need not know of features.
    given: dict[str, Any] = {"features": features} if features else {}
    # Around each step and not around the loop: a suspended generator would leave the mode on in
    # the code that consumes it.
    with torch.inference_mode():
        step = context.extend(lengths)
        hidden, _ = model(torch.tensor(tokens, device=model.device), step, **given)
        context.commit()
    return hidden


def _sample(model: GenerativeModel, hidden: Tensor, rows: list[Row], request: Request) -> list[int]:
    """One token for each row from ``hidden [B, D]``, with log-probabilities where asked for."""
    with torch.inference_mode():
        logits = model.project(hidden)
        # Drawn on the host, so that a seed means the same on every device.
        numbers = [0.0 if request.greedy else row.uniform() for row in rows]
        chosen = request.sampler.choose(logits, torch.tensor(numbers, dtype=torch.float64))
        if request.logprobs is not None:
            own, ids, values = log_probabilities(logits, chosen, request.logprobs)
            for row, one, row_ids, row_values in zip(
                rows, own.tolist(), ids.tolist(), values.tolist(), strict=True
            ):
                row.logprobs.append(one)
                row.alternatives.append(tuple(zip(row_ids, row_values, strict=True)))
        tokens: list[int] = chosen.tolist()
    return tokens


def _reported(logprobs: int | None) -> tuple[bool, bool]:
    """Whether log-probabilities, and whether alternatives, were asked for."""
    return logprobs is not None, bool(logprobs)
