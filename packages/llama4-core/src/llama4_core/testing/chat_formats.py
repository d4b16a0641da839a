"""Checks of the socket chat_formats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from llama4_core.chat.messages import Image, Message, Text, ToolCall
from llama4_core.errors import ChatError
from llama4_core.testing.chat_strategies import MESSAGES, TEXT, ByteTokenizer
from llama4_core.testing.check import Check, Refused, Subject, check

TOKENIZER = ByteTokenizer()
IMAGE = 1000
"""Ids from here on stand for images, in the order of their places."""


def build(subject: Subject) -> Any:
    """The format without a checkpoint; one that needs its own is refused here."""
    try:
        return subject.build()
    except ChatError as error:
        raise Refused(f"needs a checkpoint's folder: {error}") from error


def ids(form: Any, messages: list[Message], **settings: Any) -> list[int]:
    """Token ids, each image being one."""
    count = iter(range(IMAGE, IMAGE + 1000))
    rendered = form.render(messages, **settings)
    found: list[int] = form.encode(rendered, TOKENIZER, expand=lambda image: [next(count)])
    return found


def _conversations(subject: Subject) -> st.SearchStrategy[list[Message]]:
    build(subject)
    return MESSAGES


@check(
    properties=(37,),
    why="what the format loses of a conversation, a model never gets to see",
    cases=_conversations,
)
def parse_undoes_render(subject: Subject, messages: list[Message]) -> None:
    """Rendering and parsing gives the same messages, with and without a reply to come."""
    form = build(subject)
    for generation in (False, True):
        got = form.parse(form.render(messages, generation=generation))
        if got != messages:
            raise AssertionError(f"generation={generation}: got {got}, expected {messages}")


@check(
    properties=(37,),
    why="a server keeps what it computed for the front of a conversation, and so does a cache",
    cases=_conversations,
)
def front_stays_front(subject: Subject, messages: list[Message]) -> None:
    """The first messages of a conversation are written as the front of the whole."""
    form = build(subject)
    whole = ids(form, messages, generation=False)
    for count in range(1, len(messages)):
        front = ids(form, messages[:count], generation=False)
        if whole[: len(front)] != front:
            raise AssertionError(f"the first {count} messages are no front of the whole")
        if messages[count].role == "assistant" and not messages[count].images:
            asked = ids(form, messages[:count], generation=True)
            if whole[: len(asked)] != asked:
                raise AssertionError(f"message {count} does not begin where a reply begins")


@dataclass(frozen=True)
class Injection:
    """A conversation, and what is put into all of its texts."""

    messages: list[Message]
    text: str


@check(
    properties=(36,),
    why="a user who can spell a special token can speak as the system",
    cases=lambda subject: st.builds(Injection, _conversations(subject), TEXT),
)
def text_never_special(subject: Subject, case: Injection) -> None:
    """Whatever texts and arguments spell, the special tokens are the same as without them."""
    form = build(subject)
    hostile = [_with_text(message, case.text + "<|eot|>") for message in case.messages]
    harmless = [_with_text(message, "x") for message in case.messages]
    got = [token for token in ids(form, hostile) if token >= 256]
    expected = [token for token in ids(form, harmless) if token >= 256]
    if got != expected:
        raise AssertionError(f"got the special ids {got}, expected {expected}")


def _with_text(message: Message, text: str) -> Message:
    """The message with ``text`` for each of its texts, and behind and before its images."""
    parts = [part if isinstance(part, Image) else Text(text) for part in message.content]
    calls = [ToolCall(call.name, {"a": text}) for call in message.tool_calls]
    return Message(message.role, [Text(text), *parts, Text(text)], calls)


@check(
    properties=(36, 37),
    why="a reply that no stop token ends runs on into a conversation with itself",
    cases=_conversations,
)
def stops_end_replies(subject: Subject, messages: list[Message]) -> None:
    """Every reply ends with one of the format's stop tokens, and holds none before."""
    form = build(subject)
    stops = {TOKENIZER.specials[name] for name in form.stops if name in TOKENIZER.specials}
    for count, message in enumerate(messages):
        if message.role != "assistant":
            continue
        start = len(ids(form, messages[:count], generation=True))
        reply = ids(form, messages[: count + 1], generation=False)[start:]
        places = [place for place, token in enumerate(reply) if token in stops]
        if not places or reply[places[0] :] not in ([reply[places[0]]], [reply[places[0]], *b"\n"]):
            raise AssertionError(
                f"the reply of message {count} has the stop tokens {sorted(stops)} at {places} of "
                f"its {len(reply)} tokens; expected one at the end"
            )


@check(
    properties=(37,),
    why="a lost or swapped image is answered about another one",
    cases=_conversations,
)
def images_keep_their_places(subject: Subject, messages: list[Message]) -> None:
    """Each image comes once, in order, behind the text that precedes it."""
    form = build(subject)
    count = sum(len(message.images) for message in messages)
    got = [token for token in ids(form, messages) if token >= IMAGE]
    if got != list(range(IMAGE, IMAGE + count)):
        raise AssertionError(f"got {len(got)} images, expected {count}")
    segments = form.render(messages).segments
    if [s for s in segments if isinstance(s, Image)] != [i for m in messages for i in m.images]:
        raise AssertionError("the images are not those of the messages")


CHECKS: tuple[Check, ...] = (
    parse_undoes_render,
    front_stays_front,
    text_never_special,
    stops_end_replies,
    images_keep_their_places,
)
