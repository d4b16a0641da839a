"""Conversations hold what their parts hold, in an order that makes sense."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama4_core.chat.format import Llama4Format
from llama4_train.errors import DataError
from llama4_train.worlds import world
from llama4_train.worlds.chats import TOPICS, Chats


@given(index=st.integers(0, 10**9), split=st.sampled_from(["train", "held-out"]))
def test_every_question_is_asked_behind_all_that_came_before(index, split):
    sample = Chats(split=split).sample(index)
    messages = sample.record.messages
    replies = [at for at, message in enumerate(messages) if message.role == "assistant"]
    assert messages[0].role == "system"
    assert len(replies) == len(sample.questions)
    for at, question in zip(replies, sample.questions, strict=True):
        assert question.messages == messages[:at]
        reply = messages[at]
        written = reply.text or question.answer
        assert question.accept(written)
        assert bool(reply.tool_calls) == (question.kind == "call")
        assert question.tools == sample.record.tools
        if question.kind == "result":
            assert messages[at - 1].role == "ipython"
            assert messages[at - 2].tool_calls
    rendered = Llama4Format().render(messages, sample.record.tools, generation=False)
    assert rendered.text.endswith("<|eot|>")


def test_a_key_is_told_before_it_is_asked_for():
    seen = 0
    for index in range(60):
        sample = Chats(topics=("memory", "arithmetic")).sample(index)
        for question in sample.questions:
            if question.kind == "memory":
                told = [m.text for m in question.messages if m.text.endswith(f"{question.answer}.")]
                assert len(told) == 1
                name = question.messages[-1].text.removeprefix("What is the key of the ")
                assert f"The key of the {name.rstrip('?')} is" in told[0]
                seen += 1
    assert seen > 20


def test_all_topics_come_up():
    kinds = {question.kind for i in range(200) for question in Chats().sample(i).questions}
    assert {"colour", "box", "arithmetic-1", "translation", "memory", "call", "result"} <= kinds


def test_without_tools_none_are_on_offer():
    for index in range(30):
        sample = Chats(topics=("scenes", "sentences"), system="").sample(index)
        assert sample.record.tools == ()
        assert sample.record.messages[0].role == "user"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"topics": ["scene"]}, "did you mean 'scenes'"),
        ({"topics": []}, f"expected one of {', '.join(TOPICS)}"),
        ({"lengths": (0, 2)}, "lengths of chats"),
    ],
)
def test_wrong_settings_are_named(settings, words):
    with pytest.raises(DataError, match=words):
        world("chats", **settings)
