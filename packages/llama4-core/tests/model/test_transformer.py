"""What the whole model takes, beside the parity tests: shapes, refusals, autocast."""

from __future__ import annotations

import pytest
import torch

import llama4_core as l4
from llama4_core.errors import ContextError
from llama4_core.model.initialise import initialise
from llama4_core.model.transformer import Transformer
from llama4_core.specs import AttentionSpec, DenseSpec, LayerSpec, ModelSpec, RopeSpec

CHUNKED = AttentionSpec("irope-chunked", 2, 1, 8, rope=RopeSpec(1e4), chunk=4, qk_norm=True)
GLOBAL = AttentionSpec("nope-global", 2, 1, 8)


def make(*, tied: bool = False) -> Transformer:
    layers = tuple(LayerSpec(attention, DenseSpec(24)) for attention in (CHUNKED, GLOBAL))
    model = l4.assemble(ModelSpec("tiny", 32, 16, 1e-5, 512, tied, layers, dtype="float32"))
    model = model.to_empty(device="cpu")
    initialise(model, 1)
    return model


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("shape", [(), (1,), (5,), (1, 3), (2, 3), (1, 16), (0,)])
def test_logits_of_any_leading_shape(tied: bool, shape: tuple[int, ...]) -> None:
    """A head of its own, and the embedding used as one, with one row or several."""
    model = make(tied=tied)
    hidden = torch.randn(*shape, 16, generator=torch.Generator().manual_seed(0))
    weight = model.embedding.weight if model.head is None else model.head.weight
    with torch.inference_mode():
        # float32: sums of 16 products in another order
        torch.testing.assert_close(model.project(hidden), hidden @ weight.T, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        ([[1, 2], [3]], r"no rectangle.*one by one"),
        ("ab", "no rectangle"),
        ([], "at least one"),
        ([0.5], "float32"),
        ([True, False], "bool"),
        ([[[1]]], r"\[1, 1, 1\]"),
        ([1, 32], "32 is outside.* 0 to 31"),
        ([-1], "-1 is outside"),
    ],
)
def test_what_is_no_text_is_refused(tokens: object, words: str) -> None:
    with pytest.raises(ContextError, match=words):
        make().logits(tokens)  # type: ignore[call-overload]


def test_forced_routings_are_one_per_layer() -> None:
    with pytest.raises(ContextError, match="forced has 1 entries; expected one per layer, 2"):
        make().logits([1, 2], forced=[None])


def test_cached_forwards_under_autocast() -> None:
    """Keys are kept in the model's dtype; queries arrive narrower."""
    model = make()
    tokens = torch.arange(12)
    with torch.inference_mode():
        expected = model.logits(tokens)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            cached = model.cached(1)
            pieces = []
            # a prefill, several queries behind cached keys, single tokens
            for piece in tokens.split([5, 4, 1, 1, 1]):
                hidden, _ = model(piece, cached.extend([len(piece)]))
                cached.commit()
                pieces.append(model.project(hidden))
    # bfloat16 products, two layers of them, relative to the largest logit
    error = (torch.cat(pieces) - expected).abs().max() / expected.abs().max()
    assert error <= 0.03
