"""A record as tokens with the weight of each as a target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llama4_core.chat.format import HEADER_START, Llama4Format
from llama4_core.chat.messages import Text
from llama4_core.chat.rendered import Rendered, Special
from llama4_core.errors import ChatError, ModalityError, TokenizerError
from llama4_core.protocols.modalities import Modality, Reading
from llama4_train.errors import DataError
from llama4_train.protocols import Example, Record

if TYPE_CHECKING:
    from llama4_core.tokenizers.tokenizer import Tokenizer

_END_OF_TEXT = "<|end_of_text|>"
# A header is four segments: its start, the role, its end, two line ends.
_HEADER = 4
_ROLE = 3


class Encoder:
    """Tokenises records for one model.

    Running text begins with the beginning-of-text token and ends with ``<|end_of_text|>`` where the
    tokenizer has one. A conversation is written in the chat format; the loss is on what the
    assistant writes: its text, its calls with the tokens around them, and the end of its turn.
    Headers, other roles and pictures are only read.

    Args:
        tokenizer: of the model.
        modalities: what it reads beside text.
        length: longest example in tokens; longer ones are cut, unless that would cut a picture.
            None for no limit.

    Raises:
        DataError: the length is no whole number of at least 2.
    """

    def __init__(
        self, tokenizer: Tokenizer, modalities: Sequence[Modality] = (), length: int | None = None
    ) -> None:
        if length is not None and (type(length) is not int or length < 2):
            raise DataError(f"the length of an example is {length!r:.80}; expected at least 2")
        self.tokenizer = tokenizer
        self.length = length
        self._reads = {kind: modality for modality in modalities for kind in modality.kinds}
        self._placeholders = {modality.placeholder for modality in modalities if modality.kinds}
        self._format = Llama4Format()

    def __call__(self, record: Record | Example) -> Example:
        """The example of a record; an example is returned as it is.

        Raises:
            DataError: it is empty, malformed, or holds an input that cannot be read; a picture
                would have to be cut; nothing in it would be learnt. Says where it comes from.
        """
        if isinstance(record, Example):
            return record
        if bool(record.pieces) == bool(record.messages):
            raise DataError(
                f"{_place(record)}: a record has "
                f"{'both pieces and messages' if record.pieces else 'nothing in it'}; expected one"
            )
        try:
            readings = self._readings(record)
            left = [reading for reading, _ in readings]
            encode = self._pieces if record.pieces else self._chat
            tokens, weights = encode(record, left)
        except (ChatError, ModalityError, TokenizerError) as error:
            raise DataError(f"{_place(record)}: {error}") from error
        return Example(
            *self._cut(record, tokens, weights),
            readings=tuple(reading for reading, _ in readings),
            source=record.source,
            placeholders=tuple(placeholder for _, placeholder in readings),
        )

    def _readings(self, record: Record) -> list[tuple[Reading, int]]:
        """What the inputs were read as, in order, and the placeholder of each."""
        parts = [piece.part for piece in record.pieces] or [
            part for message in record.messages for part in message.content
        ]
        inputs = [part for part in parts if not isinstance(part, Text)]
        readers = [self._reader(record, part) for part in inputs]
        found: list[tuple[Reading, int] | None] = [None] * len(inputs)
        for reader in {id(reader): reader for reader in readers}.values():
            # All of one modality together: it may have a limit for them.
            places = [at for at, one in enumerate(readers) if one is reader]
            read = reader.read([inputs[at] for at in places], self.tokenizer)
            for at, reading in zip(places, read, strict=True):
                found[at] = (reading, reader.placeholder)
        return [one for one in found if one is not None]

    def _reader(self, record: Record, part: Any) -> Modality:
        kind = type(part).__name__.lower()
        if kind not in self._reads:
            raise DataError(
                f"{_place(record)}: holds a part of the kind {kind!r}, which this model does not "
                "read; train a model with vision, or leave the source out"
            )
        return self._reads[kind]

    def _pieces(self, record: Record, left: list[Reading]) -> tuple[list[int], list[float]]:
        tokens = self.tokenizer.encode("", bos=True)
        weights = [0.0] * len(tokens)
        for piece in record.pieces:
            written = isinstance(piece.part, Text)
            if isinstance(piece.part, Text):
                ids = self.tokenizer.encode(piece.part.text, bos=False)
            else:
                ids = list(left.pop(0).tokens)
            tokens += ids
            weights += [piece.weight if written else 0.0] * len(ids)
        end = self.tokenizer.specials.get(_END_OF_TEXT)
        if end is not None:
            tokens.append(end)
            weights.append(record.pieces[-1].weight)
        return tokens, weights

    def _chat(self, record: Record, left: list[Reading]) -> tuple[list[int], list[float]]:
        rendered = self._format.render(record.messages, record.tools, generation=False)
        tokens: list[int] = []
        weights: list[float] = []
        header, role = 0, ""
        for segment in rendered.segments:
            # One by one, which gives the same ids as all together.
            ids = self._format.encode(
                Rendered((segment,)), self.tokenizer, expand=lambda _: left.pop(0).tokens
            )
            if segment == Special(HEADER_START):
                header = _HEADER
            elif header == _ROLE:
                role = str(segment)
            spoken = role == "assistant" and header == 0 and isinstance(segment, str | Special)
            tokens += ids
            weights += [1.0 if spoken else 0.0] * len(ids)
            header = max(0, header - 1)
        return tokens, weights

    def _cut(
        self, record: Record, tokens: list[int], weights: list[float]
    ) -> tuple[tuple[int, ...], tuple[float, ...]]:
        if weights:
            # Nothing comes before the first token that could predict it.
            weights[0] = 0.0
        length = len(tokens) if self.length is None else self.length
        if not self._placeholders.isdisjoint(tokens[length:]):
            raise DataError(
                f"{_place(record)}: has {len(tokens)} tokens, and cutting it to {length} would cut "
                "a picture; raise data.length, or use smaller pictures"
            )
        if not any(weights[:length]):
            more = f" in its first {length} of {len(tokens)} tokens" if any(weights) else ""
            raise DataError(
                f"{_place(record)}: nothing{more} has a weight, so nothing would be learnt; raise "
                "data.length, or leave the record out"
            )
        return tuple(tokens[:length]), tuple(weights[:length])


def _place(record: Record) -> str:
    return record.origin or record.source or "a record"
