"""Worlds as a source of training data."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

from llama4_core.specs.suggest import nearest
from llama4_train.errors import DataError
from llama4_train.protocols import Record
from llama4_train.worlds.registry import world as world_by_name
from llama4_train.worlds.sample import Sample, World
from llama4_train.worlds.streams import stream

_KEYS = ("world", "weight", "settings")


class WorldSource:
    """Records of one world, or of several in a fixed proportion, without end.

    Its whole state is the number of the next record.

    Args:
        world: name of the one world.
        seed: of the worlds, and of which of them comes next.
        split: "train" or "held-out".
        worlds: instead of ``world``: dictionaries with "world", "weight" (1 unless given) and
            "settings". A record is of each world with a probability in proportion to its weight.
        limit: records until the end; None for no end.
        settings: of the one world.

    Raises:
        DataError: an unknown world or setting (the nearest is suggested), or a wrong value.
    """

    def __init__(
        self,
        world: str | None = None,
        seed: int = 0,
        split: str = "train",
        worlds: Sequence[Mapping[str, Any]] = (),
        limit: int | None = None,
        **settings: Any,
    ) -> None:
        if (world is None) == (not worlds):
            raise DataError(
                f"world is {world!r:.80} and worlds are {worlds!r:.80}; expected one of them"
            )
        if limit is not None and (type(limit) is not int or limit < 0):
            raise DataError(f"limit is {limit!r:.80}; expected a whole number from 0 on, or None")
        if world is not None:
            worlds = ({"world": world, "settings": settings},)
        elif settings:
            raise DataError(
                f"settings {', '.join(settings)} stand beside worlds; put them into the 'settings' "
                "of one of these"
            )
        entries = [_entry(entry) for entry in worlds]
        self.worlds: tuple[World, ...] = tuple(
            world_by_name(name, **{"seed": seed, "split": split, **given})
            for name, _, given in entries
        )
        self._bounds = list(accumulate(weight for _, weight, _ in entries))
        self._seed, self._split, self._limit = seed, split, limit
        self._next = 0

    def __iter__(self) -> Iterator[Record]:
        return self

    def __next__(self) -> Record:
        if self._limit is not None and self._next >= self._limit:
            raise StopIteration
        number = self._next
        self._next += 1  # also where there is no such sample: the one behind it comes next
        record = self.sample(number).record
        origin = f"sample {number} of {record.source}"
        return replace(record, origin=record.origin or origin)

    def sample(self, index: int) -> Sample:
        """Sample ``index`` of the whole, whatever comes next."""
        return self.world_of(index).sample(index)

    def world_of(self, index: int) -> World:
        """The world that record ``index`` is of."""
        if len(self.worlds) == 1:
            return self.worlds[0]
        drawn = stream("mixture", self._seed, self._split, index).random() * self._bounds[-1]
        return next(
            world for world, bound in zip(self.worlds, self._bounds, strict=True) if drawn < bound
        )

    def state(self) -> dict[str, Any]:
        """See :class:`~llama4_train.protocols.DataSource`."""
        return {"next": self._next}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See :class:`~llama4_train.protocols.DataSource`.

        Raises:
            DataError: the state is of another kind of source.
        """
        number = state.get("next")
        if set(state) != {"next"} or type(number) is not int or number < 0:
            raise DataError(
                f"the state of a world is {dict(state)!r:.80}; expected {{'next': a whole number}}"
            )
        self._next = number

    @property
    def endless(self) -> bool:
        """Whether it never ends."""
        return self._limit is None

    @staticmethod
    def sample_settings(folder: Path) -> Mapping[str, Any]:
        """See :class:`~llama4_train.protocols.DataSource`; needs no files."""
        worlds = [{"world": "arithmetic"}, {"world": "tools"}]
        return {"worlds": worlds, "limit": 12}


def _entry(entry: Mapping[str, Any]) -> tuple[str, float, Mapping[str, Any]]:
    """Name, weight and settings of one of several worlds."""
    if not isinstance(entry, Mapping) or "world" not in entry:
        raise DataError(f"one of the worlds is {entry!r:.80}; expected a table with a key 'world'")
    for key in entry:
        if key not in _KEYS:
            raise DataError(
                f"one of the worlds has the key {key!r:.80}{nearest(key, _KEYS)}; expected "
                f"{', '.join(_KEYS)}"
            )
    weight = entry.get("weight", 1.0)
    if type(weight) not in (int, float) or not 0 < weight < math.inf:
        raise DataError(f"the weight of a world is {weight!r:.80}; expected a number above 0")
    settings = entry.get("settings", {})
    if not isinstance(settings, Mapping):
        raise DataError(f"the settings of a world are {settings!r:.80}; expected a table")
    return entry["world"], float(weight), settings
