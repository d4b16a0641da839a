"""Questions in batches: the same replies, fewer forwards."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama4_core.testing.modality_cases import tokenizer
from llama4_train.evaluation import replies as module
from llama4_train.evaluation.replies import replies
from llama4_train.worlds import world


def asked(name: str, count: int, **settings: Any) -> list[Any]:
    given = world(name, split="held-out", **settings)
    return [one for index in range(count) for one in given.sample(index).questions]


class Echo:
    """Says the prompt back, and writes down who was asked together."""

    def __init__(self) -> None:
        self.spec = SimpleNamespace(name="echo")
        self.tokenizer = tokenizer()
        self.batches: list[tuple[list[str], int]] = []

    def generate(self, prompts: list[str], *, prefill_chunk: int, **_: Any) -> list[Any]:
        self.batches.append((prompts, prefill_chunk))
        return [SimpleNamespace(text=one, stop_reason="stop_string") for one in prompts]


def test_a_batch_says_what_each_says_alone(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # Prompts of many lengths, in conversations and without, and stops of two kinds. A line end may
    # stop some replies of random weights, so that rows of a batch end one after the other.
    questions = [
        *asked("arithmetic", 3),
        *asked("recall", 2, length=80),
        *asked("arithmetic", 1, form="chat"),
    ]
    alone = [replies(model, [one], batch=1, max_tokens=5)[0] for one in questions]
    assert len({one.text for one in alone}) > 5
    for batch, prefill in ((3, 4), (64, 200), (64, 8192)):
        monkeypatch.setattr(module, "PREFILL", prefill)
        assert replies(model, questions, batch=batch, max_tokens=5) == alone


@given(seed=st.integers(0, 10**6), count=st.integers(1, 9), batch=st.integers(1, 12))
def test_answers_of_like_length_go_together_and_come_back_in_order(
    seed: int, count: int, batch: int
) -> None:
    questions = asked("sentences", count, seed=seed)
    model = Echo()
    seen: list[tuple[int, int]] = []
    found = replies(
        model, questions, batch=batch, max_tokens=9, progress=lambda *now: seen.append(now)
    )
    prompts = ["".join(part.text for part in one.prompt) for one in questions]
    assert [one.text for one in found] == prompts
    sizes = [len(together) for together, _ in model.batches]
    assert all(size == batch for size in sizes[:-1])
    assert 0 < sizes[-1] <= batch
    assert [done for done, _ in seen] == [sum(sizes[: at + 1]) for at in range(len(sizes))]
    answers: dict[str, list[int]] = {}
    for prompt, one in zip(prompts, questions, strict=True):
        answers.setdefault(prompt, []).append(len(one.answer))
    for known in answers.values():
        known.sort()  # equal prompts, if there are any, come in this order too
    lengths = [answers[prompt].pop(0) for together, _ in model.batches for prompt in together]
    assert lengths == sorted(lengths)
    # A forward of the prompts never has more tokens than it may, unless there are more rows.
    assert all(
        chunk >= 1 and (chunk == 1 or chunk * len(together) <= module.PREFILL)
        for together, chunk in model.batches
    )
