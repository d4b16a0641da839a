"""Text from a model: prefill in chunks, then one token per sequence and forward.

Works on anything with the small interface of :class:`GenerativeModel`. The prompts of a batch may
have any lengths; they share each forward, every one with its own positions, random numbers and end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from llama4_core.errors import ComponentError, GenerationError
from llama4_core.generation.prompts import Prompt, is_batch, read_prompt
from llama4_core.generation.result import Piece
from llama4_core.generation.rows import Ending, Row
from llama4_core.generation.sampling import Sampler, Sampling, log_probabilities
from llama4_core.generation.stops import CONTEXT, LENGTH, stop_strings
from llama4_core.plugins.catalogue import Catalogue, catalogue
from llama4_core.specs import ModelSpec
from llama4_core.tokenizers.tokenizer import Tokenizer

Progress = Callable[[int, int], None]

# Tokens after the prompt that the cache makes room for at once; it grows when there are more. A
# sequence that is allowed a million tokens and stops after ten should not pay for the million.
_ROOM_AT_ONCE = 1024


class CachedContext(Protocol):
    """Keys and values of a batch of growing sequences."""

    def extend(self, lengths: Sequence[int]) -> Any:
        """The context of a forward that adds ``lengths[b]`` tokens to row b."""

    def commit(self, lengths: Sequence[int] | None = None) -> None:
        """Keeps what the last forward added."""


class GenerativeModel(Protocol):
    """What generation needs of a model.

    Attributes:
        spec: its description: vocabulary, longest context, stop tokens.
        tokenizer: or None.
        device: where token ids have to be.
    """

    spec: ModelSpec
    tokenizer: Tokenizer | None

    @property
    def device(self) -> Any: ...

    def __call__(self, tokens: Tensor, context: Any, /) -> Any:
        """Ids ``[N]`` to hidden states ``[N, D]`` after the final norm, and routings."""

    def project(self, hidden: Tensor) -> Tensor:
        """Hidden states ``[B, D]`` to float32 logits ``[B, V]``."""

    def cached(self, rows: int, *, capacity: int = 0, cache: Any = "auto") -> CachedContext:
        """An empty cached context for ``rows`` sequences of about ``capacity`` tokens."""


@dataclass(frozen=True)
class _Request:
    """A checked call of ``generate``."""

    rows: tuple[Row, ...]
    sampler: Sampler
    greedy: bool
    logprobs: int | None
    prefill_chunk: int | None
    progress: Progress | None
    cache: Any


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
) -> Any:
    """Continues one prompt, or a batch of prompts.

    Args:
        model: see :class:`GenerativeModel`.
        prompt: a string (encoded with the beginning-of-text token; specials spelled in it are
            ordinary text) or token ids, taken as they are; or a list of such prompts.
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

    Returns:
        A :class:`~llama4_core.generation.result.Generation`; for a list of prompts a list of them,
        in order.

    Raises:
        GenerationError: a prompt or a setting cannot be used, or the model produced logits that
            are not numbers.
        ComponentError: there is no such sampler, or it cannot run here.
    """
    arguments = dict(locals())
    request = _read(**arguments)
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
) -> Iterator[Piece]:
    """As :func:`generate`, piece by piece while the model runs.

    The pieces of each row concatenate to what :func:`generate` returns. Text that may still become
    a stop string, and the bytes of an incomplete character, are held back. Arguments are checked
    at the call, before the first piece is asked for.

    Returns:
        An iterator of :class:`~llama4_core.generation.result.Piece`, one per sequence and step; the
        last piece of each row carries its stop reason.

    Raises:
        GenerationError: as :func:`generate`.
    """
    arguments = dict(locals())
    request = _read(**arguments)
    return _pieces(model, request)


def _pieces(model: GenerativeModel, request: _Request) -> Iterator[Piece]:
    reported = _reported(request.logprobs)
    for row, text in _run(model, request):
        yield row.piece(text, *reported)


def _run(model: GenerativeModel, request: _Request) -> Iterator[tuple[Row, str]]:
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
    model: GenerativeModel, context: CachedContext, rows: list[Row], request: _Request
) -> Tensor:
    """Feeds the prompts; returns the hidden state ``[B, D]`` of each prompt's last token."""
    longest = max(len(row.prompt) for row in rows)
    chunk = request.prefill_chunk or longest
    total = sum(len(row.prompt) for row in rows)
    last: list[Tensor | None] = [None] * len(rows)
    done = 0
    for start in range(0, longest, chunk):
        parts = [row.prompt[start : start + chunk] for row in rows]
        lengths = [len(part) for part in parts]
        hidden = _forward(model, context, [token for part in parts for token in part], lengths)
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
    model: GenerativeModel, context: CachedContext, tokens: list[int], lengths: list[int]
) -> Tensor:
    # Around each step and not around the loop: a suspended generator would leave the mode on in
    # the code that consumes it.
    with torch.inference_mode():
        step = context.extend(lengths)
        hidden, _ = model(torch.tensor(tokens, device=model.device), step)
        context.commit()
    return hidden


def _sample(
    model: GenerativeModel, hidden: Tensor, rows: list[Row], request: _Request
) -> list[int]:
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


def _read(
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
) -> _Request:
    """Checks everything that can be checked before the model runs."""
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
    prompts = list(prompt) if is_batch(prompt) else [prompt]
    seeds = _seeds(seed, len(prompts))
    rows = []
    for index, one in enumerate(prompts):
        tokens = read_prompt(one, index, tokenizer, spec.vocabulary, spec.max_positions)
        room = spec.max_positions - len(tokens)
        reason = CONTEXT
        if max_tokens is not None and max_tokens <= room:
            room, reason = max_tokens, LENGTH
        row = Row(index, tokens, room, reason, ending, seeds[index], tokenizer)
        if room == 0:
            row.end_without_room()
        rows.append(row)
    known = getattr(model, "catalogue", None) or catalogue()
    make = _sampler(sampler, known) if isinstance(sampler, str) else sampler
    greedy = sampling.temperature == 0
    return _Request(tuple(rows), make(sampling), greedy, logprobs, prefill_chunk, progress, cache)


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
