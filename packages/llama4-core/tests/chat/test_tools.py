"""Tool parsers: property 38, and what is a call in which form."""

import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama4_core.chat import CallParser, ToolCall, read_calls
from llama4_core.chat.heads import LONGEST, heads
from llama4_core.chat.messages import MAX_DEPTH
from llama4_core.chat.source import Source
from llama4_core.chat.writing import write_json, write_pythonic
from llama4_core.errors import ChatError
from llama4_core.testing.chat_strategies import CALLS, TEXT, cut


def read(text, **settings):
    return read_calls(CallParser(**settings), [text])


F, G = ToolCall("f", {"a": 1}), ToolCall("g")


@pytest.mark.parametrize(
    ("text", "events"),
    [
        ("[f(a=1)]", [F]),
        ("[f(a=1), g()]", [F, G]),
        ("[ f ( a = 1 , ) ,\n g ( ) ]", [F, G]),
        ("see [f(a=1)] then [g()].", ["see ", F, " then ", G, "."]),
        ("[f(a=1)]\n[g()]", [F, G]),
        ("[f(a=1)] ; [g()] ;", [F, G, " ;"]),
        ("[f(a=1)][nope]", [F, "[nope]"]),
        ("<|python_start|>[f(a=1)]<|python_end|>", [F]),
        ("<|python_start|>\n[f(a=1)]\n<|python_end|>\n", [F, "\n"]),
        ("<|python_start|>[f(a=1)]", [F]),
        ("[f(a=1)]<|python_end|>x", [F, "x"]),
        ("<|python_start|>f(a=1)<|python_end|>", None),
        ("[[f(a=1)]]", ["[", F, "]"]),
        ("[f(a=1]) [g()]", ["[f(a=1]) ", G]),
        ("[f(1)]", None),
        ("[f(a)]", None),
        ("[f(a=g())]", None),
        ("[f(a=1+1)]", None),
        ("[f(a=1, a=2)]", None),
        ("[f(a=1, **{'a': 2})]", None),
        ("[f(a=1)", None),
        ("f(a=1)", None),
        ("[1, 2, 3]", None),
        ("[f(a=01)]", None),
        ("[f(a=1e999)]", None),
        ("[f(a=nan)]", None),
        ("[f(a=1_000)]", None),
        ("[f(a=lambda: 1)]", None),
        ("[__import__('os').system('true')]", None),
        ('{"name": "f", "parameters": {"a": 1}}', [F]),
        ('{"name": "f", "arguments": {"a": 1}}', [F]),
        ('{"type": "function", "name": "f", "parameters": {"a": 1}}', [F]),
        ('[{"name": "f", "parameters": {"a": 1}}, {"name": "g", "parameters": {}}]', [F, G]),
        ('{"name": "f", "parameters": {"a": 1}}; {"name": "g", "arguments": {}}', [F, G]),
        ('{"name": "f", "parameters": {"a": 1}}{"name": "g", "arguments": {}}', [F, G]),
        ('{"name": "f"}', None),
        ('{"name": "f", "parameters": "a"}', None),
        ('{"name": "f", "parameters": {}, "arguments": {}}', None),
        ('{"name": "f", "parameters": {}, "age": 3}', None),
        ('{"name": 3, "parameters": {}}', None),
        ('{"name": "no name", "parameters": {}}', None),
        ('{"type": "object", "name": "f", "parameters": {}}', None),
        ('[{"name": "f", "parameters": {}}, 3]', None),
        ('{"a": {"name": "f", "parameters": {}}}', None),
        ('<function=f>{"a": 1}</function>', [F]),
        ('<function=f>\n{"a": 1}\n</function>!', [F, "!"]),
        ('<function=f>{"a": 1}', None),
        ("<function=f></function>", None),
        ("", []),
    ],
)
def test_what_is_a_call(text, events):
    expected = events if events is not None else [text]
    assert read(text) == expected
    assert read_calls(CallParser(), list(text)) == expected


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ('"a\\"b"', 'a"b'),
        ("'it\\'s'", "it's"),
        ("'a\"b'", 'a"b'),
        ('"""a"b\n""c"""', 'a"b\n""c'),
        ("'''it's'''", "it's"),
        ('""', ""),
        ("''''''", ""),
        ('"a\\nb\\tc\\\\d\\/e"', "a\nb\tc\\d/e"),
        ("'a\\nb\\tc\\\\d\\/e'", "a\nb\tc\\d/e"),
        ('"\\x41\\101\\0\\a\\v"', "AA\0\a\v"),
        ('"\\d\\w"', "\\d\\w"),
        ('"\\u00e9\\ud83e\\udd99"', "é🦙"),
        ("'\\u00e9\\ud83e\\udd99\\U0001f999'", "é🦙🦙"),
        ('"a\nb"', "a\nb"),
        ("True", True),
        ("false", False),
        ("null", None),
        ("-0", 0),
        ("-1.5e3", -1500.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("[1, [], {'a': (2)}]", None),
        ("[1, [2,], {'a': {}},]", [1, [2], {"a": {}}]),
        ("{'a': 1, 'a': 2}", {"a": 2}),
    ],
)
def test_values(written, value):
    if value is None and written != "null":
        assert read(f"[f(a={written})]") == [f"[f(a={written})]"]
    else:
        (call,) = read(f"[f(a={written})]")
        assert call.arguments == {"a": value}
        assert type(call.arguments["a"]) is type(value)
        assert read_calls(CallParser(), list(f"[f(a={written})]")) == [call]


@pytest.mark.parametrize("written", ['"\\ud800"', "'\\ud800'", "'\\U00110000'", "'\\x4'", "'\\u'"])
def test_strings_that_are_no_unicode_stay_text(written):
    text = f"[f(a={written})]"
    assert read(text) == [text]


def test_names_with_other_characters_go_through():
    calls = [ToolCall("a.b-c", {"x y": 1, "größe": 2, "class": 3, "": 4, "ok": 5})]
    assert read(write_pythonic(calls)) == calls
    assert read(write_json(calls)) == calls


@pytest.mark.parametrize(
    ("forms", "seen"),
    [(("pythonic",), [0]), (("json",), [1]), (("function",), [2]), (("json", "function"), [1, 2])],
)
def test_only_the_chosen_forms_are_calls(forms, seen):
    texts = ["[f()]", '{"name": "f", "parameters": {}}', "<function=f>{}</function>"]
    got = [i for i, text in enumerate(texts) if read(text, forms=forms) == [ToolCall("f")]]
    assert got == seen


def test_a_list_with_one_unknown_name_is_text():
    text = "[f(a=1), g()] [f(a=1)]"
    assert read(text, known=["f"]) == ["[f(a=1), g()] ", F]


@pytest.mark.parametrize("write", [write_pythonic, write_json])
def test_the_deepest_arguments_go_through_and_deeper_ones_stay_text(write):
    value = 1
    for _ in range(MAX_DEPTH - 1):
        value = {"a": value}
    calls = [ToolCall("f", {"a": value}), ToolCall("f", {"**": value})]
    assert read(write(calls)) == calls
    too_deep = "[f(a=" + "[" * MAX_DEPTH + "]" * MAX_DEPTH + ")]"
    assert read(too_deep) == [too_deep]
    endless = "[f(a=" + "[" * 100_000
    assert read(endless) == [endless]
    deepest = "[f(a=" + "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1) + ")]"
    assert isinstance(read(deepest)[0], ToolCall)


@given(
    st.lists(CALLS, max_size=3), TEXT, TEXT, st.lists(st.floats(0, 1), max_size=12), st.booleans()
)
def test_any_chunking(calls, before, after, borders, as_json):
    text = before + (write_json if as_json else write_pythonic)(calls) + after
    whole = read(text)
    assert read_calls(CallParser(), cut(text, borders)) == whole
    assert read_calls(CallParser(), list(text)) == whole


@given(st.lists(CALLS, min_size=1, max_size=3))
def test_json_that_others_write(calls):
    items = [{"name": call.name, "arguments": dict(call.arguments)} for call in calls]
    assert read(json.dumps(items)) == calls
    assert read(json.dumps(items, ensure_ascii=False, indent=1)) == calls


def test_what_cannot_become_a_call_is_not_held_back():
    parser = CallParser()
    assert parser.feed("hello [") == ["hello "]
    assert parser.feed("a list] and <") == ["[a list] and "]
    assert parser.feed("b>") == ["<b>"]
    assert parser.feed("<|python_st") == []
    assert parser.feed("op|>") == ["<|python_stop|>"]
    assert parser.feed(" [f(a=1)") == [" "]
    assert parser.feed("]") == [F]
    assert parser.feed(" ") == []
    assert parser.feed("x") == [" x"]
    assert parser.finish() == []


def test_the_limit_ends_calls_and_says_so(caplog):
    text = "[f(a=1)]" * 100
    with caplog.at_level(logging.WARNING):
        events = read(text, limit=200)
    calls = [event for event in events if isinstance(event, ToolCall)]
    assert 10 < len(calls) < 30
    assert events[len(calls) :] == ["[f(a=1)]" * (100 - len(calls))]
    assert "limit" in caplog.text
    assert read_calls(CallParser(limit=200), list(text)) == events
    assert read("[f(a=[" + "1," * 6000 + "])]")[0].arguments["a"] == [1] * 6000


def test_a_parser_reads_one_message():
    parser = CallParser()
    parser.feed("[f(a")
    assert parser.finish() == ["[f(a"]
    assert parser.finish() == []
    with pytest.raises(ChatError, match="finished"):
        parser.feed("x")
    with pytest.raises(ChatError, match="'xml'"):
        CallParser(("xml",))


def test_no_beginning_is_longer_than_what_is_looked_back():
    longest = " " * 64 + ";" + " " * 64 + "<|python_start|>" + " " * 64 + "[" + " " * 64
    longest += "a" * 128 + " " * 64 + "("
    assert heads(("pythonic",)).next.fullmatch(longest)
    assert len(longest) < LONGEST


PIECES = ["[", "[f(", '[f(a="', "[f(a='", '"', "\\", "1,", "[f(a=[", '{"', "<", "<|python_start|>"]


@pytest.mark.parametrize("first", PIECES)
def test_nothing_is_read_again_after_a_failure(first, monkeypatch):
    """Linear time, without a clock: what failed as a call is text, each character once."""
    failed = []

    def raw(self, original=Source.raw):
        failed.append(original(self))
        return failed[-1]

    monkeypatch.setattr(Source, "raw", raw)
    for second in PIECES:
        failed.clear()
        text = (first + second) * 400
        read(text, limit=10**9)
        assert sum(map(len, failed)) <= len(text)
