"""Messages: what a conversation is made of, before any format writes it down."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from llama4_core.errors import ChatError

ROLES = ("system", "user", "assistant", "ipython")
"""Roles as Llama 4 spells them; "tool" is accepted and becomes "ipython"."""

NAME = r"[A-Za-z0-9_.-]{1,128}+"
"""Names of tools, as a pattern."""

MAX_DEPTH = 64
"""Deepest nesting of lists and dictionaries in the arguments of a call."""

MAX_DIGITS = 400
"""Longest number in the arguments of a call, in characters; float64 needs at most 24."""

_TOO_LARGE = 10 ** (MAX_DIGITS - 1)
_NAME = re.compile(NAME + r"\Z")


@dataclass(frozen=True)
class Text:
    """A piece of ordinary text; special tokens spelled in it mean nothing."""

    text: str


@dataclass(frozen=True)
class Image:
    """The place of an image; whoever understands images expands it to tokens.

    Attributes:
        source: a URL, a path, an image object or None. Never opened here.
    """

    source: Any = None


@dataclass(frozen=True)
class Video:
    """The place of a film; whoever understands films expands it to tokens.

    Llama 4 has no token for films: it sees some of the frames as images, with text between them
    that says where in the film each is.

    Attributes:
        source: a URL, a path, a film object or None. Never opened here.
        frames: how many frames to look at; None leaves it to whoever reads the film.
        fps: how many frames of each second to look at; None leaves it likewise.

    Raises:
        ChatError: ``frames`` is no whole number of at least 1, or ``fps`` no number above 0.
    """

    source: Any = None
    frames: int | None = None
    fps: float | None = None

    def __post_init__(self) -> None:
        frames, fps = self.frames, self.fps
        if frames is not None and (type(frames) is not int or frames < 1):
            raise ChatError(
                f"frames of a film are {frames!r:.80}; expected a whole number of at least 1, or "
                "None"
            )
        if fps is not None and (type(fps) not in (int, float) or not 0 < fps < math.inf):
            raise ChatError(
                f"fps of a film is {fps!r:.80}; expected frames per second above 0, or None"
            )


Input = Image | Video
"""What is neither text nor a call: some modality of the model reads it."""

Part = Text | Image | Video


@dataclass(frozen=True)
class ToolCall:
    """A call that the assistant asks for.

    Attributes:
        name: of the tool: 1 to 128 letters, digits, ``_``, ``.`` or ``-``.
        arguments: JSON values by name.
        id: of an API, to match results with; no part of what a model sees, and not compared.

    Raises:
        ChatError: the name or an argument cannot be written down.
    """

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    id: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.match(self.name):
            raise ChatError(
                f"the tool name {self.name!r:.80} cannot be used; expected 1 to 128 letters, "
                "digits, '_', '.' or '-'"
            )
        if not isinstance(self.arguments, Mapping):
            raise ChatError(
                f"the arguments of a call of {self.name!r} are a {type(self.arguments).__name__}; "
                "expected a dictionary by argument name"
            )
        reason = unfit(self.arguments)
        if reason:
            raise ChatError(f"the arguments of a call of {self.name!r} hold {reason}")


def unfit(value: Any, depth: int = 0) -> str | None:
    """Why ``value`` cannot be an argument, or None: JSON values, finite, at most 64 deep."""
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return "a lone surrogate, which is not valid Unicode; replace it first"
        return None
    if isinstance(value, int):
        if abs(value) >= _TOO_LARGE:
            return f"a number of more than {MAX_DIGITS - 1} digits; pass it as a string"
        return None
    if isinstance(value, float):
        return None if math.isfinite(value) else f"{value}; expected finite numbers"
    if isinstance(value, Mapping | list | tuple):
        if depth == MAX_DEPTH:
            return f"lists or dictionaries nested more than {MAX_DEPTH} deep"
        items = value
        if isinstance(value, Mapping):
            wrong = next((key for key in value if not isinstance(key, str)), None)
            if wrong is not None:
                return f"the key {wrong!r:.80}; expected strings as keys"
            items = [*value.keys(), *value.values()]
        found = (unfit(item, depth + 1) for item in items)
        return next((reason for reason in found if reason), None)
    return (
        f"a {type(value).__name__}; expected None, a boolean, a number, a string, a list or a "
        "dictionary"
    )


@dataclass(frozen=True)
class Message:
    """One message.

    Content is brought into one form: a string becomes a :class:`Text`, neighbouring texts are
    joined and empty ones dropped, so that equal conversations compare equal.

    Attributes:
        role: "system", "user", "assistant" or "ipython" (results of tools).
        content: a string, or texts and images in order.
        tool_calls: that the assistant asks for, after its text.
        call_id: of the call that this is the result of; no part of what a model sees, and not
            compared.

    Raises:
        ChatError: unknown role or content; calls in a message of somebody else.
    """

    role: str
    content: tuple[Part, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    call_id: str = field(default="", compare=False)

    def __init__(
        self,
        role: str,
        content: str | Iterable[Part | str] = (),
        tool_calls: Iterable[ToolCall] = (),
        call_id: str = "",
    ) -> None:
        role = "ipython" if role == "tool" else role
        if role not in ROLES:
            raise ChatError(f"the role is {role!r:.80}; expected one of {', '.join(ROLES)} or tool")
        parts = (content,) if isinstance(content, str) else tuple(content)
        calls = tuple(tool_calls)
        if calls and role != "assistant":
            raise ChatError(f"a message of role {role!r} holds tool calls; expected 'assistant'")
        for call in calls:
            if not isinstance(call, ToolCall):
                raise ChatError(f"a tool call is {call!r:.80}; expected a ToolCall")
        object.__setattr__(self, "role", role)
        object.__setattr__(self, "content", _joined(parts))
        object.__setattr__(self, "tool_calls", calls)
        object.__setattr__(self, "call_id", call_id)

    @property
    def text(self) -> str:
        """The texts of the content, joined; images and films are left out."""
        return "".join(part.text for part in self.content if isinstance(part, Text))

    @property
    def images(self) -> tuple[Image, ...]:
        """The images of the content, in order."""
        return tuple(part for part in self.content if isinstance(part, Image))

    @property
    def inputs(self) -> tuple[Input, ...]:
        """The images and films of the content, in order."""
        return tuple(part for part in self.content if isinstance(part, Input))


def _joined(parts: Iterable[Any]) -> tuple[Part, ...]:
    found: list[Part] = []
    for part in parts:
        if isinstance(part, str):
            part = Text(part)
        if isinstance(part, Input):
            found.append(part)
        elif not isinstance(part, Text) or not isinstance(part.text, str):
            raise ChatError(
                f"a part of a message is {part!r:.80}; expected a string, Text(...), Image(...) or "
                "Video(...)"
            )
        elif part.text:
            if found and isinstance(found[-1], Text):
                found[-1] = Text(found[-1].text + part.text)
            else:
                found.append(part)
    return tuple(found)
