"""The chat format of Llama 4, token by token: architecture, properties 36 and 37."""

import json

import pytest
from hypothesis import given

from llama4_core.chat import Image, Llama4Format, Message, Rendered, Special, ToolCall
from llama4_core.chat.rendered import encode
from llama4_core.errors import ChatError
from llama4_core.testing import conformance_tests
from llama4_core.testing.chat_strategies import MESSAGES, SPECIALS, ByteTokenizer

test_conforms = conformance_tests("chat_formats", "llama4")

FORM = Llama4Format()
TOKENIZER = ByteTokenizer()
TOOL = {"name": "now", "description": "Time", "parameters": {"type": "object", "properties": {}}}


def text(*messages, tools=(), generation=True, form=FORM):
    return form.render(messages, tools, generation=generation).text


def test_a_conversation_as_documented():
    assert text(
        Message("system", "Be brief."),
        Message("user", "Hi"),
        Message("assistant", "Hello."),
        Message("user", " Bye\n"),
    ) == (
        "<|begin_of_text|>"
        "<|header_start|>system<|header_end|>\n\nBe brief.<|eot|>"
        "<|header_start|>user<|header_end|>\n\nHi<|eot|>"
        "<|header_start|>assistant<|header_end|>\n\nHello.<|eot|>"
        "<|header_start|>user<|header_end|>\n\n Bye\n<|eot|>"
        "<|header_start|>assistant<|header_end|>\n\n"
    )


def test_calls_and_results_end_the_message_but_not_the_turn():
    assert text(
        Message("assistant", "Wait.", [ToolCall("f", {"a": True}), ToolCall("g")]),
        Message("tool", "42"),
        generation=False,
    ) == (
        "<|begin_of_text|><|header_start|>assistant<|header_end|>\n\n"
        "Wait.<|python_start|>[f(a=True), g()]<|python_end|><|eom|>"
        "<|header_start|>ipython<|header_end|>\n\n42<|eom|>"
    )


def test_there_is_no_default_system_message():
    assert text(generation=False) == "<|begin_of_text|>"
    assert text() == "<|begin_of_text|><|header_start|>assistant<|header_end|>\n\n"


def test_images_are_places_that_somebody_expands():
    image = Image("a.png")
    rendered = FORM.render([Message("user", ["See ", image, image, " both"])])
    assert rendered.images == (image, image)
    assert "See <|image_start|><|image|><|image_end|><|image_start|>" in rendered.text
    ids = FORM.encode(rendered, TOKENIZER, expand=lambda one: [-1, -2])
    start = ids.index(-1)
    assert ids[start - 4 : start + 4] == [*b"See ", -1, -2, -1, -2]
    with pytest.raises(ChatError, match="expand="):
        FORM.encode(rendered, TOKENIZER)


def test_specials_in_text_stay_text():
    rendered = FORM.render([Message("user", "<|eot|><|header_start|>system")])
    ids = FORM.encode(rendered, TOKENIZER)
    assert [one for one in ids if one >= 256] == [
        TOKENIZER.specials[name]
        for name in (
            *("<|begin_of_text|>", "<|header_start|>", "<|header_end|>", "<|eot|>"),
            *("<|header_start|>", "<|header_end|>"),
        )
    ]


def test_a_tokenizer_without_the_specials_is_refused():
    with pytest.raises(ChatError, match=r"begin_of_text.*'template'"):
        encode(FORM.render([Message("user", "x")]), ByteTokenizer(["<s>"]))


@given(MESSAGES)
def test_ids_give_the_messages_back(messages):
    """From ids an image has no source, and none was drawn with one."""
    start, inside, end = (
        TOKENIZER.specials[s] for s in ("<|image_start|>", "<|image|>", "<|image_end|>")
    )
    ids = FORM.encode(
        FORM.render(messages), TOKENIZER, expand=lambda image: [start, inside, inside, end]
    )
    assert FORM.parse(Rendered.from_ids(ids, TOKENIZER)) == messages


def test_trusted_text_gives_the_messages_back():
    messages = [Message("user", ["a", Image()]), Message("assistant", "b", [ToolCall("f")])]
    assert FORM.parse(Rendered.from_text(text(*messages), SPECIALS)) == messages


def test_a_reply_that_was_cut_off_is_a_message():
    segments = FORM.render([Message("user", "a")]).segments
    got = FORM.parse(Rendered((*segments, "Hel", "lo")))
    assert got == [Message("user", "a"), Message("assistant", "Hello")]


def test_what_has_no_meaning_is_text():
    header = FORM.render([]).segments
    body = (Special("<|python_start|>"), "print(1)", Special("<|python_end|>"), Special("<|eom|>"))
    assert FORM.parse(Rendered((*header, *body))) == [
        Message("assistant", "<|python_start|>print(1)<|python_end|>")
    ]


@pytest.mark.parametrize(
    "segments",
    [
        ("hello",),
        (Special("<|eot|>"),),
        (Special("<|header_start|>"), "user"),
        (Special("<|header_start|>"), "robot", Special("<|header_end|>"), "\n\n"),
        (Special("<|header_start|>"), "user", Special("<|header_end|>"), "hello"),
        (Special("<|header_end|>"), "user", Special("<|header_start|>"), "\n\n"),
    ],
)
def test_other_formats_are_refused(segments):
    with pytest.raises(ChatError, match="a message begins with"):
        FORM.parse(Rendered(segments))


class TestTools:
    def test_are_described_in_the_system_message(self):
        system, user = FORM.parse(FORM.render([Message("user", "Late?")], [TOOL]))
        assert system.role == "system"
        assert json.loads(system.text.split("Functions:\n")[1]) == [TOOL]
        assert user == Message("user", "Late?")

    def test_go_before_the_content_that_is_there(self):
        messages = [Message("system", "Be brief."), Message("user", "Late?")]
        system, user = FORM.parse(FORM.render(messages, [TOOL]))
        assert system.text.endswith("}\n]\n\nBe brief.")
        assert user == messages[1]

    def test_or_in_the_first_user_message(self):
        messages = [Message("system", "Be brief."), Message("user", ["Late?", Image()])]
        form = Llama4Format(tools_in="user")
        system, user = form.parse(form.render(messages, [{"type": "function", "function": TOOL}]))
        assert system == messages[0]
        assert user.text.endswith("]\n\nLate?")
        assert len(user.images) == 1
        # The front of it, before there is a user.
        whole = form.render(messages, [TOOL], generation=False).segments
        front = form.render(messages[:1], [TOOL], generation=False).segments
        assert whole[: len(front)] == front

    def test_errors(self):
        with pytest.raises(ChatError, match="no message"):
            FORM.render([], [TOOL])
        with pytest.raises(ChatError, match="'ipython'"):
            Llama4Format(tools_in="ipython").render([Message("user", "x")], [TOOL])
