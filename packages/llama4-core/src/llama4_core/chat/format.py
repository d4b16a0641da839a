"""The chat format of Llama 4."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from llama4_core.chat.heads import PYTHON_END, PYTHON_START
from llama4_core.chat.messages import ROLES, Input, Message, Part, Text, ToolCall
from llama4_core.chat.openai import from_openai
from llama4_core.chat.rendered import Expand, Rendered, Segment, Special, encode
from llama4_core.chat.tool_prompt import with_tools
from llama4_core.chat.tools import CallParser, read_calls
from llama4_core.chat.writing import write_pythonic
from llama4_core.errors import ChatError
from llama4_core.tokenizers.tokenizer import Tokenizer

BOS = "<|begin_of_text|>"
HEADER_START = "<|header_start|>"
HEADER_END = "<|header_end|>"
EOT = "<|eot|>"
EOM = "<|eom|>"
_AFTER_HEADER = "\n\n"

Messages = Iterable[Message | Mapping[str, Any]]
Tools = Sequence[Mapping[str, Any]]


class ChatFormat(Protocol):
    """How a conversation becomes tokens; built as ``target(folder=None)``.

    Attributes:
        stops: spellings of the special tokens that may end a reply.
    """

    @property
    def stops(self) -> tuple[str, ...]:
        """Spellings of the special tokens that may end a reply."""

    def render(self, messages: Messages, tools: Tools = (), *, generation: bool = True) -> Rendered:
        """Writes a conversation down; with ``generation``, up to where the assistant replies.

        Without it, the first messages of a conversation are written as the front of the whole.
        """

    def encode(
        self, rendered: Rendered, tokenizer: Tokenizer, *, expand: Expand | None = None
    ) -> list[int]:
        """Token ids; see :func:`llama4_core.chat.rendered.encode`."""

    def parse(self, rendered: Rendered) -> list[Message]:
        """The messages that were written down; the inverse of ``render`` without tools."""


class Llama4Format:
    """Llama 4's own format.

    ``<|begin_of_text|>``, then for each message ``<|header_start|>role<|header_end|>``, two line
    ends, the content and ``<|eot|>``. Tool calls follow the assistant's text between
    ``<|python_start|>`` and ``<|python_end|>`` in the pythonic form; they, and results of tools
    (role ``ipython``), end with ``<|eom|>`` as in Meta's reference. Content is taken as it is,
    neither stripped nor cut.

    Args:
        folder: of the checkpoint; not needed, the format is the same for all.
        tools_in: where tools are described: "system" or "user".
    """

    stops: tuple[str, ...] = (EOT, EOM)

    def __init__(self, folder: Path | None = None, *, tools_in: str = "system") -> None:
        self.tools_in = tools_in

    def render(self, messages: Messages, tools: Tools = (), *, generation: bool = True) -> Rendered:
        """Writes a conversation down.

        Args:
            messages: :class:`~llama4_core.chat.messages.Message` or OpenAI's dictionaries.
            tools: described in the system or user message.
            generation: end with the header of the assistant's reply.

        Raises:
            ChatError: a message or a tool is malformed.
        """
        segments: list[Segment] = [Special(BOS)]
        for message in with_tools(from_openai(messages), tools, self.tools_in):
            segments += _header(message.role)
            segments += (part.text if isinstance(part, Text) else part for part in message.content)
            if message.tool_calls:
                calls = write_pythonic(message.tool_calls)
                segments += (Special(PYTHON_START), calls, Special(PYTHON_END))
            more = message.tool_calls or message.role == "ipython"
            segments.append(Special(EOM if more else EOT))
        if generation:
            segments += _header("assistant")
        return Rendered(tuple(segments))

    def encode(
        self, rendered: Rendered, tokenizer: Tokenizer, *, expand: Expand | None = None
    ) -> list[int]:
        """Token ids; see :func:`llama4_core.chat.rendered.encode`."""
        return encode(rendered, tokenizer, expand=expand)

    def parse(self, rendered: Rendered) -> list[Message]:
        """The messages of a conversation in this format.

        A header of the assistant with nothing behind it is where a reply is to come: no message.
        A reply that was cut off is a message. Special tokens without a meaning here, and calls
        that cannot be read, stay in the content as text.

        Raises:
            ChatError: the segments are not in this format.
        """
        segments = _merged(rendered.segments)
        at = 1 if segments and segments[0] == Special(BOS) else 0
        found = []
        while at < len(segments):
            role, at = _read_header(segments, at)
            end = at
            while end < len(segments) and segments[end] not in _ENDS:
                end += 1
            body = segments[at:end]
            if end == len(segments) and not body and role == "assistant":
                break
            found.append(_message(role, body))
            at = end + 1
        return found


_ENDS = (Special(EOT), Special(EOM))


def _header(role: str) -> list[Segment]:
    # The line ends are a piece of their own: the tokens of a header and those of a reply behind it
    # then stay what they are when the reply is written down in the next turn.
    return [Special(HEADER_START), role, Special(HEADER_END), _AFTER_HEADER]


def _read_header(segments: list[Segment], at: int) -> tuple[str, int]:
    """The role of the header at ``at``, and where its content begins in ``segments``."""
    match segments[at : at + 4]:
        case [Special(name=start), str(role), Special(name=end), str(rest)] if (
            (start, end) == (HEADER_START, HEADER_END)
            and role in ROLES
            and rest.startswith(_AFTER_HEADER)
        ):
            content = rest[len(_AFTER_HEADER) :]
            if not content:
                return role, at + 4
            segments[at + 3] = content
            return role, at + 3
    raise ChatError(
        f"a message begins with {segments[at : at + 4]!r:.200}; expected {HEADER_START}, one of "
        f"the roles {', '.join(ROLES)}, {HEADER_END} and two line ends"
    )


def _message(role: str, body: list[Segment]) -> Message:
    calls: list[ToolCall] = []
    match body:
        case [*front, Special(name=start), str(text), Special(name=end)] if (
            role == "assistant" and (start, end) == (PYTHON_START, PYTHON_END)
        ):
            # A conversation that is already there is not bounded as a reply is.
            events = read_calls(CallParser(limit=max(len(text), 1) * 8), [text])
            if not any(isinstance(event, str) for event in events):
                calls = [event for event in events if isinstance(event, ToolCall)]
                body = front
    return Message(role, map(_part, body), calls)


def _part(segment: Segment) -> Part:
    if isinstance(segment, Input):
        return segment
    return Text(segment.name if isinstance(segment, Special) else segment)


def _merged(segments: Iterable[Segment]) -> list[Segment]:
    found: list[Segment] = []
    for segment in segments:
        if isinstance(segment, str) and found and isinstance(found[-1], str):
            found[-1] += segment
        elif segment != "":
            found.append(segment)
    return found
