"""Chatting with a model: messages in, a message out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llama4_core.chat.format import ChatFormat, Messages, Tools
from llama4_core.chat.heads import PYTHON_END, PYTHON_START
from llama4_core.chat.messages import Input, Message, ToolCall
from llama4_core.chat.openai import from_openai, functions
from llama4_core.chat.rendered import Expand, Rendered, Special
from llama4_core.chat.tools import ToolParser, read_calls
from llama4_core.errors import ChatError
from llama4_core.generation.generate import generate
from llama4_core.generation.inputs import ReadInput, read_inputs
from llama4_core.generation.prompts import ReadPrompt, as_inputs
from llama4_core.generation.result import Generation
from llama4_core.generation.stops import STOP_STRING, STOP_TOKEN
from llama4_core.plugins.catalogue import Catalogue, catalogue
from llama4_core.tokenizers.tokenizer import Tokenizer


@dataclass(frozen=True)
class Reply:
    """What a model answered.

    Attributes:
        message: of the assistant, to be appended to the conversation.
        generation: the tokens behind it, with their log-probabilities and why they ended.
    """

    message: Message
    generation: Generation


def chat(
    model: Any,
    messages: str | Messages,
    images: Any = (),
    tools: Tools = (),
    *,
    chat_format: str | ChatFormat = "llama4",
    tool_parser: str | ToolParser = "auto",
    expand: Expand | None = None,
    stop_tokens: Iterable[int] = (),
    **settings: Any,
) -> Reply:
    """Lets the assistant reply once.

    Args:
        model: see :class:`~llama4_core.generation.generate.GenerativeModel`; it needs a tokenizer.
        messages: the conversation: messages, OpenAI's dictionaries, or a string for one message
            of the user.
        images: paths, pictures, or ``Image`` and ``Video`` parts, to put in front of the content of
            the user's last message.
        tools: that the assistant may call. Without any, whatever looks like a call is text.
        chat_format: a component's name, or an object.
        tool_parser: a component's name, or an object that has read nothing yet. Calls of tools
            that are not on offer are text.
        expand: turns an image or a film into token ids, in place of the model's own modality.
            Placeholder tokens among them want features: hand them over as ``pixel_values``.
        stop_tokens: ids that end the reply, besides those of the chat format.
        settings: of :func:`~llama4_core.generation.generate.generate`.

    Raises:
        ChatError: the model has no tokenizer, a message or tool cannot be used, or there are images
            and no message of the user.
        ModalityError: an image cannot be read, or the model reads none.
        ComponentError: no such chat format or tool parser.
        GenerationError: a setting cannot be used, or the conversation is too long.
    """
    turn = Turn.prepare(model, messages, tools, chat_format, tool_parser, expand, images)
    stops = turn.stops | set(stop_tokens)
    return turn.reply(generate(model, turn.given, stop_tokens=stops, **settings))


@dataclass(frozen=True)
class Turn:
    """A conversation made ready for one reply: for callers that stream.

    Attributes:
        prompt: token ids, the assistant's header and those of images included.
        stops: ids that end the reply.
        tokenizer: of the model.
        parser: of tool calls, or None when there are no tools.
        inputs: the images and films of the prompt, as the model's modalities read them.
    """

    prompt: list[int]
    stops: set[int]
    tokenizer: Tokenizer
    parser: ToolParser | None
    inputs: tuple[ReadInput, ...] = ()

    @property
    def given(self) -> list[int] | ReadPrompt:
        """What to hand to ``generate`` or ``stream`` of a model as its prompt."""
        return ReadPrompt(tuple(self.prompt), self.inputs) if self.inputs else self.prompt

    @classmethod
    def prepare(
        cls,
        model: Any,
        messages: str | Messages,
        tools: Tools = (),
        chat_format: str | ChatFormat = "llama4",
        tool_parser: str | ToolParser = "auto",
        expand: Expand | None = None,
        images: Any = (),
    ) -> Turn:
        """Renders and encodes; arguments and errors as :func:`chat`."""
        tokenizer: Tokenizer | None = model.tokenizer
        if tokenizer is None:
            raise ChatError(
                "the model has no tokenizer, which chatting needs; load a folder that holds a "
                "tokenizer.json, or use generate() with token ids"
            )
        if isinstance(messages, str):
            messages = [Message("user", messages)]
        known = getattr(model, "catalogue", None)
        form = find_format(chat_format, getattr(model, "folder", None), known)
        found = with_images(from_openai(messages), images)
        rendered = form.render(found, tools)
        inputs: tuple[ReadInput, ...] = ()
        if expand is None and rendered.inputs and hasattr(model, "modalities"):
            prompt, inputs = _read(model, form, rendered, tokenizer)
        else:
            prompt = form.encode(rendered, tokenizer, expand=expand)
        stops = {tokenizer.specials[name] for name in form.stops if name in tokenizer.specials}
        parser = find_parser(tool_parser, tools, known) if tools else None
        return cls(list(prompt), stops, tokenizer, parser, inputs)

    def reply(self, generation: Generation) -> Reply:
        """Reads what was generated."""
        return Reply(reply_message(generation, self.tokenizer, self.parser), generation)


def with_images(messages: Sequence[Message], images: Any) -> list[Message]:
    """The messages, with images in front of the content of the user's last one.

    Args:
        messages: a conversation.
        images: as ``images`` of :func:`chat`.

    Raises:
        ChatError: there are images and no message of the user.
        ModalityError: ``images`` is no list, or holds what is no source.
    """
    parts = as_inputs(images)
    found = list(messages)
    if not parts:
        return found
    index = next((i for i in reversed(range(len(found))) if found[i].role == "user"), None)
    if index is None:
        raise ChatError(
            f"got {len(parts)} images and no message of the user to put them in; expected a "
            "message of role 'user' that asks about them"
        )
    found[index] = replace(found[index], content=(*parts, *found[index].content))
    return found


def _read(
    model: Any, form: ChatFormat, rendered: Rendered, tokenizer: Tokenizer
) -> tuple[list[int], tuple[ReadInput, ...]]:
    """The ids of a conversation whose inputs the model's modalities read, all in one call.

    The format says where each goes: it is given a number below 0 to put there.
    """
    parts: list[Input] = []

    def note(part: Input) -> list[int]:
        parts.append(part)
        return [-len(parts)]

    marked = form.encode(rendered, tokenizer, expand=note)
    marks = [token for token in marked if token < 0]
    if sorted(marks) != list(range(-len(rendered.inputs), 0)):
        raise ChatError(
            f"the chat format put {len(marks)} of {len(rendered.inputs)} images into the "
            "conversation; expected each once"
        )
    inputs = read_inputs(model, [parts[-mark - 1] for mark in marks])
    pending = iter(inputs)
    prompt: list[int] = []
    for token in marked:
        if token < 0:
            prompt += next(pending).reading.tokens
        else:
            prompt.append(token)
    return prompt, inputs


def find_format(
    chosen: str | ChatFormat, folder: Path | None, known: Catalogue | None = None
) -> ChatFormat:
    """A chat format by its component's name, for a checkpoint's folder; objects as they are."""
    if not isinstance(chosen, str):
        return chosen
    component = (known or catalogue()).find("chat_formats", chosen).component
    _check(component, chosen)
    found: ChatFormat = component.build(folder)
    return found


def find_parser(
    chosen: str | ToolParser,
    tools: Sequence[Mapping[str, Any]],
    known: Catalogue | None = None,
) -> ToolParser:
    """A new tool parser by its component's name, for some tools; objects as they are."""
    if not isinstance(chosen, str):
        return chosen
    component = (known or catalogue()).find("tool_parsers", chosen).component
    _check(component, chosen)
    found: ToolParser = component.build(known=[one["name"] for one in functions(tools)])
    return found


def reply_message(
    generation: Generation, tokenizer: Tokenizer, parser: ToolParser | None
) -> Message:
    """The assistant's message in generated tokens.

    Special tokens are no part of it. With a parser, calls leave the content; what is left of it
    is dropped where it is but whitespace.
    """
    if parser is None:
        return Message("assistant", generation.text or "")
    if generation.stop_reason == STOP_STRING:
        # The tokens go on behind the stop string, the text does not.
        text = generation.text or ""
    else:
        tokens = generation.tokens
        tokens = tokens[:-1] if generation.stop_reason == STOP_TOKEN else tokens
        text = "".join(_shown(Rendered.from_ids(tokens, tokenizer)))
    events = read_calls(parser, [text])
    calls = [event for event in events if isinstance(event, ToolCall)]
    content = "".join(event for event in events if isinstance(event, str))
    if calls and not content.strip():
        content = ""
    return Message("assistant", content, calls)


def _shown(rendered: Rendered) -> Iterable[str]:
    for segment in rendered.segments:
        if isinstance(segment, str):
            yield segment
        elif isinstance(segment, Special) and segment.name in (PYTHON_START, PYTHON_END):
            yield segment.name


def _check(component: Any, name: str) -> None:
    reason = component.refusal(None)
    if reason:
        raise ChatError(f"{name!r} cannot be used: it {reason}")
