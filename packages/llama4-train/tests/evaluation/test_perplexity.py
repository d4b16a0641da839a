"""Perplexity and bits per byte against what the words mean."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llama4_core.plugins.catalogue import catalogue
from llama4_train.errors import EvaluationError
from llama4_train.evaluation.perplexity import Perplexity
from llama4_train.evaluation.tasks import Context, tasks_of
from llama4_train.recipe import Slot, SourcePart

TEXTS = st.lists(
    st.text("ab é日.", min_size=1, max_size=20).filter(str.strip), min_size=1, max_size=5
)


def expected(model: Any, texts: list[str]) -> tuple[float, int, int]:
    """Negative log-likelihood, tokens, bytes: one document and one token at a time."""
    tokenizer = model.tokenizer
    nll, tokens = 0.0, 0
    for text in texts:
        ids = [*tokenizer.encode(text), tokenizer.specials["<|end_of_text|>"]]
        logs = model.logits(torch.tensor(ids)).double().log_softmax(-1)
        for at in range(1, len(ids)):
            nll -= float(logs[at - 1, ids[at]])
            tokens += 1
    return nll, tokens, sum(len(text.encode()) for text in texts)


@given(TEXTS, st.integers(1, 100))
def test_it_is_the_cost_of_telling_the_texts(
    tmp_path_factory: Any, model: Any, texts: list[str], tokens: int
) -> None:
    import json

    file = tmp_path_factory.mktemp("data") / "texts.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    task = Perplexity("jsonl", {"files": [str(file)], "epochs": 1}, tokens=tokens)
    perplexity, bits = task.measure(model, Context(catalogue()))
    with torch.no_grad():
        nll, count, size = expected(model, texts)
    assert perplexity.count == bits.count == count
    assert bits.facts == {"documents": len(texts), "bytes": size}
    # Other kernels for other lengths, in float32: 1e-5 of a sum of tens of nats.
    assert math.log(perplexity.value) == pytest.approx(nll / count, rel=1e-5)
    assert bits.value == pytest.approx(nll / math.log(2) / size, rel=1e-5)


def test_sources_apart_and_together(model: Any) -> None:
    sources = (
        SourcePart("worlds", label="sums", settings={"world": "arithmetic", "limit": 3}),
        SourcePart("worlds", settings={"world": "recall", "length": 90, "limit": 4}),
    )
    found = {
        (one.name, one.metric): one
        for one in Perplexity(sources=sources, records=9).measure(model, Context(catalogue()))
    }
    names = ("all", "recall", "sums")
    assert sorted(found) == [(n, m) for n in names for m in ("bits_per_byte", "perplexity")]
    apart = [found[name, "perplexity"] for name in ("sums", "recall")]
    whole = found["all", "perplexity"]
    assert whole.count == sum(one.count for one in apart)
    assert whole.facts["documents"] == 7
    mean = sum(math.log(one.value) * one.count for one in apart) / whole.count
    assert math.log(whole.value) == pytest.approx(mean, rel=1e-12)  # the same sums, in float64


def test_only_answers_count_where_only_answers_are_learnt(model: Any) -> None:
    settings = {"world": "arithmetic", "limit": 2, "questions": 2}
    (task,) = tasks_of([Slot("perplexity", {"source": "worlds", "settings": settings})])
    perplexity, bits = task.task.measure(model, Context(catalogue()))
    from llama4_train.worlds import WorldSource

    source = WorldSource(**settings)
    said = [piece.part.text for record in source for piece in record.pieces if piece.weight > 0]
    # The end of each document is learnt too, and has no bytes.
    assert bits.facts["bytes"] == sum(len(text) for text in said)
    assert perplexity.count == 2 + sum(
        len(model.tokenizer.encode(text, bos=False)) for text in said
    )


def test_nothing_to_score(tmp_path: Any, model: Any) -> None:
    with pytest.raises(EvaluationError, match="no token to score"):
        Perplexity("worlds", {"world": "arithmetic", "limit": 0}).measure(
            model, Context(catalogue())
        )
