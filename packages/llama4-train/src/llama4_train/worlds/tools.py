"""The world ``tools``: requests, the one right call, and what is said about its result."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from llama4_core.chat.messages import ToolCall
from llama4_core.chat.writing import write_pythonic
from llama4_train.worlds.forms import FORMS, WEIGHTINGS, Turn, build
from llama4_train.worlds.sample import Sample
from llama4_train.worlds.streams import (
    Stream,
    check_name,
    check_number,
    check_stream,
    in_split,
    stream,
)
from llama4_train.worlds.targets import CallTarget, Exact
from llama4_train.worlds.tool_tables import KNOWN, TOOLS, Tool, made_up


@dataclass(frozen=True)
class Tools:
    """A user asks for something that one of the tools on offer does.

    A chat describes the tools by their JSON schemas; a pack names them with their parameters.

    Attributes:
        seed, split: see :class:`~llama4_train.worlds.sample.World`.
        form: "chat" or "pack".
        offered: tools on offer in a document, 1 to 6; one of them fits each request.
        questions: requests in a document.
        made_up: whether places, people, rooms and messages are made up, of syllables and of the
            words of other kinds, rather than drawn from short lists. A model that has only seen
            the lists learns which of them never come behind a tool's name, and the held-out split
            asks for these; one that has to copy names that it never saw copies these as well.
        results: whether each call is followed by its result and a sentence about it.
        held_out: one set of arguments of so many never occurs in training, and the held-out split
            asks for these alone; 0 for none.
        weighting: see :data:`~llama4_train.worlds.forms.WEIGHTINGS`.

    Raises:
        DataError: a setting is wrong.
    """

    seed: int = 0
    split: str = "train"
    form: str = "chat"
    offered: int = 3
    questions: int = 1
    made_up: bool = False
    results: bool = True
    held_out: int = 4
    weighting: str = "token"

    name: ClassVar[str] = "tools"

    def __post_init__(self) -> None:
        check_stream(self.seed, self.split)
        check_name("form of tools", self.form, FORMS)
        check_name("weighting of tools", self.weighting, WEIGHTINGS)
        check_number("offered of tools", self.offered, 1, len(TOOLS))
        check_number("questions of tools", self.questions, 1, 1 << 10)
        if self.held_out != 0:
            check_number("held_out of tools", self.held_out, 2, 4)  # each tool keeps some

    def sample(self, index: int) -> Sample:
        """See :class:`~llama4_train.worlds.sample.World`."""
        numbers = stream(self.name, self.seed, self.split, index)
        tools = numbers.some(TOOLS, self.offered)
        turns = [turn for _ in range(self.questions) for turn in self.turns(numbers, tools)]
        return build(
            self,
            turns,
            self.form,
            self.weighting,
            opening="Tools: " + ", ".join(tool.signature for tool in tools),
            tools=tuple(tool.schema for tool in tools),
        )

    def turns(self, numbers: Stream, tools: Sequence[Tool]) -> list[Turn]:
        """One request and its call, and with ``results`` what follows."""
        tool = numbers.pick(tools)
        while True:
            request = tool.request(numbers, made_up(numbers) if self.made_up else KNOWN)
            key = f"{tool.name} {json.dumps(dict(request.arguments))}"
            if in_split(key, self.held_out, self.split):
                break
        call = ToolCall(tool.name, request.arguments)
        target = CallTarget(call, tuple(one.name for one in tools))
        turns = [Turn("call", request.ask, write_pythonic([call]), target, call=call)]
        if self.results:
            result = json.dumps(dict(request.result))
            final = Exact(request.final)
            turns.append(Turn("result", result, request.final, final, follows=True, role="ipython"))
        return turns
