"""Worlds: who answers right, how often, and beside what."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama4_core.chat.messages import Text
from llama4_core.errors import ModalityError
from llama4_core.plugins.catalogue import catalogue
from llama4_core.testing.modality_cases import tokenizer
from llama4_train.errors import EvaluationError
from llama4_train.evaluation.replies import Reply, replies
from llama4_train.evaluation.tasks import Context, tasks_of
from llama4_train.recipe import Slot
from llama4_train.worlds import rates, world


class Player:
    """Answers prompts by a table, in place of a model; some answers wrong, some without end."""

    def __init__(self, questions: Any, answer: Any) -> None:
        self.spec = SimpleNamespace(name="player")
        self.tokenizer = tokenizer()
        self.table = {self.key(one): answer(one) for one in questions}
        self.asked: list[int] = []
        self.settings: list[dict[str, Any]] = []

    @staticmethod
    def key(question: Any) -> str:
        return "".join(
            part.text if isinstance(part, Text) else repr(id(part.source))
            for part in question.prompt
        )

    def generate(self, prompts: Any, **settings: Any) -> Any:
        self.asked.append(len(prompts))
        self.settings.append(settings)
        found = []
        for prompt in prompts:
            parts = [prompt] if isinstance(prompt, str) else prompt
            key = "".join(
                part if isinstance(part, str) else repr(id(part.source)) for part in parts
            )
            text, reason = self.table[key]
            found.append(SimpleNamespace(text=text, stop_reason=reason))
        return found


def task(**settings: Any) -> Any:
    return tasks_of([Slot("world", settings)])[0].task


@given(st.integers(0, 99), st.integers(1, 7))
def test_each_kind_counts_its_right_answers(seed: int, batch: int) -> None:
    drawn = random.Random(seed)
    given = world("arithmetic", split="held-out", seed=seed)
    questions = [one for index in range(12) for one in given.sample(index).questions]
    said = {id(one): drawn.choice(["right", "wrong", "cut"]) for one in questions}
    # Equal questions get equal replies: the table knows only what was asked.
    first: dict[str, str] = {}
    said = {id(one): first.setdefault(Player.key(one), said[id(one)]) for one in questions}

    def answer(question: Any) -> tuple[str, str]:
        how = said[id(question)]
        text = "no" if how == "wrong" else question.answer
        return text, "length" if how == "cut" else "stop_string"

    player = Player(questions, answer)
    figures = task(world="arithmetic", seed=seed, count=12, batch=batch, counted=60).measure(
        player, Context(catalogue())
    )
    assert sum(player.asked) == len(questions)
    assert max(player.asked) <= batch
    assert all(one["stop"] == ("\n",) for one in player.settings)
    by_kind = {one.name: one for one in figures}
    for kind in {one.kind for one in questions}:
        mine = [one for one in questions if one.kind == kind]
        right = sum(said[id(one)] == "right" for one in mine)
        figure = by_kind[kind]
        assert (figure.value, figure.count) == (right / len(mine), len(mine))
        assert figure.low <= figure.value <= figure.high
        cut = sum(said[id(one)] == "cut" for one in mine) / len(mine)
        assert figure.facts.get("unfinished", 0) == cut
        known = rates(given, 60)[kind]
        assert (figure.chance, figure.majority) == (known.chance, known.majority)
    if "all" in by_kind:
        total = sum(said[id(one)] == "right" for one in questions)
        assert by_kind["all"].value == total / len(questions)


def test_boxes_get_their_mean_overlap_too() -> None:
    settings = {"kinds": ["box"], "questions": 1}
    given = world("scenes", split="held-out", **settings)
    questions = [given.sample(index).question for index in range(6)]

    def half(question: Any) -> tuple[str, str]:
        x0, y0, x1, y1 = question.target.corners
        middle = round((x0 + x1) / 2)
        return f"<box>{round(x0)},{round(y0)},{middle},{round(y1)}</box>", "stop_string"

    made = task(world="scenes", settings=settings, count=6, counted=40)
    # Pictures are drawn anew for each call, so the player knows prompts by their texts alone; of
    # equal texts the one with the shorter answer is asked first.
    texts: dict[str, list[Any]] = {}
    for one in sorted(questions, key=lambda one: len(one.answer)):
        texts.setdefault(one.prompt[-1].text, []).append(half(one))
    player = SimpleNamespace(spec=None, tokenizer=tokenizer(), asked=0)

    def generate(prompts: Any, **_: Any) -> Any:
        found = [texts[prompt[-1]].pop(0) for prompt in prompts]
        return [SimpleNamespace(text=text, stop_reason=reason) for text, reason in found]

    player.generate = generate
    accuracy, score = made.measure(player, Context(catalogue()))
    assert (accuracy.metric, accuracy.value, score.metric) == ("accuracy", 0.0, "score")
    # Half of each box, but for rounding to thousandths of boxes of 180 and more.
    assert score.value == pytest.approx(0.5, abs=0.02)
    assert accuracy.chance is not None


def test_conversations_end_with_their_turn(model: Any) -> None:
    given = world("tools", split="held-out", form="chat")
    questions = list(given.sample(0).questions)
    seen = []

    class Talker:
        spec, modalities, catalogue, folder = model.spec, (), model.catalogue, None
        tokenizer = model.tokenizer

        def generate(self, prompts: Any, **settings: Any) -> Any:
            seen.append((prompts, settings))
            in_order = sorted(questions, key=lambda one: len(one.answer))
            return [SimpleNamespace(text=one.answer, stop_reason="stop_token") for one in in_order]

    found = replies(Talker(), questions, batch=8, max_tokens=9)
    assert [one.right(question) for one, question in zip(found, questions, strict=True)] == [
        True
    ] * len(questions)
    ((prompts, settings),) = seen
    specials = model.tokenizer.specials
    assert settings["stop_tokens"] >= {specials["<|eot|>"], specials["<|eom|>"]}
    assert settings["stop"] == ()
    assert all(
        model.tokenizer.decode(one, specials=True).rstrip().endswith("assistant<|header_end|>")
        for one in prompts
    )


def test_what_was_cut_off_is_no_answer() -> None:
    question = world("arithmetic").sample(0).question
    assert Reply(question.answer, True).right(question)
    assert not Reply(question.answer, False).right(question)
    assert Reply(question.answer, False).score(question) == 0


def test_a_real_model_is_asked(model: Any) -> None:
    made = task(world="arithmetic", count=3, max_tokens=4, settings={"questions": 1})
    figures = made.measure(model, Context(catalogue()))
    assert sum(one.count for one in figures if one.name != "all") == 3
    assert all(one.value == 0 for one in figures)  # random weights know no arithmetic


def test_what_cannot_be_asked(model: Any) -> None:
    context = Context(catalogue())
    with pytest.raises(EvaluationError, match="asks nothing"):
        task(world="source", count=1).measure(model, context)
    with pytest.raises(ModalityError, match="text model"):
        task(world="scenes", count=1).measure(model, context)
    bare = SimpleNamespace(spec=SimpleNamespace(name="bare"), tokenizer=None)
    with pytest.raises(EvaluationError, match="no tokenizer"):
        task(world="arithmetic", count=1).measure(bare, context)
