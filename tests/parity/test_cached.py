"""Cached forwards equal transformers' uncached one.

Where transformers is wrong (padding, packing), each document alone is the oracle.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.parity.oracle import CASES, random_tokens, tolerance
from torch import Tensor

LENGTH = 37


def stepwise(model: Any, tokens: Tensor, steps: list[int], **settings: Any) -> Tensor:
    """Logits of ``tokens [B, T]``, fed in pieces of the given sizes and committed one by one."""
    rows = tokens.shape[0]
    cached = model.cached(rows, **settings)
    pieces, first = [], 0
    for size in steps:
        piece = tokens[:, first : first + size]
        hidden, _ = model(piece.reshape(-1), cached.extend([size] * rows))
        cached.commit()
        pieces.append(model.project(hidden).unflatten(0, (rows, size)))
        first += size
    return torch.cat(pieces, 1)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(
    "steps", [[1] * LENGTH, [13, 1, 1, 9, 5, 8], [8, 8, 8, 8, 5]], ids=["single", "ragged", "chunk"]
)
def test_decode_equals_the_full_forward(pair_of: Any, name: str, steps: list[int]) -> None:
    """Token by token, in ragged pieces, and in pieces that end on chunk boundaries."""
    theirs, ours = pair_of(name)
    tokens = random_tokens(2, LENGTH, theirs.config.vocab_size, seed=6)
    expected = theirs(tokens).logits
    assert (stepwise(ours, tokens, steps) - expected).abs().max() <= tolerance(expected)


@pytest.mark.parametrize("cache", ["bounded", "full"])
def test_both_caches(pair_of: Any, cache: str) -> None:
    """Dropping what no query can see changes nothing."""
    theirs, ours = pair_of("chunk-5")
    tokens = random_tokens(1, 200, theirs.config.vocab_size, seed=7)
    expected = theirs(tokens).logits
    found = stepwise(ours, tokens, [11] * 18 + [2], cache=cache)
    assert (found - expected).abs().max() <= tolerance(expected)


def test_transformers_cached_decode(pair_of: Any) -> None:
    """The oracle's own cached decode agrees, so it is one more witness."""
    theirs, ours = pair_of("scout-like")
    tokens = random_tokens(1, LENGTH, theirs.config.vocab_size, seed=8)
    past, pieces = None, []
    for position in range(LENGTH):
        out = theirs(tokens[:, position : position + 1], past_key_values=past, use_cache=True)
        past = out.past_key_values
        pieces.append(out.logits)
    expected = torch.cat(pieces, 1)
    # Their two paths differ by up to 9.4e-6 from each other; both are within our tolerance.
    assert (stepwise(ours, tokens, [1] * LENGTH) - expected).abs().max() <= tolerance(expected)


@pytest.mark.parametrize("chunk", [30, 7], ids=["whole", "chunked"])
def test_ragged_batch_is_each_row_alone(pair_of: Any, chunk: int) -> None:
    """Rows of different lengths, prefilled and decoded together; no padding shifts a position.

    In chunks of 7 the rows end in different steps, within Llama 4's chunks of 8 and across them.

    transformers' left padding shifts its temperature (it counts pads), so each row alone is the
    oracle.
    """
    theirs, ours = pair_of("scout-like")
    lengths = [3, 30, 17]
    rows = [random_tokens(1, n + 4, theirs.config.vocab_size, seed=20 + n)[0] for n in lengths]
    cached = ours.cached(3)
    found: list[list[Tensor]] = [[], [], []]
    for first in range(0, max(lengths), chunk):
        parts = [row[first : min(first + chunk, n)] for row, n in zip(rows, lengths, strict=True)]
        sizes = [len(part) for part in parts]
        hidden, _ = ours(torch.cat(parts), cached.extend(sizes))
        cached.commit()
        for row, logits in zip(found, ours.project(hidden).split(sizes), strict=True):
            row.append(logits)
    for offset in range(4):
        step = torch.stack([row[n + offset] for row, n in zip(rows, lengths, strict=True)])
        hidden, _ = ours(step, cached.extend([1, 1, 1]))
        cached.commit()
        for row, logits in zip(found, ours.project(hidden), strict=True):
            row.append(logits[None])
    for row, logits in zip(rows, found, strict=True):
        expected = theirs(row[None]).logits[0]
        assert (torch.cat(logits) - expected).abs().max() <= tolerance(expected)


def test_packed_documents_are_each_document_alone(pair_of: Any) -> None:
    """Packing: positions, chunks and temperature restart with each document."""
    theirs, ours = pair_of("scout-like")
    lengths = [9, 1, 26, 8, 16]
    documents = [random_tokens(1, n, theirs.config.vocab_size, seed=40 + n)[0] for n in lengths]
    hidden, _ = ours(torch.cat(documents), ours.packed(lengths))
    for document, logits in zip(documents, ours.project(hidden).split(lengths), strict=True):
        expected = theirs(document[None]).logits[0]
        assert (logits - expected).abs().max() <= tolerance(expected)


@pytest.mark.parametrize("draft", [1, 3, 7, 12])
def test_rejected_drafts_leave_no_trace(pair_of: Any, draft: int) -> None:
    """Provisional tokens, some rejected, across chunk boundaries: as if never seen."""
    theirs, ours = pair_of("chunk-5")
    tokens = random_tokens(1, LENGTH, theirs.config.vocab_size, seed=9)[0]
    wrong = random_tokens(1, draft, theirs.config.vocab_size, seed=10)[0]
    expected = theirs(tokens[None]).logits[0]
    cached = ours.cached(1)
    for position in range(LENGTH):
        ours(torch.cat([tokens[position : position + 1], wrong]), cached.extend([1 + draft]))
        if position % 3 == 0:
            cached.rollback()
            hidden, _ = ours(tokens[position : position + 1], cached.extend([1]))
            found = ours.project(hidden)[0]
            assert (found - expected[position]).abs().max() <= tolerance(expected)
            cached.commit()
        else:
            cached.commit([1])
