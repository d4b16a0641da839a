"""Chatting: what the model is fed, where it stops, and what its tokens become."""

import pytest

from llama4_core.chat import Image, Llama4Format, Message, ToolCall
from llama4_core.chat.conversation import Turn, chat, reply_message
from llama4_core.errors import ChatError, ComponentError
from llama4_core.generation.result import Generation
from llama4_core.model.transformer import Transformer
from llama4_core.plugins import Catalogue
from llama4_core.testing.chat_strategies import ByteTokenizer

TOKENIZER = ByteTokenizer()
TOOLS = [{"name": "f", "parameters": {}}]


def ids(*pieces):
    found = []
    for piece in pieces:
        known = TOKENIZER.specials
        found += [known[piece]] if piece in known else list(piece.encode())
    return found


@pytest.fixture
def say(monkeypatch):
    """Runs chat with a model that produces the given pieces; returns the reply and the call."""

    def run(*pieces, messages="Hi", tools=(), reason="stop_token", **settings):
        seen = {}

        def generate(model, prompt, *, stop_tokens, **rest):
            seen.update(prompt=prompt, stop_tokens=stop_tokens, rest=rest)
            tokens = ids(*pieces)
            shown = tokens[:-1] if reason == "stop_token" else tokens
            return Generation(tuple(tokens), TOKENIZER.decode(shown), None, reason, tuple(prompt))

        class Model:
            tokenizer = TOKENIZER
            folder = None

        monkeypatch.setattr("llama4_core.chat.conversation.generate", generate)
        return chat(Model(), messages, tools=tools, **settings), seen

    return run


def test_text_in_text_out(say):
    reply, seen = say("Hello.", "<|eot|>", temperature=0.5)
    assert reply.message == Message("assistant", "Hello.")
    assert reply.generation.text == "Hello."
    expected = Llama4Format().render([Message("user", "Hi")])
    assert seen["prompt"] == Llama4Format().encode(expected, TOKENIZER)
    assert seen["stop_tokens"] == set(ids("<|eot|>", "<|eom|>"))
    assert seen["rest"] == {"temperature": 0.5}


@pytest.mark.parametrize(
    ("pieces", "message"),
    [
        (
            ("<|python_start|>", "[f(a=1)]", "<|python_end|>", "<|eom|>"),
            Message("assistant", "", [ToolCall("f", {"a": 1})]),
        ),
        (
            ("See:\n[f(a=1), f()]\n", "<|eot|>"),
            Message("assistant", "See:\n\n", [ToolCall("f", {"a": 1}), ToolCall("f")]),
        ),
        (
            ('{"name": "f", "parameters": {"a": 1}}', "<|eom|>"),
            Message("assistant", "", [ToolCall("f", {"a": 1})]),
        ),
        (("[g(a=1)]", "<|eot|>"), Message("assistant", "[g(a=1)]")),
        (("[f()]", "\n", "<|eot|>"), Message("assistant", "", [ToolCall("f")])),
        (("<|image|>", "ok", "<|eot|>"), Message("assistant", "ok")),
    ],
)
def test_calls(say, pieces, message):
    assert say(*pieces, tools=TOOLS)[0].message == message


def test_without_tools_nothing_is_a_call(say):
    reply, _ = say("<|python_start|>", "[f(a=1)]", "<|eot|>")
    assert reply.message == Message("assistant", "[f(a=1)]")


def test_the_parser_can_be_chosen(say):
    reply, _ = say("[f()]", "<|eot|>", tools=TOOLS, tool_parser="json")
    assert reply.message == Message("assistant", "[f()]")
    with pytest.raises(ComponentError, match="no-such"):
        say("x", tools=TOOLS, tool_parser="no-such")
    with pytest.raises(ComponentError, match="no-such"):
        say("x", chat_format="no-such")


def test_a_plugin_file_of_the_model_is_asked(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from llama4_core.plugins import Component, hookimpl\n"
        "@hookimpl\n"
        "def llama4_chat_formats():\n"
        "    yield Component('mine', 'llama4_core.chat.format:Llama4Format')\n"
        "@hookimpl\n"
        "def llama4_tool_parsers():\n"
        "    yield Component('mine', 'llama4_core.chat.tools:CallParser')\n"
    )

    class Model:
        tokenizer = TOKENIZER
        folder = None
        catalogue = Catalogue.from_plugins([]).with_local(file)

    turn = Turn.prepare(Model(), "Hi", TOOLS, "mine", "mine")
    assert turn.prompt == Turn.prepare(Model(), "Hi", TOOLS, Llama4Format(), "mine").prompt
    with pytest.raises(ComponentError, match="llama4"):
        Turn.prepare(Model(), "Hi")


def test_a_reply_without_an_end_keeps_its_last_token(say):
    reply, _ = say("[f()]", tools=TOOLS, reason="length")
    assert reply.message.tool_calls == (ToolCall("f"),)


def test_nothing_behind_a_stop_string_is_read():
    generation = Generation(tuple(ids("[f()] END")), "", None, "stop_string", ())
    assert reply_message(generation, TOKENIZER, None) == Message("assistant", "")

    class Never:
        def feed(self, chunk):
            assert chunk == ""
            return []

        def finish(self):
            return []

    assert reply_message(generation, TOKENIZER, Never()) == Message("assistant", "")


def test_images_are_expanded(say):
    messages = [Message("user", [Image("a.png"), "What?"])]
    _, seen = say("x", "<|eot|>", messages=messages, expand=lambda image: [7, 7])
    place = seen["prompt"].index(7)
    assert seen["prompt"][place : place + 7] == [7, 7, *b"What?"]
    with pytest.raises(ChatError, match="image"):
        say("x", messages=messages)


def test_a_model_without_a_tokenizer_says_so():
    class Model:
        tokenizer = None

    with pytest.raises(ChatError, match="no tokenizer"):
        chat(Model(), "Hi")


def test_the_transformer_has_it():
    class Model:
        tokenizer = None

    with pytest.raises(ChatError, match="no tokenizer"):
        Transformer.chat(Model(), "Hi")
