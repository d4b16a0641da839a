"""Conversations that outlive the program: one JSON file, written whole after every message.

A session stores messages and settings, never a cache, and images by their path or URL: each reply
is generated from the rendered conversation and a seed of its own (the session's seed plus the
number of replies so far), so a resumed session says what an uninterrupted one would have said.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llama4_core.chat.conversation import Reply, Turn
from llama4_core.chat.messages import Message
from llama4_core.chat.openai import from_openai, functions, to_openai
from llama4_core.errors import ChatError
from llama4_core.generation.result import Generation, Piece

FORMAT = "llama4-session"
VERSION = 1
INTERRUPTED = "interrupted"
SETTINGS: dict[str, Any] = {
    "max_tokens": 256,
    "temperature": 0.0,
    "top_k": None,
    "top_p": None,
    "min_p": None,
    "seed": 0,
}
"""What a session may set, and what holds when it does not."""


@dataclass
class Session:
    """A conversation.

    Attributes:
        messages: so far.
        tools: that the assistant may call, as OpenAI writes them.
        settings: values for some of :data:`SETTINGS`.
        file: where it is kept, or None.
    """

    messages: list[Message] = field(default_factory=list)
    tools: Sequence[Mapping[str, Any]] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    file: Path | None = None

    def __post_init__(self) -> None:
        unknown = sorted(set(self.settings) - set(SETTINGS))
        if unknown:
            raise ChatError(
                f"unknown session setting {unknown[0]!r}; expected some of {', '.join(SETTINGS)}"
            )
        for name, value in self.settings.items():
            number = type(value) in ((int,) if name == "seed" else (int, float))
            if not (number or (value is None and SETTINGS[name] is None)):
                raise ChatError(f"the session setting {name} is {value!r:.80}; expected a number")
        functions(self.tools)

    @classmethod
    def read(cls, file: Path) -> Session:
        """Reads a session.

        Raises:
            ChatError: the file is not a session of a version that is understood.
        """
        try:
            stored = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise ChatError(f"{file}: cannot be read as a session: {error}") from error
        if not isinstance(stored, dict) or stored.get("format") != FORMAT:
            raise ChatError(f"{file}: is not a session; expected a file of `llama4 chat --session`")
        if stored.get("version") != VERSION:
            raise ChatError(
                f"{file}: is a session of version {stored.get('version')!r}; expected {VERSION}"
            )
        unknown = sorted(set(stored) - {"format", "version", "messages", "tools", "settings"})
        if unknown:
            raise ChatError(f"{file}: unknown key {unknown[0]!r} in a session")
        try:
            return cls(
                messages=from_openai(stored.get("messages", [])),
                tools=tuple(stored.get("tools", ())),
                settings=dict(stored.get("settings", {})),
                file=file,
            )
        except (ChatError, TypeError, ValueError) as error:
            raise ChatError(f"{file}: {error}") from error

    def write(self) -> None:
        """Writes the file whole, or leaves the old one as it was."""
        if self.file is None:
            return
        stored = {
            "format": FORMAT,
            "version": VERSION,
            "settings": self.settings,
            "tools": list(self.tools),
            "messages": to_openai(self.messages),
        }
        beside = self.file.with_name(self.file.name + ".part")
        try:
            beside.write_text(
                json.dumps(stored, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
            )
            beside.replace(self.file)
        except (OSError, UnicodeError) as error:
            beside.unlink(missing_ok=True)
            raise ChatError(f"{self.file}: the session cannot be written: {error}") from error

    def add(self, message: Message) -> None:
        """Appends a message and writes the file: both, or neither.

        Raises:
            ChatError: the file cannot be written, or not this message (an image that is neither a
                path nor a URL).
        """
        self.messages.append(message)
        try:
            self.write()
        except ChatError:
            self.messages.pop()
            raise

    def reply(self, model: Any, message: Message | None = None, **options: Any) -> Replying:
        """Lets the assistant speak.

        Args:
            model: see :func:`~llama4_core.chat.conversation.chat`.
            message: to be added before, once it is certain that it can be replied to: its images
                are read and the prompt fits. None for a reply to what is there.
            options: chat_format, tool_parser and expand of that function.

        Raises:
            ChatError: the conversation cannot be rendered or written.
            ModalityError: an image cannot be read, or the model reads none.
            GenerationError: a setting cannot be used, or the conversation is too long.
        """
        settings = {**SETTINGS, **self.settings}
        settings["seed"] += sum(one.role == "assistant" for one in self.messages)
        messages = [*self.messages, *([] if message is None else [message])]
        turn = Turn.prepare(model, messages, self.tools, **options)
        pieces = model.stream(turn.given, stop_tokens=turn.stops, **settings)
        if message is not None:
            self.add(message)
        return Replying(self, turn, pieces)


class Replying:
    """One reply while it is generated: iterate for its pieces, then read :attr:`reply`.

    Leaving early, by ``break``, an error or Ctrl-C, keeps what was said: call :meth:`finish`.
    """

    def __init__(self, session: Session, turn: Turn, pieces: Iterator[Piece]) -> None:
        self.session = session
        self.turn = turn
        self.reply: Reply | None = None
        self._source = pieces
        self._pieces: list[Piece] = []

    def __iter__(self) -> Iterator[Piece]:
        with closing(self._source) as source:  # type: ignore[type-var]
            for piece in source:
                self._pieces.append(piece)
                yield piece

    def finish(self) -> Reply | None:
        """Adds the message, whole or as far as it came; None if nothing was said."""
        if self.reply is None and self._pieces:
            ended = self._pieces[-1].stop_reason
            text = "".join(piece.text for piece in self._pieces)
            generation = Generation(
                tokens=tuple(token for piece in self._pieces for token in piece.tokens),
                text=text,
                logprobs=None,
                stop_reason=ended or INTERRUPTED,
                prompt_tokens=tuple(self.turn.prompt),
            )
            self.reply = self.turn.reply(generation)
            self.session.add(self.reply.message)
        return self.reply
