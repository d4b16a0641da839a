"""Bugs of chat formats."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from llama4_core.chat import format as chat_format
from llama4_core.chat.format import EOM, EOT, Llama4Format
from llama4_core.chat.messages import Image, Message
from llama4_core.chat.rendered import Rendered, Special, encode
from llama4_core.testing.chat_strategies import SPECIALS
from llama4_core.testing.check import Subject
from llama4_core.testing.mutants import Mutant


class Broken(Llama4Format):
    """The format with its segments, its messages or its encoding changed."""

    def __init__(
        self,
        segments: Callable[[list[Any], Any], list[Any]] | None = None,
        messages: Callable[[list[Message]], list[Message]] | None = None,
        encoded: Callable[..., list[int]] = encode,
        stops: tuple[str, ...] = (EOT, EOM),
    ) -> None:
        super().__init__()
        self._segments, self._messages, self._encoded = segments, messages, encoded
        self.stops = stops

    def render(self, messages: Any, tools: Any = (), *, generation: bool = True) -> Rendered:
        """Writes a conversation down."""
        found = super().render(messages, tools, generation=generation)
        if self._segments is None:
            return found
        return Rendered(tuple(self._segments(list(found.segments), messages)))

    def encode(self, rendered: Rendered, tokenizer: Any, *, expand: Any = None) -> list[int]:
        """Token ids."""
        return self._encoded(rendered, tokenizer, expand=expand)

    def parse(self, rendered: Rendered) -> list[Message]:
        """The messages."""
        found = super().parse(rendered)
        return found if self._messages is None else self._messages(found)


def _mutant(bug: str, check: str, **changes: Any) -> Mutant:
    def build(folder: Any = None) -> Any:
        return Broken(**changes)

    return Mutant(bug, check, Subject("chat_formats", "llama4", build, distribution="planted"))


def _as_text(rendered: Rendered, tokenizer: Any, **settings: Any) -> list[int]:
    return encode(Rendered.from_text(rendered.text, SPECIALS), tokenizer, **settings)


def _stripped(segments: list[Any], messages: Any) -> list[Any]:
    return [s.strip() if isinstance(s, str) and s != "\n\n" else s for s in segments]


def _system_first(segments: list[Any], messages: Any) -> list[Any]:
    later = any(message.role == "system" for message in messages[1:])
    return [segments[0], *(_header("system") if later else []), *segments[1:]]


def _header(role: str) -> list[Any]:
    return [*chat_format._header(role), Special(EOT)]


def _last_open(segments: list[Any], messages: Any) -> list[Any]:
    return segments[:-1] if segments[-1] == Special(EOT) else segments


def _counted(segments: list[Any], messages: Any) -> list[Any]:
    return [segments[0], str(len(messages)), *segments[1:]]


def _without_images(segments: list[Any], messages: Any) -> list[Any]:
    return [segment for segment in segments if not isinstance(segment, Image)]


def _first_image_last(segments: list[Any], messages: Any) -> list[Any]:
    place = next((i for i, s in enumerate(segments) if isinstance(s, Image)), None)
    return segments if place is None else [*segments, segments[place]]


def _spelled(segments: list[Any], messages: Any) -> list[Any]:
    found: list[Any] = []
    for segment in segments:
        parts = Rendered.from_text(segment, [EOT]).segments if isinstance(segment, str) else ()
        found += parts or [segment]
    return found


def _without_calls(messages: list[Message]) -> list[Message]:
    return [replace(message, tool_calls=()) for message in messages]


MUTANTS: tuple[Mutant, ...] = (
    _mutant("content stripped", "parse-undoes-render", segments=_stripped),
    _mutant(
        "roles of tools lost",
        "parse-undoes-render",
        messages=lambda found: [
            Message("user", m.content) if m.role == "ipython" else m for m in found
        ],
    ),
    _mutant("calls lost", "parse-undoes-render", messages=_without_calls),
    _mutant("last message open", "stops-end-replies", segments=_last_open),
    _mutant("messages counted at the front", "front-stays-front", segments=_counted),
    _mutant("system moved to the front", "front-stays-front", segments=_system_first),
    _mutant("encoded as one text", "text-never-special", encoded=_as_text),
    _mutant("end of turn from text", "text-never-special", segments=_spelled),
    _mutant("calls do not stop", "stops-end-replies", stops=(EOT,)),
    _mutant("stops at the header", "stops-end-replies", stops=("<|header_end|>",)),
    _mutant("images dropped", "images-keep-their-places", segments=_without_images),
    _mutant("an image twice", "images-keep-their-places", segments=_first_image_last),
)
