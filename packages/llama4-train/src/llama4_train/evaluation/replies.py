"""Greedy replies to the questions of a world, in batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from llama4_core.chat.conversation import Turn
from llama4_core.chat.messages import Text
from llama4_core.generation.stops import STOP_STRING, STOP_TOKEN
from llama4_train.errors import EvaluationError
from llama4_train.worlds.sample import Question

PREFILL = 8192
"""Prompt tokens of all rows per forward: beyond that, only the caches grow with the prompts.

With more, a token of a small model costs no less.
"""


@dataclass(frozen=True)
class Reply:
    """What a model said.

    Attributes:
        text: up to the stop.
        ended: whether it came to the stop, rather than being cut off.
    """

    text: str
    ended: bool

    def right(self, question: Question) -> bool:
        """Whether it answers the question; what was cut off is no answer."""
        return self.ended and question.accept(self.text)

    def score(self, question: Question) -> float:
        """How right it is, 0 to 1."""
        return question.score(self.text) if self.ended else 0.0


def replies(
    model: Any,
    questions: Sequence[Question],
    *,
    batch: int,
    max_tokens: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[Reply]:
    """Asks each question and lets the model answer greedily, up to the question's stop.

    Questions with answers of like length go together: a batch runs until its last reply ends, so
    that one box among short answers would make all of them wait. Each reply is what it would be if
    its question were asked alone.

    Args:
        model: with a tokenizer.
        questions: with prompts, pictures among them, or conversations.
        batch: questions at once.
        max_tokens: longest reply.
        progress: called with how many are answered.

    Raises:
        EvaluationError: the model has no tokenizer, or a question asks nothing.
        GenerationError: a prompt is longer than the model's context.
        ModalityError: the model does not read a picture.
    """
    if model.tokenizer is None:
        raise EvaluationError(
            f"{model.spec.name} has no tokenizer, so nobody can ask it; load a folder with a "
            "tokenizer.json"
        )
    found: list[Reply | None] = [None] * len(questions)
    groups: dict[tuple[bool, str], list[int]] = {}
    for at, question in enumerate(questions):
        groups.setdefault((bool(question.messages), question.stop), []).append(at)
    done = 0
    for (chat, stop), places in groups.items():
        places.sort(key=lambda at: len(questions[at].answer))
        for start in range(0, len(places), batch):
            some = places[start : start + batch]
            ask = _chat if chat else _packs
            texts = ask(model, [questions[at] for at in some], stop, max_tokens)
            for at, reply in zip(some, texts, strict=True):
                found[at] = reply
            done += len(some)
            if progress is not None:
                progress(done, len(questions))
    return [reply for reply in found if reply is not None]


def _packs(model: Any, questions: Sequence[Question], stop: str, most: int) -> list[Reply]:
    prompts = [_prompt(question) for question in questions]
    generations = model.generate(
        prompts,
        stop=(stop,) if stop else (),
        max_tokens=most,
        prefill_chunk=_chunk(questions),
    )
    return [_reply(one) for one in generations]


def _prompt(question: Question) -> str | list[Any]:
    if not question.prompt:
        raise EvaluationError(
            f"a question of the kind {question.kind!r} has neither a prompt nor messages"
        )
    parts = [part.text if isinstance(part, Text) else part for part in question.prompt]
    if all(isinstance(part, str) for part in parts):
        return "".join(str(part) for part in parts)
    return parts


def _chat(model: Any, questions: Sequence[Question], stop: str, most: int) -> list[Reply]:
    turns = [Turn.prepare(model, one.messages, one.tools) for one in questions]
    generations = model.generate(
        [turn.given for turn in turns],
        stop=(stop,) if stop else (),
        stop_tokens=turns[0].stops,
        max_tokens=most,
        prefill_chunk=_chunk(questions),
    )
    return [_reply(one) for one in generations]


def _chunk(questions: Sequence[Question]) -> int:
    """Prompt tokens of a row per forward."""
    return max(1, PREFILL // len(questions))


def _reply(generation: Any) -> Reply:
    return Reply(generation.text, generation.stop_reason in (STOP_STRING, STOP_TOKEN))
