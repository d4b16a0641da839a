"""Messages, calls, and their form in OpenAI's API."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama4_core.chat import Image, Message, Text, ToolCall, from_openai, to_openai
from llama4_core.chat.messages import MAX_DEPTH
from llama4_core.chat.openai import functions
from llama4_core.errors import ChatError
from llama4_core.testing.chat_strategies import MESSAGES


def nested(depth):
    value = 1
    for _ in range(depth):
        value = [value]
    return value


def test_equal_contents_compare_equal():
    whole = Message("user", "ab")
    assert Message("user", ["a", Text(""), Text("b")]) == whole
    assert Message("user", [Text("a"), Image(), "b"]).content == (Text("a"), Image(), Text("b"))
    assert Message("user", ["a", Image("x"), "b"]).text == "ab"
    assert Message("tool", "42") == Message("ipython", "42", call_id="call_1")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Message("robot", "x"), "role is 'robot'"),
        (lambda: Message("user", [3]), "a part of a message is 3"),
        (lambda: Message("user", "x", [ToolCall("f")]), "expected 'assistant'"),
        (lambda: Message("assistant", "x", ["f()"]), "expected a ToolCall"),
        (lambda: ToolCall("f g"), "'f g' cannot be used"),
        (lambda: ToolCall(""), "cannot be used"),
        (lambda: ToolCall("f\n"), "cannot be used"),
        (lambda: ToolCall("x" * 129), "cannot be used"),
        (lambda: ToolCall("f", "a=1"), "expected a dictionary"),
        (lambda: ToolCall("f", {"a": float("nan")}), "finite"),
        (lambda: ToolCall("f", {"a": {1: 2}}), "the key 1"),
        (lambda: ToolCall("f", {"a": object()}), "a object"),
        (lambda: ToolCall("f", {"a": "\ud800"}), "surrogate"),
        (lambda: ToolCall("f", {"a": 10**399}), "399 digits"),
        (lambda: ToolCall("f", {"a": nested(MAX_DEPTH)}), "nested"),
        (lambda: ToolCall("f", {"a": nested(100_000)}), "nested"),
    ],
)
def test_what_cannot_be_written_is_refused(make, words):
    with pytest.raises(ChatError, match=words):
        make()


def test_the_edges_are_accepted():
    ToolCall("x" * 128, {"a": nested(MAX_DEPTH - 1), "b": 10**399 - 1, "c": -(10**399) + 1})


@given(MESSAGES)
def test_openai_round_trip(messages):
    dictionaries = to_openai(messages)
    assert from_openai(json.loads(json.dumps(dictionaries))) == messages


def test_openai_forms():
    got = from_openai(
        [
            {"role": "developer", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "See"},
                    {"type": "image_url", "image_url": {"url": "http://a/b.png"}},
                    {"type": "image", "path": "c.png"},
                ],
            },
            {
                "role": "assistant",
                "content": None,
                "refusal": None,
                "tool_calls": [
                    {
                        "id": "1",
                        "type": "function",
                        "function": {"name": "f", "arguments": '{"a": 1}'},
                    },
                    {"function": {"name": "g", "arguments": {"b": None}}},
                ],
            },
            {"role": "tool", "tool_call_id": "1", "name": "f", "content": "42"},
            Message("user", "as it is"),
        ]
    )
    assert got == [
        Message("system", "Be brief."),
        Message("user", ["See", Image("http://a/b.png"), Image("c.png")]),
        Message("assistant", "", [ToolCall("f", {"a": 1}), ToolCall("g", {"b": None})]),
        Message("ipython", "42"),
        Message("user", "as it is"),
    ]
    assert got[2].tool_calls[0].id == "1"
    assert got[3].call_id == "1"


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ("hello", "expected a list"),
        ({"role": "user"}, "expected a list"),
        ([3], "message 0: it is a int"),
        ([{"role": "user", "content": "a"}, {"content": "x"}], "message 1: its role is None"),
        ([{"role": "user", "content": 3}], "content is a int"),
        ([{"role": "user", "content": [{"type": "input_audio"}]}], "part 0"),
        ([{"role": "user", "colour": "red"}], "'colour'"),
        ([{"role": "assistant", "refusal": "no"}], "'refusal'"),
        ([{"role": "assistant", "tool_calls": "f()"}], "expected a list"),
        ([{"role": "assistant", "tool_calls": [{"name": "f"}]}], "tool call 0"),
        (
            [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}],
            "no valid JSON",
        ),
        (
            [
                {
                    "role": "assistant",
                    "tool_calls": [{"function": {"name": "f", "arguments": "[" * 100_000}}],
                }
            ],
            "no valid JSON",
        ),
    ],
)
def test_openai_errors_name_the_message(messages, words):
    with pytest.raises(ChatError, match=words):
        from_openai(messages)


def test_an_image_object_cannot_be_written():
    with pytest.raises(ChatError, match="URL or a path"):
        to_openai([Message("user", [Image(object())])])


def test_functions():
    f = {"name": "f", "description": "d", "parameters": {"type": "object"}}
    assert functions([{"type": "function", "function": f}, {"name": "g"}]) == [f, {"name": "g"}]


@pytest.mark.parametrize(
    ("tools", "words"),
    [
        ({"name": "f"}, "expected a list"),
        (["f"], "tool 0 is a str"),
        ([{"type": "web_search"}], "'web_search'"),
        ([{"description": "nameless"}], "tool 0 has no name"),
        ([{"name": "f"}, {"name": "f"}], "second one named 'f'"),
        ([{"name": "f", "parameters": object()}], "described as JSON"),
    ],
)
def test_tools_are_checked(tools, words):
    with pytest.raises(ChatError, match=words):
        functions(tools)


@given(st.text())
def test_text_of_any_kind_is_content(text):
    assert Message("user", text).text == text
