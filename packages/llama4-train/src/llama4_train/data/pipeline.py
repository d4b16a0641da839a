"""Batches for a run: records are drawn, encoded and packed, with an exact state."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from llama4_train.data.encode import Encoder
from llama4_train.data.mixture import Mixture
from llama4_train.data.packing import pack
from llama4_train.errors import DataError
from llama4_train.protocols import Batch, Example

log = logging.getLogger(__name__)


class Pipeline:
    """Packs whole examples up to a number of tokens; what does not fit begins the next batch.

    Args:
        mixture: where records come from.
        encoder: makes examples of them.
        tokens: most tokens of a batch, at least the encoder's length.
        placeholder: token at which pictures stand, or None for text.
        on_error: "stop" or "skip" a record that cannot be used.
    """

    def __init__(
        self,
        mixture: Mixture,
        encoder: Encoder,
        tokens: int,
        placeholder: int | None = None,
        on_error: str = "stop",
    ) -> None:
        self.mixture = mixture
        self.encoder = encoder
        self.tokens = tokens
        self.on_error = on_error
        self._placeholders = None if placeholder is None else {0: placeholder}
        self._waiting: Example | None = None
        # Where the mixture stood before the waiting example was drawn: drawing again gives it.
        self._before: dict[str, Any] = mixture.state()

    def batch(self) -> Batch:
        """The next batch.

        Raises:
            DataError: a record cannot be used, and ``on_error`` is "stop".
        """
        examples: list[Example] = []
        room = self.tokens
        while True:
            if self._waiting is None:
                self._before = self.mixture.state()
                self._waiting = self._draw()
            if examples and len(self._waiting.tokens) > room:
                return pack(examples, self._placeholders)
            room -= len(self._waiting.tokens)
            examples.append(self._waiting)
            self._waiting = None
            if room <= 0:
                return pack(examples, self._placeholders)

    def _draw(self) -> Example:
        while True:
            try:
                return self.encoder(next(self.mixture))
            except DataError as error:
                if self.on_error != "skip":
                    raise
                log.warning("skipped: %s", error)

    def state(self) -> dict[str, Any]:
        """JSON values from which :meth:`restore` gives the same batches."""
        return self._before if self._waiting is not None else self.mixture.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on where ``state`` was taken."""
        self._waiting = None
        self.mixture.restore(state)
