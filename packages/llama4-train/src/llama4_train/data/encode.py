"""A record as tokens with the weight of each as a target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llama4_core.chat.format import EOM, EOT, HEADER_START, Llama4Format
from llama4_core.chat.messages import Text
from llama4_core.chat.rendered import Special
from llama4_core.protocols.modalities import Modality, Reading
from llama4_train.errors import DataError
from llama4_train.protocols import Example, Record

if TYPE_CHECKING:
    from llama4_core.tokenizers.tokenizer import Tokenizer

_END_OF_TEXT = "<|end_of_text|>"


class Encoder:
    """Tokenises records for one model.

    Args:
        tokenizer: of the model.
        modalities: what it reads beside text.
        length: longest example in tokens; longer ones are cut, unless that would cut a picture.
    """

    def __init__(
        self, tokenizer: Tokenizer, modalities: Sequence[Modality] = (), length: int | None = None
    ) -> None:
        self.tokenizer = tokenizer
        self.length = length
        self._reads = {kind: modality for modality in modalities for kind in modality.kinds}
        self._format = Llama4Format()

    def __call__(self, record: Record) -> Example:
        """The example of a record.

        Raises:
            DataError: it is empty, holds an input that the model does not read, or a picture would
                have to be cut.
        """
        if bool(record.pieces) == bool(record.messages):
            raise DataError(
                f"{record.origin or record.source}: a record has "
                f"{'both pieces and messages' if record.pieces else 'nothing in it'}; expected one"
            )
        readings = self._readings(record)
        tokens, weights = (
            self._pieces(record, list(readings)) if record.pieces else self._chat(record, readings)
        )
        tokens, weights = self._cut(record, tokens, weights)
        return Example(tuple(tokens), tuple(weights), tuple(readings), record.source)

    def _readings(self, record: Record) -> list[Reading]:
        parts = [piece.part for piece in record.pieces] or [
            part for message in record.messages for part in message.content
        ]
        inputs = [part for part in parts if not isinstance(part, Text)]
        if not inputs:
            return []
        kind = type(inputs[0]).__name__.lower()
        if kind not in self._reads:
            raise DataError(
                f"{record.origin or record.source}: holds a {kind}, which this model does not "
                "read; train a model with vision, or leave the source out"
            )
        return self._reads[kind].read(inputs, self.tokenizer)

    def _pieces(self, record: Record, left: list[Reading]) -> tuple[list[int], list[float]]:
        bos = self.tokenizer.encode("", bos=True)
        tokens, weights = list(bos), [0.0] * len(bos)
        for piece in record.pieces:
            if isinstance(piece.part, Text):
                ids = self.tokenizer.encode(piece.part.text, bos=False)
                tokens += ids
                weights += [piece.weight] * len(ids)
            else:
                ids = list(left.pop(0).tokens)
                tokens += ids
                weights += [0.0] * len(ids)
        end = self.tokenizer.specials.get(_END_OF_TEXT)
        if end is not None:
            tokens.append(end)
            weights.append(record.pieces[-1].weight)
        return tokens, weights

    def _chat(self, record: Record, readings: list[Reading]) -> tuple[list[int], list[float]]:
        rendered = self._format.render(record.messages, record.tools, generation=False)
        left = list(readings)
        tokens: list[int] = []
        weights: list[float] = []
        # A header is four segments: its start, the role, its end, two line ends.
        header, role = 0, ""
        for segment in rendered.segments:
            one: Any = type(rendered)((segment,))
            ids = self._format.encode(one, self.tokenizer, expand=lambda _: left.pop(0).tokens)
            if segment == Special(HEADER_START):
                header = 4
            elif header == 3:
                role = str(segment)
            spoken = role == "assistant" and header == 0 and isinstance(segment, str | Special)
            tokens += ids
            weights += [1.0 if spoken else 0.0] * len(ids)
            header = max(0, header - 1)
            if segment in (Special(EOT), Special(EOM)):
                role = ""
        return tokens, weights

    def _cut(
        self, record: Record, tokens: list[int], weights: list[float]
    ) -> tuple[list[int], list[float]]:
        if self.length is None or len(tokens) <= self.length:
            return tokens, weights
        placeholders = {modality.placeholder for modality in self._reads.values()}
        if not placeholders.isdisjoint(tokens[self.length :]):
            raise DataError(
                f"{record.origin or record.source}: has {len(tokens)} tokens, and cutting it to "
                f"{self.length} would cut a picture; raise data.length, or use smaller pictures"
            )
        return tokens[: self.length], weights[: self.length]
