"""Several data sources as one, by weight, with an exact state."""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

from llama4_train.errors import DataError, NoMoreDataError
from llama4_train.protocols import DataSource, Example, Record


class Mixture:
    """Draws each record from one of several sources, by weight.

    Which source comes next depends on the seed and the number of records so far and on nothing
    else, so that the state is a number and the states of the sources. Of ``n`` records a source
    with the share ``p`` gives ``n p``, give or take ``sqrt(n p (1 - p))``.

    The mixture ends when a source that is drawn from has ended: going on without it would change
    the shares. Sources of real data go on without end with ``epochs = 0``.

    Args:
        sources: label and source of each.
        weights: shares; they need not sum to 1.
        seed: of the choice.

    Attributes:
        sources: as given.
        drawn: records so far.
        ended: label of the source that has ended; None while none has.

    Raises:
        DataError: no source, or a weight that is no share.
    """

    def __init__(
        self,
        sources: Sequence[tuple[str, DataSource]],
        weights: Sequence[float],
        seed: int,
    ) -> None:
        if not sources or len(sources) != len(weights):
            raise DataError(
                f"a mixture got {len(sources)} sources and {len(weights)} weights; expected at "
                "least one source and a weight for each"
            )
        for weight in weights:
            if type(weight) not in (int, float) or not 0 < weight < math.inf:
                raise DataError(f"weights are {list(weights)}; expected finite numbers above 0")
        self.sources = tuple(sources)
        self.drawn = 0
        self.ended: str | None = None
        self._seed = seed
        self._weights = [float(weight) for weight in weights]
        self._bounds = list(accumulate(self._weights))

    def __iter__(self) -> Mixture:
        return self

    def __next__(self) -> Record | Example:
        """The next record, labelled with its source.

        After an error the next call draws from the same source.

        Raises:
            NoMoreDataError: the source whose turn it is has ended.
            DataError: a record cannot be read.
        """
        label, source = self.sources[self._choice(self.drawn)]
        try:
            record = next(source)
        except StopIteration:
            self.ended = label
            raise NoMoreDataError(
                f"the data source {label!r} has ended after {self.drawn:,} records of the "
                "mixture; set its epochs to 0 to go on without end, or take fewer steps"
            ) from None
        self.drawn += 1
        return replace(record, source=label)

    def _choice(self, number: int) -> int:
        digest = hashlib.blake2b(f"{self._seed} {number}".encode(), digest_size=8).digest()
        point = int.from_bytes(digest, "big") / 2**64 * self._bounds[-1]
        return min(bisect_right(self._bounds, point), len(self.sources) - 1)

    def _about(self) -> dict[str, Any]:
        return {
            "labels": [label for label, _ in self.sources],
            "weights": list(self._weights),
            "seed": self._seed,
        }

    def state(self) -> dict[str, Any]:
        """JSON values: how many were drawn, where each source is, and of what mixture."""
        states = [source.state() for _, source in self.sources]
        return {"drawn": self.drawn, "sources": states, **self._about()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on where ``state`` was taken; changes nothing when it cannot.

        Raises:
            DataError: the state is of another mixture, or a source's of another source; says what
                differs.
        """
        drawn, states = state.get("drawn"), state.get("sources")
        if type(drawn) is not int or drawn < 0 or not isinstance(states, Sequence):
            raise DataError(f"the stored state is {dict(state)!r:.120}; expected one of a mixture")
        for name, expected in self._about().items():
            if state.get(name) != expected:
                raise DataError(
                    f"the stored state is of a mixture with the {name} {state.get(name)!r:.200}, "
                    f"this one has {expected!r:.200}; resume with the recipe that the run was "
                    "started with"
                )
        before = [source.state() for _, source in self.sources]
        done = 0
        try:
            for (label, source), one in zip(self.sources, states, strict=True):
                try:
                    source.restore(one)
                except DataError as error:
                    raise DataError(f"data source {label!r}: {error}") from error
                done += 1
        except DataError:
            for (_, source), one in zip(self.sources[:done], before[:done], strict=True):
                source.restore(one)
            raise
        self.drawn = drawn
        self.ended = None
