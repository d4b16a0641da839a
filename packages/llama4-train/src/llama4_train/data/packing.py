"""Examples back to back, up to a number of tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from llama4_train.errors import DataError
from llama4_train.protocols import Batch, Example

IGNORED = -100
"""The target of a token that has none, as torch's losses know it."""


def pack(examples: Sequence[Example]) -> Batch:
    """One batch of whole examples.

    A token's target is the next token of the same example; the last one has none. Inputs of each
    placeholder follow each other as their tokens do in the stream.

    Args:
        examples: at least one, each of at least one token.

    Raises:
        DataError: there is no example, or inputs of one placeholder have different shapes.
    """
    if not examples or not all(example.tokens for example in examples):
        raise DataError("a batch was asked for without examples, or of one without tokens")
    tokens = [token for example in examples for token in example.tokens]
    targets: list[int] = []
    weights: list[float] = []
    for example in examples:
        ahead = [*zip(example.tokens[1:], example.weights[1:], strict=True), (IGNORED, 0.0)]
        targets += [token if weight else IGNORED for token, weight in ahead]
        weights += [weight for _, weight in ahead]
    return Batch(
        tokens=torch.tensor(tokens, dtype=torch.int64),
        targets=torch.tensor(targets, dtype=torch.int64),
        weights=torch.tensor(weights, dtype=torch.float32),
        lengths=tuple(len(example.tokens) for example in examples),
        sources=tuple(example.source for example in examples),
        inputs=_inputs(examples),
    )


def _inputs(examples: Sequence[Example]) -> dict[int, Tensor]:
    found: dict[int, list[Tensor]] = {}
    for example in examples:
        for placeholder, reading in zip(example.placeholders, example.readings, strict=True):
            found.setdefault(placeholder, []).append(reading.inputs)
    for placeholder, inputs in found.items():
        shapes = {tuple(one.shape[1:]) for one in inputs}
        if len(shapes) > 1:
            raise DataError(
                f"inputs for token {placeholder} have the shapes {sorted(shapes)}; expected one: "
                "modalities give inputs that can be concatenated"
            )
    return {placeholder: torch.cat(inputs) for placeholder, inputs in found.items()}
