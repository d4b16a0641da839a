"""Examples back to back, up to a number of tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from llama4_train.protocols import Batch, Example

IGNORED = -100
"""The target of a token that has none, as torch's losses know it."""


def pack(examples: Sequence[Example], placeholders: dict[int, int] | None = None) -> Batch:
    """One batch of whole examples.

    A token's target is the next token of the same example; the last one has none.

    Args:
        examples: at least one, each of at least one token.
        placeholders: index of a reading in the batch's order -> placeholder id; None where all are
            of one modality, whose id is then given as ``{0: id}`` or is not needed.
    """
    tokens = [token for example in examples for token in example.tokens]
    targets: list[int] = []
    weights: list[float] = []
    for example in examples:
        ahead = [*zip(example.tokens[1:], example.weights[1:], strict=True), (IGNORED, 0.0)]
        targets += [token if weight else IGNORED for token, weight in ahead]
        weights += [weight for _, weight in ahead]
    readings = [reading for example in examples for reading in example.readings]
    inputs = {}
    if readings and placeholders:
        inputs[placeholders[0]] = torch.cat([reading.inputs for reading in readings])
    return Batch(
        tokens=torch.tensor(tokens, dtype=torch.int64),
        targets=torch.tensor(targets, dtype=torch.int64),
        weights=torch.tensor(weights, dtype=torch.float32),
        lengths=tuple(len(example.tokens) for example in examples),
        sources=tuple(example.source for example in examples),
        inputs=inputs,
    )
