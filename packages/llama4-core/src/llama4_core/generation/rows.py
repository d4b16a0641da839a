"""The bookkeeping of one sequence on the host: its tokens, text, random numbers and end."""

from __future__ import annotations

import random
from dataclasses import dataclass

from llama4_core.generation.inputs import ReadInput
from llama4_core.generation.result import Alternatives, Generation, Piece
from llama4_core.generation.stops import LENGTH, STOP_STRING, STOP_TOKEN, StopStrings
from llama4_core.tokenizers.tokenizer import Tokenizer


@dataclass(frozen=True)
class Ending:
    """What ends a sequence.

    Attributes:
        tokens: ids after which it ends.
        strings: texts after which it ends.
    """

    tokens: frozenset[int]
    strings: tuple[str, ...]


class Row:
    """One prompt of a batch and what is generated after it.

    Args:
        row: which prompt.
        prompt: its ids.
        room: how many tokens may be generated at most.
        room_reason: the stop reason when that many have been.
        ending: stop tokens and strings.
        seed: of this sequence's own random numbers; nothing else draws from them, so the tokens do
            not depend on the other sequences of a batch.
        tokenizer: None for ids only.
        inputs: what the prompt holds beside text; taken away once it is encoded.
    """

    def __init__(
        self,
        row: int,
        prompt: tuple[int, ...],
        room: int,
        room_reason: str,
        ending: Ending,
        seed: int,
        tokenizer: Tokenizer | None,
        inputs: tuple[ReadInput, ...] = (),
    ) -> None:
        self.row = row
        self.inputs = inputs
        self.prompt = prompt
        self.tokens: list[int] = []
        self.logprobs: list[float] = []
        self.alternatives: list[Alternatives] = []
        self.stop_reason: str | None = None
        self.room = room
        self._room_reason = room_reason
        self._ending = ending
        self._texts: list[str] = []
        self._decoder = None if tokenizer is None else tokenizer.stream()
        self._scanner = StopStrings(ending.strings)
        # The standard library promises the same numbers for the same seed in every version.
        self.uniform = random.Random(seed).random

    def add(self, token: int) -> str:
        """Takes a sampled token; returns the text that is now certain and sets ``stop_reason``."""
        self.tokens.append(token)
        text = ""
        if token in self._ending.tokens:
            self.stop_reason = STOP_TOKEN
        elif self._decoder is not None:
            text = self._scanner.feed(self._decoder.feed(token))
        if self.stop_reason is None and self._scanner.found is None:
            if len(self.tokens) < self.room:
                if text:
                    self._texts.append(text)
                return text
            self.stop_reason = self._room_reason
        return self._close(text)

    def _close(self, text: str) -> str:
        """Lets go of the bytes and characters that waited for more."""
        if self._decoder is not None and self._scanner.found is None:
            text += self._scanner.feed(self._decoder.finish())
        text += self._scanner.finish()
        if self._scanner.found is not None:
            self.stop_reason = STOP_STRING
        self._texts.append(text)
        return text

    def end_without_room(self) -> None:
        """Ends a sequence whose prompt already fills the context."""
        self.stop_reason = self._room_reason

    def piece(self, text: str, logprobs: bool, alternatives: bool) -> Piece:
        """The latest step as a piece."""
        return Piece(
            row=self.row,
            text=text,
            tokens=tuple(self.tokens[-1:]),
            logprobs=tuple(self.logprobs[-1:]) if logprobs else None,
            alternatives=tuple(self.alternatives[-1:]) if alternatives else None,
            stop_reason=self.stop_reason,
        )

    def generation(self, logprobs: bool, alternatives: bool) -> Generation:
        """The whole sequence, once it has ended."""
        return Generation(
            tokens=tuple(self.tokens),
            text=None if self._decoder is None else "".join(self._texts),
            logprobs=tuple(self.logprobs) if logprobs else None,
            stop_reason=self.stop_reason or LENGTH,
            prompt_tokens=self.prompt,
            alternatives=tuple(self.alternatives) if alternatives else None,
        )
