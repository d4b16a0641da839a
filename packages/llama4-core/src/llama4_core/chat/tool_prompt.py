"""What a model is told about its tools: their JSON schemas, and how to write calls."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llama4_core.chat.messages import Message, Text
from llama4_core.chat.openai import functions
from llama4_core.errors import ChatError

PLACES = ("system", "user")

_INSTRUCTIONS = """\
You can call the functions listed below. To call some, reply with one list of calls and with \
nothing else, arguments by name:
[first_function(name="value", count=2), second_function()]
Call listed functions only, with the parameters that their JSON schemas describe. If none of them \
helps, or a required argument is missing, say so in words instead.

Functions:
"""


def tool_prompt(tools: Iterable[Mapping[str, Any]]) -> str:
    """The instructions, followed by the list of functions as JSON."""
    return _INSTRUCTIONS + json.dumps(functions(tools), indent=2, ensure_ascii=False)


def with_tools(
    messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], place: str = "system"
) -> list[Message]:
    """The messages with their tools described in one of them.

    Args:
        messages: a conversation.
        tools: see :func:`~llama4_core.chat.openai.functions`; none leaves the messages as they are.
        place: "system": before the content of the system message at the beginning, which is made
            if there is none; "user": before the content of the first user message.

    Raises:
        ChatError: there is no message to carry them, or another place.
    """
    if place not in PLACES:
        raise ChatError(f"tools are to be described in {place!r:.80}; expected 'system' or 'user'")
    if not tools:
        return list(messages)
    if not messages:
        raise ChatError("there are tools but no message; expected a message that asks something")
    prompt = tool_prompt(tools)
    found = list(messages)
    if place == "system" and found[0].role != "system":
        return [Message("system", prompt), *found]
    index = next((i for i, message in enumerate(found) if message.role == place), None)
    if index is None:
        # A front of a conversation whose first user message is still to come.
        return found
    found[index] = Message(place, (Text(prompt + "\n\n"), *found[index].content))
    return found
