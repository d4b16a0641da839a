"""Log-likelihoods of continuations, many in one forward."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from llama4_train.errors import EvaluationError

Pair = tuple[Sequence[int], Sequence[int]]
"""Tokens of a context (at least one) and of what follows it (at least one)."""


def score(model: Any, pairs: Sequence[Pair], tokens: int = 8192) -> list[tuple[float, bool]]:
    """For each pair the log-likelihood of its second part, and whether greedy decoding gives it.

    A pair longer than the model's context loses tokens of its first part, from the left.

    Args:
        model: assembled.
        pairs: contexts and continuations; the last token of a continuation is never read.
        tokens: per forward, at most; a longer pair is read alone.

    Returns:
        In the order of ``pairs``.

    Raises:
        EvaluationError: a continuation is longer than the model's context.
    """
    longest = model.spec.max_positions
    for _, follows in pairs:
        if len(follows) > longest:
            raise EvaluationError(
                f"a continuation has {len(follows)} tokens; expected at most {longest}, the "
                "longest context of the model"
            )
    rows = [([*context, *follows][:-1][-longest:], list(follows)) for context, follows in pairs]
    # Long ones first: what does not fit into memory fails at once, not after an hour.
    order = sorted(range(len(rows)), key=lambda at: -len(rows[at][0]))
    found: list[tuple[float, bool]] = [(0.0, False)] * len(rows)
    for batch in _batches(order, rows, tokens):
        read = [rows[at] for at in batch]
        for at, one in zip(batch, _score(model, read), strict=True):
            found[at] = one
    return found


def _batches(
    order: Sequence[int], rows: Sequence[tuple[list[int], list[int]]], tokens: int
) -> Iterator[list[int]]:
    batch: list[int] = []
    room = tokens
    for at in order:
        used = len(rows[at][0])
        if batch and used > room:
            yield batch
            batch, room = [], tokens
        batch.append(at)
        room -= used
    if batch:
        yield batch


def _score(model: Any, rows: Sequence[tuple[list[int], list[int]]]) -> list[tuple[float, bool]]:
    lengths = [len(read) for read, _ in rows]
    flat = torch.tensor([token for read, _ in rows for token in read], device=model.device)
    places: list[int] = []
    end = 0
    for (_, follows), length in zip(rows, lengths, strict=True):
        end += length
        places += range(end - len(follows), end)
    with torch.inference_mode():
        hidden, _ = model(flat, model.packed(lengths))
        logits = model.project(hidden[torch.tensor(places, device=model.device)])
        targets = torch.tensor([token for _, follows in rows for token in follows])
        targets = targets.to(logits.device)
        chosen = logits.gather(1, targets[:, None])[:, 0].double()
        logs = (chosen - logits.logsumexp(1).double()).cpu()
        greedy = (logits.argmax(1) == targets).cpu()
    sizes = [len(follows) for _, follows in rows]
    return [
        (float(one.sum()), bool(hits.all()))
        for one, hits in zip(logs.split(sizes), greedy.split(sizes), strict=True)
    ]


def windows(tokens: Sequence[int], first: int, longest: int) -> list[Pair]:
    """A long text as pairs for :func:`score` in which every token follows exactly once.

    The model reads at most ``longest`` tokens at a time; the last window is as long as the others,
    so that the last tokens have as much before them as can be had.

    Args:
        tokens: of the text.
        first: token in front of it.
        longest: tokens of the model's context.
    """
    whole = [first, *tokens]
    found: list[Pair] = []
    for start in range(0, len(tokens), longest):
        end = min(start + longest, len(tokens))
        # Token ``i`` of the text is token ``i + 1`` of the whole.
        found.append((whole[max(0, end - longest) : start + 1], whole[start + 1 : end + 1]))
    return found
