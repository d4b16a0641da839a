"""Calls are right by their request, and the parser reads them."""

import json
import re
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama4_core.chat.format import Llama4Format
from llama4_core.chat.messages import ToolCall
from llama4_core.chat.writing import write_json
from llama4_train.errors import DataError
from llama4_train.worlds import world
from llama4_train.worlds.streams import Stream, in_split
from llama4_train.worlds.tool_tables import CITIES, KNOWN, TOOLS
from llama4_train.worlds.tools import Tools


def solve(ask):
    """The call that a request asks for, read from its words."""
    numbers = [int(number) for number in re.findall(r"\d+", ask)]
    if "timer" in ask or "Wake" in ask:
        return "set_timer", {"minutes": numbers[0]}
    if "Add" in ask or "sum" in ask:
        return "add", {"a": numbers[0], "b": numbers[1]}
    if "light" in ask:
        words = ask.rstrip(".").split()
        return "set_light", {"room": words[words.index("the", 3) + 1], "on": "on" in words}
    if '"' in ask:
        note = ask.split('"')[1]
        rest = shlex.split(ask.rstrip("."))
        return "send_message", {
            "to": rest[-1] if rest[0] == "Write" else rest[1],
            "text": note,
        }
    city = re.search(r" in (\w+)[?.]$", ask)[1]
    return ("get_weather" if "weather" in ask else "get_time"), {"city": city}


@given(
    index=st.integers(0, 10**9),
    split=st.sampled_from(["train", "held-out"]),
    offered=st.integers(1, 6),
    form=st.sampled_from(["chat", "pack"]),
)
def test_the_call_is_what_was_asked_for(index, split, offered, form):
    sample = Tools(split=split, offered=offered, form=form, questions=2).sample(index)
    first, final, _, last = sample.questions
    assert [q.kind for q in sample.questions] == ["call", "result"] * 2
    ask = first.prompt[1].text if form == "pack" else first.messages[0].text
    name, arguments = solve(ask.strip())
    call = first.target.call
    assert (call.name, dict(call.arguments)) == (name, arguments)
    if form == "chat":
        names = [tool["name"] for tool in sample.record.tools]
        roles = [message.role for message in sample.record.messages]
        assert roles == ["user", "assistant", "ipython", "assistant"] * 2
        assert sample.record.messages[1].tool_calls == (call,)
        assert len(final.messages) == 3
        assert final.messages[2].role == "ipython"
        rendered = Llama4Format().render(sample.record.messages, sample.record.tools)
        assert f"<|python_start|>{first.answer}<|python_end|><|eom|>" in rendered.text
    else:
        names = re.findall(r"(\w+)\(", first.prompt[0].text)
        assert first.prompt[0].text.startswith("Tools: ")
        assert len(last.prompt) == 8
    assert len(names) == len(set(names)) == offered
    assert name in names
    assert json.loads(
        final.messages[2].text if form == "chat" else final.prompt[3].text
    )  # a result is JSON
    if name == "add":
        assert str(sum(arguments.values())) in final.answer


def test_replies_are_read_by_the_parser():
    question = Tools(offered=6).sample(3).question
    call = question.target.call
    assert question.accept(question.answer)
    assert question.accept(f"<|python_start|>{question.answer}<|python_end|>")
    assert question.accept(write_json([call]))
    assert not question.accept(f"Sure. {question.answer}")
    assert not question.accept(question.answer[:-1])
    assert not question.accept(f"[{question.answer[1:-1]}, {question.answer[1:-1]}]")
    assert not question.accept("")
    other = next(tool.name for tool in TOOLS if tool.name != call.name)
    assert not question.accept(question.answer.replace(call.name, other))
    assert not question.accept(question.answer.replace(call.name, "unknown"))


def test_types_of_arguments_count():
    for index in range(100):
        question = Tools(offered=6).sample(index).question
        if question.target.call.name == "set_light":
            break
    call = question.target.call
    wrong = ToolCall(call.name, {**call.arguments, "on": int(call.arguments["on"])})
    assert wrong == call  # Python's equality does not tell
    assert not question.accept(write_json([wrong]))
    turned = ToolCall(call.name, dict(reversed(list(call.arguments.items()))))
    assert question.accept(write_json([turned]))


def test_held_out_arguments_never_occur_in_training():
    def asked(split):
        return {
            question.answer
            for index in range(1500)
            for question in Tools(split=split, offered=6, results=False).sample(index).questions
        }

    assert not asked("train") & asked("held-out")


def test_made_up_names_are_asked_for_and_called_with():
    cities = set()
    for index in range(400):
        sample = Tools(offered=6, made_up=True).sample(index)
        call = sample.question.target.call
        for value in call.arguments.values():
            if isinstance(value, str):
                assert value in sample.question.messages[0].text
        if "city" in call.arguments:
            cities.add(call.arguments["city"])
            assert call.arguments["city"] in sample.questions[1].answer
        assert sample.question.accept(sample.question.answer)
    # A third of the requests, 133, name a city; a quarter of the names are single known words.
    assert len(cities - set(CITIES)) > 80


def test_made_up_names_never_are_held_out_arguments():
    def asked(split, made_up):
        return {
            question.answer
            for index in range(1500)
            for question in Tools(split=split, made_up=made_up, results=False)
            .sample(index)
            .questions
        }

    assert not asked("train", True) & asked("held-out", False)


@pytest.mark.parametrize("held_out", [2, 3, 4])
def test_every_tool_keeps_arguments_in_both_splits(held_out):
    for tool in TOOLS:
        numbers = Stream(tool.name)
        arguments = {json.dumps(dict(tool.request(numbers, KNOWN).arguments)) for _ in range(500)}
        for split in ("train", "held-out"):
            kept = [in_split(f"{tool.name} {one}", held_out, split) for one in arguments]
            assert sum(kept) >= 2


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"offered": 7}, "offered of tools is 7"),
        ({"held_out": 5}, "held_out of tools is 5"),
        ({"form": "talk"}, "form of tools"),
    ],
)
def test_wrong_settings_are_named(settings, words):
    with pytest.raises(DataError, match=words):
        world("tools", **settings)
