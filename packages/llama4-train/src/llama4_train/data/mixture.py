"""Several data sources as one, by weight, with an exact state."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

from llama4_train.errors import DataError
from llama4_train.protocols import DataSource, Record


class Mixture:
    """Draws each record from one of several sources, by weight.

    Which source comes next depends on the seed and the number of records so far and on nothing
    else, so that the state is a number and the states of the sources.

    Args:
        sources: label and source of each.
        weights: shares; they need not sum to 1.
        seed: of the choice.

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
        if any(not weight > 0 for weight in weights):
            raise DataError(f"weights are {list(weights)}; expected numbers above 0")
        self.sources = tuple(sources)
        self.drawn = 0
        self._seed = seed
        self._bounds = list(accumulate(weights))

    def __iter__(self) -> Mixture:
        return self

    def __next__(self) -> Record:
        """The next record, labelled with its source."""
        label, source = self.sources[self._choice(self.drawn)]
        record = next(source)
        self.drawn += 1
        return replace(record, source=label)

    def _choice(self, number: int) -> int:
        digest = hashlib.blake2b(f"{self._seed} {number}".encode(), digest_size=8).digest()
        point = int.from_bytes(digest, "big") / 2**64 * self._bounds[-1]
        return min(bisect_right(self._bounds, point), len(self.sources) - 1)

    def state(self) -> dict[str, Any]:
        """JSON values: how many were drawn, and where each source is."""
        return {"drawn": self.drawn, "sources": [source.state() for _, source in self.sources]}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on where ``state`` was taken.

        Raises:
            DataError: the state is of another mixture.
        """
        states = state["sources"]
        if len(states) != len(self.sources):
            raise DataError(
                f"the stored state is of {len(states)} sources; expected {len(self.sources)}: "
                "resume with the recipe that the run was started with"
            )
        self.drawn = int(state["drawn"])
        for (_, source), one in zip(self.sources, states, strict=True):
            source.restore(one)
