"""Batches for a run: records are drawn, encoded and packed, with an exact state."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from llama4_train.data.encode import Encoder
from llama4_train.data.mixture import Mixture
from llama4_train.data.packing import pack
from llama4_train.data.skipping import Skipping
from llama4_train.errors import DataError, NoMoreDataError
from llama4_train.protocols import Batch, Example

log = logging.getLogger(__name__)


class Pipeline:
    """Packs whole examples up to a number of tokens; what does not fit begins the next batch.

    Nothing is padded: a batch has as many tokens as its examples.

    Args:
        mixture: where records come from. Sources that give tokens get the encoder first, and may
            take long to write what they have not yet written.
        encoder: makes examples of them.
        tokens: most tokens of a batch, at least the encoder's length.
        on_error: "stop" or "skip" at a record that cannot be used.

    Raises:
        DataError: an example may be longer than a batch; a source cannot be tokenised.
    """

    def __init__(
        self, mixture: Mixture, encoder: Encoder, tokens: int, on_error: str = "stop"
    ) -> None:
        if encoder.length is None or encoder.length > tokens:
            raise DataError(
                f"an example may have {encoder.length or 'any number of'} tokens, and a batch only "
                f"{tokens}; raise data.tokens to data.length at least"
            )
        self.mixture = mixture
        self.encoder = encoder
        self.tokens = tokens
        self._usable = Skipping(on_error)
        for _, source in mixture.sources:
            prepare = getattr(source, "prepare", None)
            if prepare is not None:
                prepare(encoder)
        # Drawn, but not yet in a batch that was given; and the state before the first of them:
        # drawing again from there gives them again.
        self._waiting: list[Example] = []
        self._before: dict[str, Any] = {}

    @property
    def skipped(self) -> int:
        """Records that could not be used so far, in all parts of a resumed run."""
        return self._usable.skipped

    def batch(self) -> Batch:
        """The next batch; the last one of data that ends may be small.

        Raises:
            NoMoreDataError: the data has ended.
            DataError: a record cannot be used, and ``on_error`` is "stop".
        """
        room = self.tokens - sum(len(example.tokens) for example in self._waiting)
        while room > 0:
            before = self._now()
            try:
                example = self._usable(lambda: self.encoder(next(self.mixture)))
            except NoMoreDataError:
                if self._waiting:
                    return self._given(len(self._waiting), before)
                self.finish()
                raise
            if not self._waiting:
                self._before = before
            self._waiting.append(example)
            room -= len(example.tokens)
            if room < 0:
                return self._given(len(self._waiting) - 1, before)
        return self._given(len(self._waiting), self._before)

    def _given(self, count: int, before: dict[str, Any]) -> Batch:
        """A batch of the first that wait; ``before`` is the state before the rest was drawn."""
        batch = pack(self._waiting[:count])
        self._waiting, self._before = self._waiting[count:], before
        return batch

    def __iter__(self) -> Iterator[Batch]:
        """Batches until the data ends.

        Raises:
            NoMoreDataError: it broke off.
            DataError: a record cannot be used, and ``on_error`` is "stop".
        """
        while True:
            try:
                batch = self.batch()
            except NoMoreDataError:
                if self.mixture.ended is None:
                    raise
                return
            yield batch

    def finish(self) -> None:
        """Says in the log how many records were skipped, if any were."""
        if self.skipped:
            log.warning("%s", self._usable.summary())

    def _now(self) -> dict[str, Any]:
        used, skipped = self._usable.used, self._usable.skipped
        return {"mixture": self.mixture.state(), "used": used, "skipped": skipped}

    def state(self) -> dict[str, Any]:
        """JSON values from which :meth:`restore` gives the same batches."""
        return self._before if self._waiting else self._now()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on where ``state`` was taken; changes nothing when it cannot.

        Raises:
            DataError: the state is of other data; says what differs.
        """
        mixture, used, skipped = (state.get(name) for name in ("mixture", "used", "skipped"))
        if not isinstance(mixture, Mapping) or type(used) is not int or type(skipped) is not int:
            raise DataError(f"the stored state is {dict(state)!r:.120}; expected one of a pipeline")
        self.mixture.restore(mixture)
        self._waiting = []
        self._usable.used, self._usable.skipped = used, skipped
